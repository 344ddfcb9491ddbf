/*
 * The aarch64 heartbeat guest for QEMU's `virt` machine, entered by its `-kernel` loader at `_start` with
 * the MMU off; further processors stay parked by the firmware (PSCI).
 *
 * Prints "heartbeat N\n" on the PL011 serial port, N from 1, at once and then every 100 ms of guest time;
 * between the beats it computes, so that the virtual processor is always busy. Time comes from the
 * architecture's counter, so the pace is the same under KVM, TCG, and TCG within TCG.
 */

        .set    UART, 0x09000000
        .set    UART_DATA, 0x00
        .set    UART_FLAGS, 0x18
        .set    UART_CONTROL, 0x30
        .set    TRANSMIT_FULL_BIT, 5            /* in the flags */
        .set    UART_ON, 0x301                  /* enabled, transmit, receive */

        .ifndef BEATS_PER_SECOND
        .set    BEATS_PER_SECOND, 10
        .endif
        .set    WORK, 10000                     /* rounds of computing between two looks at the counter */
        .set    PATIENCE, 10000                 /* looks at a busy serial port before a line is given up */

        .text
        .globl  _start
_start: ldr     x19, =UART
        mov     w0, #UART_ON
        str     w0, [x19, #UART_CONTROL]
        ldr     x20, =1664525                   /* a linear congruential generator: the factor, */
        ldr     x21, =1013904223                /* the increment, */
        mov     x22, #1                         /* and what has been computed so far */
        mrs     x23, cntfrq_el0
        mov     x0, #BEATS_PER_SECOND
        udiv    x23, x23, x0                    /* x23: counts from beat to beat */
        mrs     x24, cntvct_el0                 /* x24: the count at the last beat */
        mov     x25, #0                         /* x25: the number of the beat */

beat:   add     x25, x25, #1
        bl      print_line
compute:
        mov     w0, #WORK
1:      madd    x22, x22, x20, x21
        subs    w0, w0, #1
        b.ne    1b
        isb                                     /* or the counter might be read early */
        mrs     x0, cntvct_el0
        sub     x1, x0, x24
        cmp     x1, x23
        b.lo    compute
        mov     x24, x0
        b       beat

/* Print the line of beat x25; its digits are written from the last to the first, before the newline. */
print_line:
        mov     x10, x30
        adr     x0, text
        bl      print
        adr     x0, newline
        mov     x1, x25
        mov     x2, #10
1:      udiv    x3, x1, x2
        msub    x4, x3, x2, x1
        add     w4, w4, #'0'
        strb    w4, [x0, #-1]!
        mov     x1, x3
        cbnz    x1, 1b
        mov     x30, x10

/* Print the bytes at x0 up to a zero. When nobody takes them, give up: a beat may be lost, not the guest. */
print:  ldrb    w1, [x0], #1
        cbz     w1, 3f
        mov     w2, #PATIENCE
1:      ldr     w3, [x19, #UART_FLAGS]
        tbz     w3, #TRANSMIT_FULL_BIT, 2f
        subs    w2, w2, #1
        b.ne    1b
        ret
2:      str     w1, [x19, #UART_DATA]
        b       print
3:      ret

        .data
text:   .asciz  "heartbeat "
        .fill   20, 1, '0'                      /* room for the digits of 2^64 - 1 */
newline:
        .asciz  "\n"
