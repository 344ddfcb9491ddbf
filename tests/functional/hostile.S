# Guests that mean harm, as boot sectors: one of SPIN, TRIPLE, FLOOD, TOUCH, TIMER, FILL or EVENTS is defined when this
# is assembled. None of them ever stops by itself, and none listens to anybody.
        .code16
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp

#ifdef SPIN                     // an endless loop that no interrupt ends
1:      jmp     1b
#endif

#ifdef TRIPLE                   // no table of interrupts, then one: the processor gives up, and the machine boots again
        lidt    nothing
        int3
nothing: .word  0
        .long   0
#endif

#ifdef FLOOD                    // as much on the serial port as goes out, not asking whether it can take it
        movw    $0x3f8, %dx
        movb    $'x', %al
1:      outb    %al, %dx
        jmp     1b
#endif

#ifdef TOUCH                    // every byte of its memory is written, again and again
        lgdt    table
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmp    $8, $flat
        .code32
flat:   movw    $16, %ax
        movw    %ax, %es
        cld
1:      movl    $0x100000, %edi
        movl    $(0x1f00000 / 4), %ecx
        incl    %eax
        rep     stosl
        jmp     1b
        .code16
entries: .quad  0, 0x00cf9b000000ffff, 0x00cf93000000ffff
table:  .word   23
        .long   entries
#endif

#ifdef TIMER                    // interrupts of the timer as often as it can be set to have them
        movw    $tick, 8 * 4
        movw    $0, 8 * 4 + 2
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $2, %al
        outb    %al, $0x40
        xorb    %al, %al
        outb    %al, $0x40
        sti
1:      hlt
        jmp     1b
tick:   pushw   %ax
        movb    $0x20, %al
        outb    %al, $0x20
        popw    %ax
        iret
#endif

#ifdef FILL                     // its disk is written to the end, and on, then from the beginning
        sti
1:      movb    $0x43, %ah
        xorb    %al, %al
        movb    $0x80, %dl
        movw    $packet, %si
        int     $0x13
        jc      2f
        addl    $64, where
        jmp     1b
2:      movl    $64, where
        jmp     1b
packet: .byte   16, 0
        .word   64
        .word   0x8000, 0
where:  .long   64, 0
#endif

#ifdef EVENTS                   // has QEMU tell over QMP that a crash kernel was loaded, as often as it can (pvpanic)
        movw    $0x505, %dx
        movb    $2, %al
1:      outb    %al, %dx
        jmp     1b
#endif

        .org    510
        .word   0xaa55
