/*
 * The i386 heartbeat guest: a multiboot kernel. The loader enters at `_start` in 32-bit protected mode with
 * flat segments and interrupts off, which is all that the heartbeat needs beside a stack.
 */

        .include "multiboot.inc"

        .text
        .globl  _start
_start: movl    $stack_top, %esp
        .include "pc.inc"

        .bss
        .balign 16
        .skip   256
stack_top:
