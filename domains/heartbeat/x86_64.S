/*
 * The x86_64 heartbeat guest: a multiboot kernel that goes from 32-bit protected mode to long mode (Intel
 * SDM volume 3A, "Initializing IA-32e Mode") and beats there.
 *
 * Multiboot knows only 32-bit ELF files: this is assembled as 64-bit code and its container rewritten by
 * `objcopy -O elf32-i386` afterwards.
 */

        .set    CR0_PAGING, 1 << 31
        .set    CR4_PAE, 1 << 5
        .set    MSR_EFER, 0xc0000080
        .set    EFER_LONG_MODE, 1 << 8
        .set    PRESENT_WRITABLE, 0x3
        .set    LARGE_PAGE, 0x80
        .set    CODE_SELECTOR, 8

        .include "multiboot.inc"

        .text
        .globl  _start
        .code32
_start: movl    $stack_top, %esp
        movl    $level4, %eax
        movl    %eax, %cr3
        movl    %cr4, %eax
        orl     $CR4_PAE, %eax
        movl    %eax, %cr4
        movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_LONG_MODE, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $CR0_PAGING, %eax
        movl    %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $CODE_SELECTOR, $long_mode

        .code64
long_mode:
        .include "pc.inc"

        .data
        .balign 8
gdt:    .quad   0
        .quad   0x00209a0000000000              /* code: 64-bit, present, executable, readable */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt

/* The first 2 MiB, mapped one to one by a single large page. */
        .balign 4096
level4: .quad   level3 + PRESENT_WRITABLE
        .balign 4096
level3: .quad   level2 + PRESENT_WRITABLE
        .balign 4096
level2: .quad   LARGE_PAGE + PRESENT_WRITABLE
        .balign 4096

        .bss
        .balign 16
        .skip   256
stack_top:
