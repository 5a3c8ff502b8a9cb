// A guest of some hundred bytes, at 0x40000000 and without MMU.  It asks for commands, and tells what it takes, by
// 64-bit accesses to the page at 0x09000000 (vmm_ras/lab/tiny_guest.py answers them).  x20 to x28 are its own.
        .set    CMD, 0x00               // read: number of the next command
        .set    ARG, 0x08               // read: its arguments, 6 of them
        .set    RESULT, 0x40            // written
        .set    VECTOR, 0x100           // written: number of the vector, then ESR, FAR, ELR, SPSR
        .set    SKIP, 0x128             // read: what to add to ELR
        .set    BLOCK, 0x130            // read: where the SEA's status block is, 0: do not look
        .set    ACK, 0x138              // read: where its Read Ack Register is
        .set    RECORD, 0x140           // written: physical address of each entry
        .set    SDEI_BLOCK, 0x150       // read, for the SDEI event
        .set    SDEI_ACK, 0x158
        .set    SDEI_DONE, 0x160        // written: event, behind its records
        .set    ENTRY, 72 + 80          // bytes of one entry with a memory section
        .set    ADDRESS, 20 + 72 + 16   // of the first entry's physical address, from the block's begin

        // Tell every entry of a status block, clear it, acknowledge.  Without MMU only aligned accesses are good.
        .macro  consume block, ack, status, count, at, low, high
        cbz     \block, 9f
        ldr     w\status, [\block]
        cbz     w\status, 9f
        ubfx    w\count, w\status, #4, #10
        add     \at, \block, #ADDRESS
8:      cbz     w\count, 7f
        ldr     w\low, [\at]
        ldr     w\high, [\at, #4]
        orr     x\low, x\low, x\high, lsl #32
        str     x\low, [x28, #RECORD]
        add     \at, \at, #ENTRY
        sub     w\count, w\count, #1
        b       8b
7:      str     wzr, [\block]
        dsb     sy
        ldr     x\low, [\ack]
        orr     x\low, x\low, #1
        str     x\low, [\ack]
9:
        .endm

        .text
        .globl  _start
_start: b       start
        .balign 8
        .quad   at_load, at_store, at_user, sdei_entry
start:  adr     x0, vectors
        msr     vbar_el1, x0
        isb
        mov     x28, #0x09000000
loop:   ldr     x9, [x28, #CMD]
        ldr     x1, [x28, #ARG]
        adr     x10, commands
        ldrsw   x11, [x10, x9, lsl #2]
        add     x10, x10, x11
        br      x10
        .balign 4
commands:
        .word   loop - commands, load - commands, store - commands, jump - commands, unmask - commands
        .word   mask - commands, hvc - commands, smc - commands, ids - commands, esb - commands
        .word   user - commands, walk - commands, spin - commands, poll - commands, mmu - commands
load:
at_load: ldr    x2, [x1]
        str     x2, [x28, #RESULT]
        b       loop
store:
at_store: str   x1, [x1]
        str     x1, [x28, #RESULT]
        b       loop
jump:   blr     x1
        str     x1, [x28, #RESULT]
        b       loop
unmask: msr     daifclr, #4
        isb
        b       daif
mask:   msr     daifset, #4
daif:   mrs     x2, daif
        str     x2, [x28, #RESULT]
        b       loop
        .macro  call instruction
        mov     x0, x1
        ldr     x1, [x28, #ARG + 8]
        ldr     x2, [x28, #ARG + 16]
        ldr     x3, [x28, #ARG + 24]
        ldr     x4, [x28, #ARG + 32]
        ldr     x5, [x28, #ARG + 40]
        \instruction #0
        str     x0, [x28, #RESULT]
        str     x1, [x28, #RESULT]
        b       loop
        .endm
hvc:    call    hvc
smc:    call    smc
ids:    mrs     x2, midr_el1
        str     x2, [x28, #RESULT]
        mrs     x2, id_aa64pfr0_el1
        str     x2, [x28, #RESULT]
        mrs     x2, isr_el1
        str     x2, [x28, #RESULT]
        b       loop
esb:    mrs     x2, isr_el1
        str     x2, [x28, #RESULT]
        hint    #16                     // ESB
        mrs     x2, S3_0_C12_C1_1       // DISR_EL1
        str     x2, [x28, #RESULT]
        mrs     x2, isr_el1
        str     x2, [x28, #RESULT]
        b       loop
user:   adr     x2, at_user             // the access of `load` at EL0
        msr     elr_el1, x2
        mov     x2, #0x3c0
        msr     spsr_el1, x2
        eret
at_user: ldr    x2, [x1]
        svc     #0
walk:   ldr     x3, [x28, #ARG + 8]     // pages, 4 KiB apart
1:      cbz     x3, 2f
        ldr     x2, [x1]
        add     x1, x1, #4096
        sub     x3, x3, #1
        b       1b
2:      str     x1, [x28, #RESULT]
        b       loop
spin:   ldr     x2, [x1]                // until there is something
        cbz     x2, spin
        str     x2, [x28, #RESULT]
        b       loop
poll:   ldr     x3, [x28, #ARG + 8]     // what a guest does with a polled source
        consume x1, x3, 4, 5, x6, 7, 8
        str     xzr, [x28, #RESULT]
        b       loop
mmu:    ldr     x2, [x28, #ARG + 8]     // TTBR0, TCR, MAIR, SCTLR
        ldr     x3, [x28, #ARG + 16]
        ldr     x4, [x28, #ARG + 24]
        msr     ttbr0_el1, x1
        msr     tcr_el1, x2
        msr     mair_el1, x3
        isb
        tlbi    vmalle1
        dsb     sy
        msr     sctlr_el1, x4
        isb
        str     x4, [x28, #RESULT]
        b       loop

sdei_entry:                             // x0: event; x0 to x17 may be used
        ldr     x4, [x28, #SDEI_BLOCK]
        ldr     x5, [x28, #SDEI_ACK]
        consume x4, x5, 6, 7, x8, 9, 10
        str     x0, [x28, #SDEI_DONE]
        movz    x0, #0xc400, lsl #16
        movk    x0, #0x0025             // SDEI_EVENT_COMPLETE
        mov     x1, #0
        hvc     #0
        b       .

        .balign 2048
vectors:
        .set    i, 0
        .rept   16
        .balign 128
        mov     x20, #i
        b       taken
        .set    i, i + 1
        .endr
        .balign 128
taken:  mrs     x21, esr_el1
        ubfx    x22, x21, #26, #6
        cmp     x22, #0x15              // SVC: the end of `user`
        b.eq    back
        mrs     x22, far_el1
        mrs     x23, elr_el1
        mrs     x24, spsr_el1
        str     x20, [x28, #VECTOR]
        str     x21, [x28, #VECTOR + 8]
        str     x22, [x28, #VECTOR + 16]
        str     x23, [x28, #VECTOR + 24]
        str     x24, [x28, #VECTOR + 32]
        ldr     x25, [x28, #SKIP]
        add     x23, x23, x25
        msr     elr_el1, x23
        ldr     x20, [x28, #BLOCK]
        ldr     x21, [x28, #ACK]
        consume x20, x21, 22, 23, x24, 25, 26
        eret
back:   str     x2, [x28, #RESULT]
        adr     x20, loop
        msr     elr_el1, x20
        mov     x20, #0x3c5
        msr     spsr_el1, x20
        eret
