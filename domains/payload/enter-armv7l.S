/*
 * Enters the payload on armv7l's `virt` machine. With WINDOW the image is region 2 of the PCI device 1af4:1110, to which
 * nobody has given an address yet; else it is the RAM, from its beginning on.
 */

        .syntax unified
        .cpu    cortex-a15
        .arm

        .set    CODE, 0x1c00000
        .set    RAM, 0x40000000
        .set    ECAM, 0x3f000000                /* the configuration of PCI devices, on a machine with highmem=off */
        .set    SLOT, 0x8000
        .set    REGION, 0x20000000              /* in the machine's PCI window, as aligned as the image is long */

        .text
        .globl  _start
_start: ldr     sp, =stack_top
        mov     r5, #RAM
        .if     WINDOW
        mov     r0, #ECAM
        ldr     r1, =0x11101af4                 /* product and vendor */
        mov     r2, #32
1:      ldr     r3, [r0]
        cmp     r3, r1
        beq     2f
        add     r0, r0, #SLOT
        subs    r2, r2, #1
        bne     1b
        b       .                               /* there is no window */
2:      mov     r5, #REGION
        str     r5, [r0, #0x18]
        mov     r3, #0
        str     r3, [r0, #0x1c]
        ldr     r3, [r0, #4]
        orr     r3, r3, #2                      /* it answers at that address */
        str     r3, [r0, #4]
        .endif
        ldr     r0, =CODE
        add     pc, r0, r5
        .ltorg

        .bss
        .balign 16
        .skip   4096
stack_top:
