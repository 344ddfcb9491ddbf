/*
 * The heartbeat as a boot sector: what a PC's firmware reads from the first disk to 0x7c00 and enters in
 * 16-bit real mode. It is a guest that needs a disk and nothing else.
 */

        .code16
        .globl  _start
_start: ljmp    $0, $flat                       /* some firmware enters at 07c0:0000 */
flat:   cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movl    $_start, %esp                   /* the stack grows down from the code */
        .include "pc.inc"

        .org    510
        .word   0xaa55                          /* "this sector is bootable" */
