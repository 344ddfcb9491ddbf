/*
 * Enters the payload on i386: a multiboot kernel that finds the image and jumps to its code. With WINDOW the image is
 * region 2 of the PCI device 1af4:1110, which the firmware has given an address; else it is the RAM, from 0 on.
 */

        .set    CODE, 0x1000000

        .include "multiboot.inc"
        .include "pci.inc"

        .text
        .globl  _start
_start: movl    $stack_top, %esp
        xorl    %ebp, %ebp
        .if     WINDOW
        FIND_WINDOW
        .endif
        leal    CODE(%ebp), %eax
        jmp     *%eax

        .bss
        .balign 16
        .skip   4096
stack_top:
