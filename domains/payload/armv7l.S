/*
 * The payload's code for armv7l. It is position independent and writes to nothing of the image but where it tries to.
 *
 * Entered at its first byte with the MMU off, with a stack, and in r5 the address at which the image is mapped; never
 * leaves. See layout.inc for what it prints.
 */

        .syntax unified
        .cpu    cortex-a15
        .arm

        .include "layout.inc"

        .set    UART, 0x09000000
        .set    UART_FLAGS, 0x18
        .set    UART_CONTROL, 0x30
        .set    TRANSMIT_FULL, 0x20

        .text
        .globl  _start
_start: mov     r4, #UART
        movw    r0, #0x301                      /* enabled, transmit, receive */
        str     r0, [r4, #UART_CONTROL]
        adr     r0, at
        bl      text
        mov     r0, r5
        bl      hex_line

        mov     r6, #0                          /* the sum of the first words of all pages */
        mov     r1, r5
        mov     r2, #PAGES
1:      ldr     r3, [r1]
        add     r6, r6, r3
        add     r1, r1, #PAGE
        subs    r2, r2, #1
        bne     1b
        adr     r0, sum
        bl      text
        mov     r0, r6
        bl      hex_line

        movw    r1, #TRIED & 0xffff
        movt    r1, #TRIED >> 16
        add     r1, r1, r5
        ldr     r2, [r1]
        mvn     r3, r2
        str     r3, [r1]                        /* on a window nothing comes of this */
        ldr     r3, [r1]
        adr     r0, ignored
        cmp     r3, r2
        beq     2f
        str     r2, [r1]
        adr     r0, taken
2:      bl      text

        mov     r6, #0                          /* r6: the number of the beat */
        mrc     p15, 0, r7, c14, c0, 0          /* CNTFRQ, the counter's frequency */
        mov     r0, #10
        udiv    r7, r7, r0                      /* r7: counts from beat to beat */
beat:   add     r6, r6, #1
        adr     r0, heartbeat
        bl      text
        mov     r0, r6
        bl      decimal
        adr     r0, pc_
        bl      text
        sub     r0, pc, #8                      /* the program counter as it is, not as it was linked */
        bl      hex_line
        mrrc    p15, 1, r8, r1, c14             /* r8: the low half of CNTVCT */
3:      isb
        mrrc    p15, 1, r0, r1, c14
        sub     r0, r0, r8
        cmp     r0, r7
        blo     3b
        b       beat

/* Print the zero-terminated text at r0. */
text:   mov     r9, lr
1:      ldrb    r1, [r0], #1
        cmp     r1, #0
        bxeq    r9
        bl      putc
        b       1b

/* Print r0 in eight hex digits and end the line. */
hex_line:
        mov     r9, lr
        mov     r2, #8
1:      ror     r0, r0, #28
        and     r1, r0, #15
        cmp     r1, #10
        addhs   r1, r1, #'a' - '0' - 10
        add     r1, r1, #'0'
        bl      putc
        subs    r2, r2, #1
        bne     1b
        mov     r1, #'\n'
        mov     lr, r9
        b       putc

/* Print r0 in decimal, by the stack: nothing of the image can be written to. */
decimal:
        mov     r10, #10
        udiv    r2, r0, r10
        mls     r1, r2, r10, r0
        push    {r1, lr}
        movs    r0, r2
        blne    decimal
        pop     {r1, lr}
        add     r1, r1, #'0'

/* Print r1; uses r3 alone. */
putc:   ldr     r3, [r4, #UART_FLAGS]
        tst     r3, #TRANSMIT_FULL
        bne     putc
        str     r1, [r4]
        bx      lr

        TEXTS
