"""How long a shared guest can have to wait: the bound, its proof, and what a waiting guest is told.

**The rules it follows from** (`rotation` keeps them). Let R = slice + hand-over: no turn that is begun or renewed
at some moment lasts beyond R later, unless it is renewed again. The *head* is the first guest in order that does
not fit. Room is made for it: it has a reservation for the first moment at which enough units will be free, which is
at most R away.

1. While the head is due, every other turn that begins or is renewed is borrowed: it ends by the reservation, and
   gives way even before that should a due head fit without it (as when somebody leaves early).
2. A due head stays the head until it runs (or is blocked or removed).
3. Due guests start, or become head, by the order in which their waits began.

**Bound.** Guest g needs u units of the pool's U, is due at D, and A units are needed by those that wait longer than
g. Then g is started no later than D + n * R, and runs one hand-over later, with

    n = 2 * floor((A + u + U) / (U + 1)) + 1,

however many guests arrive afterwards, of whatever class, as long as the pool stays as it is, ticks come when
`next_event` asks for them and the hypervisor keeps to the hand-over time.

**Proof.** Cut the time from D into windows of length R, and let g still wait at the end of window i. Then there is a
due head, g or one before it; let it need v units. All turns that stand in its way began within the window, since
none is longer than it. They are not borrowed (1), and all that begin while g is due and waits are either borrowed
or turns of due guests in order; so those of the latter kind that began in window i need, together with v, more than
U units. The head itself starts within window i + 1 (2). So in any two windows on end, due guests are started in order
(or leave) that need at least U + 1 units. By (3) each of them waited longer than g, or is g, or is the one guest, of
at most U units, that was the head when g became due; and none counts twice, for who waits anew waits behind g. Let
g wait through n = 2p + 1 windows. The first 2p have started p * (U + 1) units, the last with its head has U + 1 more,
so (p + 1) * (U + 1) <= A + u + U. The n above is the first for which this is false.

A hand-over that takes longer, since a guest is slow to stop, puts off who waits for its cores by as much, and costs
nobody his place; a guest that is quarantined for it takes its cores out of the pool, and all is promised anew.

A does not count later arrivals, and D is fixed when the wait begins: at `patience` plus `FAIR_PERIODS` times the
time in which a fair rotation would have come round to g, its class and those above taken together. So weights rule
as long as the order by virtual time serves everybody about as often as weights say, and age rules beyond.
"""

from __future__ import annotations


def rounds(ahead: int, need: int, size: int) -> int:
    """Return n of the bound: how many rounds of R a due guest can have to wait.

    `ahead` is A, the units needed by those who wait longer; `need` is u, `size` is U, all in units.
    """
    return 2 * ((ahead + need + size) // (size + 1)) + 1
