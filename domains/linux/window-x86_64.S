/*
 * window FILE: writes a file to standard output by mapping it, which is how a PCI device's region is read from sysfs:
 * its resource files cannot be read otherwise. Ends with 0, or with 1 if anything fails.
 */

        .set    WRITE, 1
        .set    FSTAT, 5
        .set    OPEN, 2
        .set    MMAP, 9
        .set    EXIT, 60
        .set    SIZE_IN_STAT, 48
        .set    STAT_BYTES, 144

        .text
        .globl  _start
_start: movq    16(%rsp), %rdi                  /* the first argument */
        xorl    %esi, %esi                      /* O_RDONLY */
        movl    $OPEN, %eax
        syscall
        testl   %eax, %eax
        js      failed
        movl    %eax, %r12d
        subq    $STAT_BYTES, %rsp
        movl    %eax, %edi
        movq    %rsp, %rsi
        movl    $FSTAT, %eax
        syscall
        testl   %eax, %eax
        js      failed
        movq    SIZE_IN_STAT(%rsp), %r13        /* what is left to be written */
        xorl    %edi, %edi
        movq    %r13, %rsi
        movl    $1, %edx                        /* PROT_READ */
        movl    $1, %r10d                       /* MAP_SHARED */
        movl    %r12d, %r8d
        xorl    %r9d, %r9d
        movl    $MMAP, %eax
        syscall
        testq   %rax, %rax
        js      failed
        movq    %rax, %r14                      /* from where */
1:      movl    $1, %edi
        movq    %r14, %rsi
        movq    %r13, %rdx
        movl    $WRITE, %eax
        syscall
        testq   %rax, %rax
        jle     failed
        addq    %rax, %r14
        subq    %rax, %r13
        jnz     1b
        xorl    %edi, %edi
        jmp     2f
failed: movl    $1, %edi
2:      movl    $EXIT, %eax
        syscall
