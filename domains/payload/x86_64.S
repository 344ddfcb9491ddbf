/*
 * The payload's code for x86_64. It is position independent and writes to nothing of the image but where it tries to.
 *
 * Entered at its first byte in 64-bit mode, the lower 4 GiB mapped one to one, interrupts off, with a stack, and in %rbp
 * the address at which the image is mapped; never leaves. See layout.inc for what it prints.
 */

        .include "layout.inc"
        .include "pc.inc"

        .text
        .globl  _start
_start: cli
        call    serial_on
        leaq    at(%rip), %rsi
        call    text
        movl    %ebp, %eax
        call    hex_line

        xorl    %edi, %edi                      /* the sum of the first words of all pages */
        movq    %rbp, %rsi
        movl    $PAGES, %ecx
2:      addl    (%rsi), %edi
        addq    $PAGE, %rsi
        loop    2b
        leaq    sum(%rip), %rsi
        call    text
        movl    %edi, %eax
        call    hex_line

        leaq    TRIED(%rbp), %rdi
        movl    (%rdi), %edx
        notl    (%rdi)                          /* on a window nothing comes of this */
        cmpl    (%rdi), %edx
        leaq    ignored(%rip), %rsi
        je      3f
        movl    %edx, (%rdi)
        leaq    taken(%rip), %rsi
3:      call    text

        xorl    %edi, %edi                      /* edi: the number of the beat */
beat:   incl    %edi
        leaq    heartbeat(%rip), %rsi
        call    text
        movl    %edi, %eax
        call    decimal
        leaq    pc_(%rip), %rsi
        call    text
        leaq    0(%rip), %rax                   /* the program counter as it is, not as it was linked */
        call    hex_line
        call    pause
        jmp     beat

/* Print the zero-terminated text at rsi. */
text:   lodsb
        testb   %al, %al
        jz      1f
        call    putc
        jmp     text
1:      ret

/* Print eax in eight hex digits and end the line. */
hex_line:
        movl    $8, %ecx
1:      roll    $4, %eax
        pushq   %rax
        andb    $15, %al
        cmpb    $10, %al
        jb      2f
        addb    $'a' - '0' - 10, %al
2:      addb    $'0', %al
        call    putc
        popq    %rax
        loop    1b
        movb    $'\n', %al
        jmp     putc

/* Print eax in decimal, by the stack: nothing of the image can be written to. */
decimal:
        xorl    %edx, %edx
        movl    $10, %ecx
        divl    %ecx
        pushq   %rdx
        testl   %eax, %eax
        jz      1f
        call    decimal
1:      popq    %rax
        addb    $'0', %al
        jmp     putc

        PC_SERIAL_AND_PAUSE
        TEXTS
