/*
 * The payload's code for i386. It is position independent and writes to nothing of the image but where it tries to.
 *
 * Entered at its first byte in 32-bit protected mode, flat, interrupts off, with a stack, and in %ebp the address at
 * which the image is mapped; never leaves. See layout.inc for what it prints.
 */

        .include "layout.inc"
        .include "pc.inc"

        .text
        .globl  _start
_start: cli
        call    1f
1:      popl    %ebx
        subl    $1b - _start, %ebx              /* ebx: where this code is */
        call    serial_on
        leal    at - _start(%ebx), %esi
        call    text
        movl    %ebp, %eax
        call    hex_line

        xorl    %edi, %edi                      /* the sum of the first words of all pages */
        movl    %ebp, %esi
        movl    $PAGES, %ecx
2:      addl    (%esi), %edi
        addl    $PAGE, %esi
        loop    2b
        leal    sum - _start(%ebx), %esi
        call    text
        movl    %edi, %eax
        call    hex_line

        leal    TRIED(%ebp), %edi
        movl    (%edi), %edx
        notl    (%edi)                          /* on a window nothing comes of this */
        cmpl    (%edi), %edx
        leal    ignored - _start(%ebx), %esi
        je      3f
        movl    %edx, (%edi)
        leal    taken - _start(%ebx), %esi
3:      call    text

        xorl    %edi, %edi                      /* edi: the number of the beat */
beat:   incl    %edi
        leal    heartbeat - _start(%ebx), %esi
        call    text
        movl    %edi, %eax
        call    decimal
        leal    pc_ - _start(%ebx), %esi
        call    text
        call    here
here:   popl    %eax                            /* the program counter as it is, not as it was linked */
        call    hex_line
        call    pause
        jmp     beat

/* Print the zero-terminated text at esi. */
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
        pushl   %eax
        andb    $15, %al
        cmpb    $10, %al
        jb      2f
        addb    $'a' - '0' - 10, %al
2:      addb    $'0', %al
        call    putc
        popl    %eax
        loop    1b
        movb    $'\n', %al
        jmp     putc

/* Print eax in decimal, by the stack: nothing of the image can be written to. */
decimal:
        xorl    %edx, %edx
        movl    $10, %ecx
        divl    %ecx
        pushl   %edx
        testl   %eax, %eax
        jz      1f
        call    decimal
1:      popl    %eax
        addb    $'0', %al
        jmp     putc

        PC_SERIAL_AND_PAUSE
        TEXTS
