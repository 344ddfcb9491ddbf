/*
 * The payload's code for aarch64. It is position independent and writes to nothing of the image but where it tries to.
 *
 * Entered at its first byte with the MMU off, with a stack, and in x20 the address at which the image is mapped; never
 * leaves. See layout.inc for what it prints.
 */

        .include "layout.inc"

        .set    UART, 0x09000000
        .set    UART_FLAGS, 0x18
        .set    UART_CONTROL, 0x30
        .set    TRANSMIT_FULL_BIT, 5

        .text
        .globl  _start
_start: mov     x19, #UART
        mov     w0, #0x301                      /* enabled, transmit, receive */
        str     w0, [x19, #UART_CONTROL]
        adr     x0, at
        bl      text
        mov     x0, x20
        bl      hex_line

        mov     w21, #0                         /* the sum of the first words of all pages */
        mov     x1, x20
        mov     w2, #PAGES
1:      ldr     w3, [x1]
        add     w21, w21, w3
        add     x1, x1, #PAGE
        subs    w2, w2, #1
        b.ne    1b
        adr     x0, sum
        bl      text
        mov     x0, x21
        bl      hex_line

        mov     x1, #TRIED
        add     x1, x1, x20
        ldr     w2, [x1]
        mvn     w3, w2
        str     w3, [x1]                        /* on a window nothing comes of this */
        ldr     w4, [x1]
        adr     x0, ignored
        cmp     w4, w2
        b.eq    2f
        str     w2, [x1]
        adr     x0, taken
2:      bl      text

        mov     x21, #0                         /* x21: the number of the beat */
        mrs     x22, cntfrq_el0
        mov     x0, #10
        udiv    x22, x22, x0                    /* x22: counts from beat to beat */
beat:   add     x21, x21, #1
        adr     x0, heartbeat
        bl      text
        mov     x0, x21
        bl      decimal
        adr     x0, pc_
        bl      text
        adr     x0, .                           /* the program counter as it is, not as it was linked */
        bl      hex_line
        mrs     x23, cntvct_el0
3:      isb
        mrs     x0, cntvct_el0
        sub     x0, x0, x23
        cmp     x0, x22
        b.lo    3b
        b       beat

/* Print the zero-terminated text at x0. */
text:   mov     x9, x30
1:      ldrb    w1, [x0], #1
        cbz     w1, 2f
        bl      putc
        b       1b
2:      ret     x9

/* Print the lower half of x0 in eight hex digits and end the line. */
hex_line:
        mov     x9, x30
        mov     w2, #8
1:      ror     w0, w0, #28
        and     w1, w0, #15
        cmp     w1, #10
        b.lo    2f
        add     w1, w1, #'a' - '0' - 10
2:      add     w1, w1, #'0'
        bl      putc
        subs    w2, w2, #1
        b.ne    1b
        mov     w1, #'\n'
        mov     x30, x9
        b       putc

/* Print x0 in decimal, by the stack: nothing of the image can be written to. */
decimal:
        mov     x10, #10
        udiv    x2, x0, x10
        msub    x1, x2, x10, x0
        stp     x1, x30, [sp, #-16]!
        cbz     x2, 1f
        mov     x0, x2
        bl      decimal
1:      ldp     x1, x30, [sp], #16
        add     w1, w1, #'0'

/* Print w1; uses w3 alone. */
putc:   ldr     w3, [x19, #UART_FLAGS]
        tbnz    w3, #TRANSMIT_FULL_BIT, putc
        str     w1, [x19]
        ret

        TEXTS
