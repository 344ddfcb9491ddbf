/*
 * The armv7l heartbeat guest for QEMU's `virt` machine, entered by its `-kernel` loader at `_start` with
 * the MMU off; further processors stay parked by the firmware (PSCI).
 *
 * Prints "heartbeat N\n" on the PL011 serial port, N from 1, at once and then every 100 ms of guest time;
 * between the beats it computes, so that the virtual processor is always busy. Time comes from the
 * architecture's counter, so the pace is the same under KVM, TCG, and TCG within TCG.
 */

        .syntax unified
        .cpu    cortex-a15
        .arm

        .set    UART, 0x09000000
        .set    UART_DATA, 0x00
        .set    UART_FLAGS, 0x18
        .set    UART_CONTROL, 0x30
        .set    TRANSMIT_FULL, 0x20             /* in the flags */
        .set    UART_ON, 0x301                  /* enabled, transmit, receive */

        .ifndef BEATS_PER_SECOND
        .set    BEATS_PER_SECOND, 10
        .endif
        .set    WORK, 10000                     /* rounds of computing between two looks at the counter */
        .set    PATIENCE, 10000                 /* looks at a busy serial port before a line is given up */

        .text
        .globl  _start
_start: ldr     r4, =UART
        ldr     r0, =UART_ON
        str     r0, [r4, #UART_CONTROL]
        ldr     r5, =1664525                    /* a linear congruential generator: the factor, */
        ldr     r6, =1013904223                 /* the increment, */
        mov     r7, #1                          /* and what has been computed so far */
        mrc     p15, 0, r8, c14, c0, 0          /* CNTFRQ, the counter's frequency */
        mov     r0, #BEATS_PER_SECOND
        udiv    r8, r8, r0                      /* r8: counts from beat to beat */
        mrrc    p15, 1, r9, r1, c14             /* r9: the low half of CNTVCT at the last beat */
        mov     r10, #0                         /* r10: the number of the beat */

beat:   add     r10, r10, #1
        bl      print_line
compute:
        ldr     r0, =WORK
1:      mla     r7, r7, r5, r6
        subs    r0, r0, #1
        bne     1b
        isb                                     /* or the counter might be read early */
        mrrc    p15, 1, r0, r1, c14
        sub     r1, r0, r9
        cmp     r1, r8
        blo     compute
        mov     r9, r0
        b       beat

/* Print the line of beat r10; its digits are written from the last to the first, before the newline. */
print_line:
        mov     r11, lr
        ldr     r0, =text
        bl      print
        ldr     r0, =newline
        mov     r1, r10
        mov     r2, #10
1:      udiv    r3, r1, r2
        mls     r12, r3, r2, r1
        add     r12, r12, #'0'
        strb    r12, [r0, #-1]!
        movs    r1, r3
        bne     1b
        mov     lr, r11

/* Print the bytes at r0 up to a zero. When nobody takes them, give up: a beat may be lost, not the guest. */
print:  ldrb    r1, [r0], #1
        cmp     r1, #0
        bxeq    lr
        ldr     r2, =PATIENCE
1:      ldr     r3, [r4, #UART_FLAGS]
        tst     r3, #TRANSMIT_FULL
        beq     2f
        subs    r2, r2, #1
        bne     1b
        bx      lr
2:      str     r1, [r4, #UART_DATA]
        b       print

        .data
text:   .asciz  "heartbeat "
        .fill   10, 1, '0'                      /* room for the digits of 2^32 - 1 */
newline:
        .asciz  "\n"
