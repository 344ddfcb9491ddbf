"""Who is due how much of the shared pool: weighted max-min fairness with caps, integrated over time. Pure.

The pool is divided as if it were a fluid. Priority classes are served strictly in order, from the highest. Within a
class owners share by their weights, and each owner's guests share what it gets by theirs. Nobody gets more than it
can use, a guest its own need and an owner the sum of its guests'; what one cannot use goes to the others
(progressive filling: D. Bertsekas and R. Gallager, Data Networks, 2nd ed. 1992, section 6.5.2, with weights). A
guest that needs more than the whole pool cannot run, and is due nothing while that is so.

Amounts are in units of the pool (a core, or a physical core with its siblings), times nanoseconds where they are
integrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

_by_first = itemgetter(0)


def divide(amount: float, claims: Sequence[tuple[float, float]]) -> list[float]:
    """Divide an amount between claims of a weight (above 0) and a cap each: max-min fair, weight by weight.

    Growth: n log n in the claims.
    """
    amount = max(amount, 0.0)
    if len(claims) == 1:
        return [min(amount, claims[0][1])]
    shares = [0.0] * len(claims)
    order = sorted((cap / weight, place) for place, (weight, cap) in enumerate(claims))
    load = sum(weight for weight, _ in claims)
    for done, (level, place) in enumerate(order):
        if amount <= level * load:
            for _, rest in order[done:]:
                shares[rest] = amount * claims[rest][0] / load
            break
        weight, cap = claims[place]
        shares[place] = cap
        amount -= cap
        load -= weight
    return shares


@dataclass(slots=True, eq=False)
class _Kind:
    """Guests that are due the same; `rate` is what each is due now, `total` what each would have been due since 0."""

    weight: int
    need: int
    count: int = 0
    rate: float = 0.0
    total: float = 0.0


_Account = dict[tuple[int, int], _Kind]
"""One owner's guests in one priority class, by weight and need."""


class Entitlements:
    """What each guest is due from its entering to its leaving, while population, weights and pool change.

    Moments never go back. Growth: entering and leaving are constant. When time has passed since a change, the rates
    are computed anew, once for all changes of one moment: n log n in the kinds of guests, which are told apart by
    priority, owner, weight and need.
    """

    def __init__(self, units: int = 0) -> None:
        self._units = units
        self._tiers: dict[int, dict[str, _Account]] = {}
        self._weights: dict[str, int] = {}
        self._present: dict[str, tuple[_Kind, float, int, str]] = {}
        self._due: dict[str, float] = {}
        self._now = 0
        self._stale = False

    def enter(self, guest: str, owner: str, weight: int, priority: int, need: int, now: int) -> None:
        """Let a guest share from now on; it must not do so already. It may come again after it left."""
        self._pass(now)
        account = self._tiers.setdefault(priority, {}).setdefault(owner, {})
        kind = account.setdefault((weight, need), _Kind(weight, need))
        kind.count += 1
        self._present[guest] = (kind, kind.total, priority, owner)
        self._stale = True

    def leave(self, guest: str, now: int) -> None:
        """Let a guest share no more."""
        self._pass(now)
        kind, before, priority, owner = self._present.pop(guest)
        self._due[guest] = self._due.get(guest, 0.0) + kind.total - before
        kind.count -= 1
        if not kind.count:
            self._forget(kind, priority, owner)
        self._stale = True

    def resize(self, units: int, now: int) -> None:
        """Let the pool have so many units from now on."""
        self._pass(now)
        self._units = units
        self._stale = True

    def weigh_owner(self, owner: str, weight: int, now: int) -> None:
        """Set an owner's weight from now on; 100 until then."""
        self._pass(now)
        self._weights[owner] = weight
        self._stale = True

    def due(self, now: int) -> dict[str, float]:
        """Return what each guest that ever entered is due up to now, in unit-nanoseconds. Growth: the guests."""
        self._pass(now)
        due = dict(self._due)
        for guest, (kind, before, _, _) in self._present.items():
            due[guest] = due.get(guest, 0.0) + kind.total - before
        return due

    def rates(self) -> dict[str, float]:
        """Return what each guest that is present is due now, in units. Growth: the guests."""
        self._refresh()
        return {guest: kind.rate for guest, (kind, *_) in self._present.items()}

    def _pass(self, now: int) -> None:
        elapsed = now - self._now
        if elapsed <= 0:
            return
        self._refresh()
        for accounts in self._tiers.values():
            for account in accounts.values():
                for kind in account.values():
                    kind.total += kind.rate * elapsed
        self._now = now

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        left = float(self._units)
        for _, accounts in sorted(self._tiers.items(), key=_by_first, reverse=True):
            left -= self._serve(accounts, left)

    def _serve(self, accounts: dict[str, _Account], amount: float) -> float:
        """Divide an amount within a class, and return how much of it is used."""
        claims = []
        for owner, account in accounts.items():
            cap = sum(self._cap(kind) for kind in account.values())
            claims.append((float(self._weights.get(owner, 100)), float(cap)))
        shares = divide(amount, claims)
        for account, share in zip(accounts.values(), shares, strict=True):
            kinds = account.values()
            parts = divide(share, [(kind.weight * kind.count, self._cap(kind)) for kind in kinds])
            for kind, part in zip(kinds, parts, strict=True):
                kind.rate = part / kind.count
        return sum(shares)

    def _cap(self, kind: _Kind) -> int:
        return kind.need * kind.count if kind.need <= self._units else 0

    def _forget(self, kind: _Kind, priority: int, owner: str) -> None:
        accounts = self._tiers[priority]
        account = accounts[owner]
        del account[kind.weight, kind.need]
        if not account:
            del accounts[owner]
        if not accounts:
            del self._tiers[priority]
