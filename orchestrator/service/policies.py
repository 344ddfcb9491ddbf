"""Policies as runs of `orchestrator policy` bring them: put in force, and their guests kept running."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.core.desired import Change, Desired, Setting, changes, settings
from orchestrator.core.policy import Policy
from orchestrator.engine import Engine, Guest
from orchestrator.errors import InvalidFileError, InvalidFilesError, UsageError
from orchestrator.policy_file import SCHEMA
from orchestrator.reconcile import Made, make
from orchestrator.service.callers import Peer
from orchestrator.service.desk import Desk
from orchestrator.service.messages import MOST_GUESTS, DesiredGuests, ForbiddenError, PolicyRequest, StartRequest
from orchestrator.service.views import ChangeView, PolicyView, SettingView
from orchestrator.service.wanted import Definitions
from orchestrator.toml_tables import Document, plain, read


class Keeper(Protocol):
    """Who keeps the policy that is in force."""

    @property
    def policy(self) -> Policy:
        """The policy that is in force."""

    def take(self, policy: Policy) -> tuple[str, ...]:
        """Put another one in force; return a line for each value that stays as it was."""


@dataclass(frozen=True, slots=True)
class DeskHands:
    """Starts and ends guests as the desk does."""

    desk: Desk
    engine: Engine

    async def start(self, guest: Guest) -> None:
        """Start a guest, and return when it runs or takes turns."""
        await self.desk.begin(guest)

    async def stop(self, name: str) -> None:
        """End a guest; fine if it has ended."""
        await self.engine.stop([name])


class PolicyDesk:
    """Takes policies from those who may do everything; one at a time, in the order in which they come."""

    def __init__(self, desk: Desk, engine: Engine, definitions: Definitions, keeper: Keeper) -> None:
        self._desk = desk
        self._definitions = definitions
        self._keeper = keeper
        self._hands = DeskHands(desk, engine)
        self._lock = asyncio.Lock()

    async def apply(self, peer: Peer, request: PolicyRequest) -> PolicyView:
        """Make everything as the policy says, or only say what that would change."""
        if not peer.is_trusted:  # a policy may start guests for root
            raise ForbiddenError(f"{request.file}: a policy is put in force by root or the daemon's own user only")
        if sum(guests.count for guests in request.guests) > MOST_GUESTS or any(g.count < 1 for g in request.guests):
            raise UsageError(f"{request.file}: names more than {MOST_GUESTS} guests, or fewer than one of a definition")
        policy = read(Policy, Document(request.file, request.policy), SCHEMA)
        guests = await read_desired(self._definitions, request.guests)
        if request.dry_run:
            changed = [Made(each) for each in self._changes(guests)]
            return view_policy(request, len(guests), changed, self._settings(policy))
        act = self._apply(request, policy, guests)
        return await self._desk.carry_out(act, "the policy run", request.file)

    async def _apply(self, request: PolicyRequest, policy: Policy, guests: Sequence[Guest]) -> PolicyView:
        async with self._lock:
            found, kept = self._settings(policy), tuple[str, ...]()
            if policy != self._keeper.policy:
                kept = self._keeper.take(policy)
            if len(found) > len(kept):
                how = f"in force, but for {len(kept)} that stay" if kept else "in force"
                self._desk.events.add("policy", why=f"{request.file}: {how}")
            made = await make(self._changes(guests), {guest.spec.name: guest for guest in guests}, self._hands)
        return view_policy(request, len(guests), made, found, kept)

    def _settings(self, policy: Policy) -> tuple[Setting, ...]:
        """Return the values that become others; what it says of guests shows in the guests."""
        before, after = (
            {key: value for key, value in plain(each, SCHEMA).items() if key != "guest"}
            for each in (self._keeper.policy, policy)
        )
        return settings(before, after)

    def _changes(self, guests: Sequence[Guest]) -> tuple[Change, ...]:
        return changes([Desired(spec=guest.spec, owner=guest.owner) for guest in guests], self._desk.present())


async def read_desired(definitions: Definitions, wanted: Sequence[DesiredGuests]) -> list[Guest]:
    """Return the guests of these definitions, as a policy run starts them; raises UsageError with the faults of all."""
    guests: dict[str, Guest] = {}
    invalid: list[InvalidFileError] = []
    for each in wanted:
        try:
            found = await definitions.read(StartRequest((each.definition,), each.count), each.owner)
        except InvalidFilesError as error:
            invalid += error.errors
        else:
            guests |= {guest.spec.name: replace(guest, by_policy=True) for guest in found.guests}
    if invalid:
        raise InvalidFilesError(invalid)
    return list(guests.values())


def view_policy(
    request: PolicyRequest,
    guests: int,
    made: Sequence[Made],
    found: Sequence[Setting] = (),
    kept: tuple[str, ...] = (),
    *,
    scheduler: bool = True,
) -> PolicyView:
    """Show what a policy that wants so many guests changes, or has changed."""
    return PolicyView(
        file=request.file,
        dry_run=request.dry_run,
        scheduler=scheduler,
        guests=guests,
        settings=tuple(SettingView(each.key, each.before, each.after) for each in found),
        changes=tuple(
            ChangeView(
                what=each.change.what,
                guest=each.change.guest,
                owner=each.change.owner,
                why=each.change.why,
                error=each.error,
                exit_code=each.exit_code,
            )
            for each in made
        ),
        kept=kept,
    )
