/*
 * window FILE: as window-x86_64.S.
 */

        .set    OPENAT, 56
        .set    WRITE, 64
        .set    FSTAT, 80
        .set    EXIT, 93
        .set    MMAP, 222
        .set    AT_FDCWD, -100
        .set    SIZE_IN_STAT, 48
        .set    STAT_BYTES, 128

        .text
        .globl  _start
_start: mov     x0, #AT_FDCWD
        ldr     x1, [sp, #16]                   /* the first argument */
        mov     x2, #0                          /* O_RDONLY */
        mov     x8, #OPENAT
        svc     #0
        tbnz    x0, #63, failed
        mov     x19, x0
        sub     sp, sp, #STAT_BYTES
        mov     x1, sp
        mov     x8, #FSTAT
        svc     #0
        tbnz    x0, #63, failed
        ldr     x20, [sp, #SIZE_IN_STAT]        /* what is left to be written */
        mov     x0, #0
        mov     x1, x20
        mov     x2, #1                          /* PROT_READ */
        mov     x3, #1                          /* MAP_SHARED */
        mov     x4, x19
        mov     x5, #0
        mov     x8, #MMAP
        svc     #0
        tbnz    x0, #63, failed
        mov     x21, x0                         /* from where */
1:      mov     x0, #1
        mov     x1, x21
        mov     x2, x20
        mov     x8, #WRITE
        svc     #0
        cmp     x0, #0
        b.le    failed
        add     x21, x21, x0
        subs    x20, x20, x0
        b.ne    1b
        mov     x0, #0
        b       2f
failed: mov     x0, #1
2:      mov     x8, #EXIT
        svc     #0
