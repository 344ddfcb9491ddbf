/*
 * Enters the payload on x86_64: as enter-i386.S, by way of long mode, with the lower 4 GiB mapped one to one. Multiboot
 * knows only 32-bit ELF files: this is assembled as 64-bit code and its container rewritten afterwards.
 */

        .set    CODE, 0x1400000
        .set    CR0_PAGING, 1 << 31
        .set    CR4_PAE, 1 << 5
        .set    MSR_EFER, 0xc0000080
        .set    EFER_LONG_MODE, 1 << 8
        .set    PRESENT_WRITABLE, 0x3
        .set    LARGE_PAGE, 0x80
        .set    CODE_SELECTOR, 8
        .set    TABLES, 4                       /* of 512 large pages: 1 GiB each */

        .include "multiboot.inc"
        .include "pci.inc"

        .text
        .globl  _start
        .code32
_start: movl    $stack_top, %esp
        movl    $level2, %edi
        movl    $LARGE_PAGE + PRESENT_WRITABLE, %eax
1:      movl    %eax, (%edi)
        movl    $0, 4(%edi)
        addl    $8, %edi
        addl    $0x200000, %eax
        jnc     1b                              /* until it has come to 4 GiB */
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
        xorl    %ebp, %ebp
        .if     WINDOW
        FIND_WINDOW
        .endif
        leal    CODE(%ebp), %eax
        jmp     *%rax

        .data
        .balign 8
gdt:    .quad   0
        .quad   0x00209a0000000000              /* code: 64-bit, present, executable, readable */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
        .balign 4096
level4: .quad   level3 + PRESENT_WRITABLE
        .balign 4096
level3: .quad   level2 + PRESENT_WRITABLE, level2 + 0x1000 + PRESENT_WRITABLE
        .quad   level2 + 0x2000 + PRESENT_WRITABLE, level2 + 0x3000 + PRESENT_WRITABLE
        .balign 4096

        .bss
        .balign 4096
level2: .skip   TABLES * 4096
        .skip   4096
stack_top:
