/*
 * Enters the payload on aarch64's `virt` machine. With WINDOW the image is region 2 of the PCI device 1af4:1110, to which
 * nobody has given an address yet; else it is the RAM, from its beginning on.
 */

        .set    CODE, 0x1800000
        .set    RAM, 0x40000000
        .set    ECAM, 0x4010000000              /* the configuration of PCI devices, a page for each function */
        .set    SLOT, 0x8000
        .set    REGION, 0x20000000              /* in the machine's PCI window, as aligned as the image is long */

        .text
        .globl  _start
_start: ldr     x0, =stack_top
        mov     sp, x0
        mov     x20, #RAM
        .if     WINDOW
        ldr     x0, =ECAM
        ldr     w1, =0x11101af4                 /* product and vendor */
        mov     w2, #32
1:      ldr     w3, [x0]
        cmp     w3, w1
        b.eq    2f
        add     x0, x0, #SLOT
        subs    w2, w2, #1
        b.ne    1b
        b       .                               /* there is no window */
2:      mov     x20, #REGION
        str     w20, [x0, #0x18]
        str     wzr, [x0, #0x1c]
        ldr     w3, [x0, #4]
        orr     w3, w3, #2                      /* it answers at that address */
        str     w3, [x0, #4]
        .endif
        ldr     x0, =CODE
        add     x0, x0, x20
        br      x0
        .ltorg

        .bss
        .balign 16
        .skip   4096
stack_top:
