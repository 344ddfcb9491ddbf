"""Guests' states: saved and restored, as snapshots, as templates for clones. Above the engine, whose guests they are.

A state is written while its guest stands still, and offered as a whole or not at all. A guest that goes on from a state
is started as any other: admitted, placed, proved thread by thread, and then given its turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.agenda import WarmPool
from orchestrator.core.cloning import cautions, is_windowed, overlay_targets, unclonable, unrepeatable, unsavable
from orchestrator.core.context import Context, Kind, encode
from orchestrator.core.lifecycle import HAS_TURNS, State
from orchestrator.core.model import Mode
from orchestrator.core.xml.domain import Accelerator, RamFile
from orchestrator.engine import Engine, Guest, RunningGuest
from orchestrator.errors import OrchestratorError, RefusedError
from orchestrator.launch import Launcher
from orchestrator.recorder import Records
from orchestrator.shelf import RAM, STATE, Shelf
from orchestrator.state_ports import Draft
from orchestrator.together import all_or_first_failure

_WHOLE = "whole"
"""The file with the whole state of which a template is made."""

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Cloned:
    """Guests that are clones, by name, and what their owner has to know of them, a line each."""

    names: tuple[str, ...]
    notes: tuple[str, ...]


class Contexts:
    """Saves, restores and clones the guests of one engine. `wall` is nanoseconds since 1970; owner None means any."""

    def __init__(
        self, engine: Engine, launcher: Launcher, shelf: Shelf, records: Records, wall: Callable[[], int]
    ) -> None:
        self.shelf = shelf
        self._engine = engine
        self._launcher = launcher
        self._files = shelf.files
        self._records = records
        self._wall = wall
        self._busy: set[str] = set()

    # Of a guest.

    async def save(self, name: str, to: str) -> Context:
        """Write a guest's state and end it; on failure it goes on as if nothing had been."""
        async with self._still(name) as guest:
            _require(name, "it cannot be saved", unsavable(guest.domain.spec))
            await self._records.intend("save", {"guest": name, "as": to})
            context = await self._write(guest, Kind.SAVED, to)
            await self._engine.kill(name, f"saved as {to}")
        return context

    async def snapshot(self, name: str, to: str) -> Context:
        """Write a guest's state, memory and disks together; the guest goes on."""
        async with self._still(name) as guest:
            reasons = unsavable(guest.domain.spec) + unrepeatable(guest.domain.spec)
            _require(name, "no snapshot can be made of it", reasons)
            await self._records.intend("snapshot", {"guest": name, "as": to})
            return await self._write(guest, Kind.SNAPSHOT, snapshot_name(name, to))

    async def template(self, name: str, to: str) -> Context:
        """Make a template of a guest as it is now; the guest goes on."""
        async with self._still(name) as guest:
            reasons = unclonable(guest.domain, foreign=self._launcher.foreign)
            _require(name, "no template can be made of it", reasons)
            await self._records.intend("template", {"guest": name, "as": to})
            draft = await self._files.begin(guest.domain.owner, Kind.TEMPLATE, to)
            async with self._abandoned_on_failure(draft):
                await guest.monitor.save(f"{draft.directory}/{_WHOLE}", skip_shared=False)
                context = await self._describe(guest, Kind.TEMPLATE, to, draft)
        async with self._abandoned_on_failure(draft):
            await self._cast(context, draft)
            await self._files.publish(draft, encode(context))
        return context

    # From a state.

    async def restore(self, name: str, owner: str | None = None) -> str:
        """Start a guest with a state that was saved, and return its name; the state is kept."""
        held = await self.shelf.find(Kind.SAVED, name, owner)
        guest = await self.shelf.guest(held)
        await self._records.intend("restore", {"state": name, "guest": held.context.guest})
        await self._engine.start([guest])
        return held.context.guest

    async def revert(self, guest: str, to: str, owner: str | None = None) -> None:
        """Have a guest go on from a snapshot of it, whether it is there or has ended; what it is now is lost."""
        held = await self.shelf.find(Kind.SNAPSHOT, snapshot_name(guest, to), owner)
        again = await self.shelf.guest(held)
        await self._records.intend("revert", {"guest": guest, "snapshot": to})
        if guest in self._engine.guests and self._engine.state(guest) is not State.STOPPED:
            if self._engine.guests[guest].domain.owner != held.context.owner:
                raise RefusedError(f"{guest}: another user has a guest of this name now, so it cannot be reverted")
            await self._engine.kill(guest, f"reverted to the snapshot {to}")
        await self._engine.start([again])

    async def clone(
        self, template: str, count: int, names: Sequence[str] = (), owner: str | None = None, *, staged: bool = False
    ) -> Cloned:
        """Start clones, all or none, called as told or TEMPLATE-1, TEMPLATE-2 ..., whose RAM is that of the template.

        Those that are `staged` stand still until they are resumed. Where no names are told, those that are staged
        already are taken first: they only have to be resumed.
        """
        held = await self.shelf.find(Kind.TEMPLATE, template, owner)
        first = await self.shelf.guest(held)
        ready = () if names or staged else tuple(self._staged(held.context)[:count])
        await all_or_first_failure([self._engine.resume(name) for name in ready])
        if len(ready) == count:
            return Cloned(ready, tuple(cautions(first.spec)))
        names = tuple(names) or self._free_names(template, count - len(ready))
        guests = [replace(self._redefined(first, name=name), staged=staged) for name in names]
        await self._records.intend("clone", {"template": template, "guests": list(names)})
        await self._engine.start(guests)
        return Cloned((*ready, *names), tuple(cautions(first.spec)))

    async def keep_warm(self, pools: Sequence[WarmPool]) -> list[str]:
        """Stage clones until each pool has its number; return why one cannot be had, a line each.

        What is beyond that number is left as it is, and is taken by the clones that are asked for next.
        """
        troubles = []
        for pool in pools:
            try:
                context = (await self.shelf.find(Kind.TEMPLATE, pool.template, pool.owner)).context
                missing = pool.count - len(self._staged(context))
                if missing > 0:
                    await self.clone(pool.template, missing, owner=context.owner, staged=True)
            except OrchestratorError as error:
                troubles.append(f"warm pool of {pool.template}: {error}")
        return troubles

    # What is kept.

    async def remove(self, kind: Kind, name: str, owner: str | None = None) -> None:
        """Forget a state. Clones that run go on: their RAM stays until they end."""
        held = await self.shelf.find(kind, name, owner)
        await self._records.intend("forget", {"kind": kind, "name": name, "owner": held.context.owner})
        await self._files.remove(held.directory)

    async def gc(self) -> Sequence[str]:
        """Remove what was left unfinished, and return it."""
        return await self._files.sweep()

    async def finish(self) -> list[str]:
        """After guests were taken over: end those that had been saved, remove what was not; return a line for each."""
        notes = [f"{stray}: was left unfinished, and is removed" for stray in await self.gc()]
        saved = {each.context.process: each.context.name for each in await self.shelf.held(Kind.SAVED)}
        for name, guest in list(self._engine.guests.items()):
            to = None if guest.pid is None else saved.get(self._launcher.processes.identity(guest.pid))
            if to is not None:
                await self._engine.kill(name, f"saved as {to}")
                notes.append(f"{name}: had been saved as {to} when the last scheduler ended; its process is ended")
        return notes

    # How it is done.

    @contextlib.asynccontextmanager
    async def _still(self, name: str) -> AsyncIterator[RunningGuest]:
        """Have a guest stand still; it goes on afterwards, unless it has ended, or its user has paused it before."""
        guest, state = self._engine.guests.get(name), self._engine.state(name)
        if guest is None or state not in HAS_TURNS | {State.PAUSED}:
            what = "is not there" if guest is None else f"is {state}"
            raise RefusedError(f"{name}: {what}; a guest can be saved while it runs, waits or is paused")
        vcpus, defined = len(guest.domain.placement.vcpus), guest.domain.spec.vcpus
        if vcpus != defined:
            raise RefusedError(
                f"{name}: has {vcpus} vCPUs, and could be restored with the {defined} of its definition only; "
                f"`orchestrator resize {name} --vcpus {defined}` first"
            )
        if name in self._busy:
            raise RefusedError(f"{name}: its state is being written already; try again when that is done")
        self._busy.add(name)
        try:
            if state is not State.PAUSED:
                await self._engine.pause(name)
            try:
                yield guest
            finally:
                if state is not State.PAUSED and self._engine.state(name) is State.PAUSED:
                    await self._engine.resume(name)
        finally:
            self._busy.discard(name)

    @contextlib.asynccontextmanager
    async def _abandoned_on_failure(self, draft: Draft) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await self._files.abandon(draft)
            raise

    async def _write(self, guest: RunningGuest, kind: Kind, to: str) -> Context:
        draft = await self._files.begin(guest.domain.owner, kind, to)
        async with self._abandoned_on_failure(draft):
            shared = is_windowed(guest.domain.spec)
            await guest.monitor.save(f"{draft.directory}/{STATE}", skip_shared=shared)
            if shared:
                await self._files.forget_window(f"{draft.directory}/{STATE}")
            context = await self._describe(guest, kind, to, draft)
            await self._files.publish(draft, encode(context))
        return context

    async def _describe(self, guest: RunningGuest, kind: Kind, to: str, draft: Draft) -> Context:
        """Copy a guest's overlays beside its state, and return the manifest.

        RefusedError if the guest has gone on meanwhile: then the state is not of one moment.
        """
        domain, spec = guest.domain, guest.domain.spec
        overlays = overlay_targets(spec)
        for target in overlays:
            await self._files.copy(domain.overlay(target), f"{draft.directory}/{target}")
        machine = await guest.monitor.machine()
        facts = await self.shelf.emulators.facts(spec.architecture)
        marks = await self._files.marks(self.shelf.codec.files(spec))
        if self._engine.state(guest.name) is not State.PAUSED:
            raise RefusedError(f"{guest.name}: went on while its state was written, so that came to nothing")
        return Context(
            name=to,
            kind=kind,
            guest=guest.name,
            owner=domain.owner,
            specification=domain.specification,
            architecture=spec.architecture,
            accelerator=domain.accelerator,
            machine=machine.machine,
            qemu=machine.qemu,
            processor=facts.processor if domain.accelerator is Accelerator.KVM else "",
            windowed=is_windowed(spec),
            disk=guest.disk,
            overlays=overlays,
            marks=tuple(mark for mark in marks.values() if mark is not None),
            process="" if guest.pid is None else self._launcher.processes.identity(guest.pid),
            taken_at=self._wall(),
        )

    async def _cast(self, context: Context, draft: Draft) -> None:
        """Bring a whole state's RAM into a file: load it into a guest whose RAM that file is, and save the rest of it.

        That guest never runs; it is started as others are, so that its threads are on pool cores, too.
        """
        directory = draft.directory
        ram = RamFile(f"{directory}/{RAM}", shared=True)
        guest = await self.shelf.guest_with(context, directory, _WHOLE, ram)
        name = f"mould-{context.name}"[:_LONGEST_NAME]
        await self._engine.start([replace(self._redefined(guest, name=name, mode=Mode.SHARED), staged=True)])
        try:
            await self._engine.guests[name].monitor.save(f"{directory}/{STATE}", skip_shared=True)
        finally:
            await self._engine.kill(name, "the template is made")
            self._engine.guests.pop(name, None)
        await self._files.drop(f"{directory}/{_WHOLE}")

    def _staged(self, template: Context) -> list[str]:
        """Return the clones of a template that stand still and have never run, by name."""
        return [
            name
            for name, guest in sorted(self._engine.guests.items())
            if guest.domain.staged
            and guest.domain.owner == template.owner
            and name.rpartition("-")[0] == template.name
            and self._engine.state(name) is State.PAUSED
        ]

    def _redefined(self, guest: Guest, name: str, mode: Mode | None = None) -> Guest:
        spec = replace(guest.spec, name=name, mode=mode or guest.spec.mode)
        return replace(guest, spec=spec, specification=self.shelf.codec.encode(spec))

    def _free_names(self, template: str, count: int) -> tuple[str, ...]:
        """Return names of clones that nobody has. Growth: linear in the guests."""
        taken = {name for name in self._engine.guests if self._engine.state(name) is not State.STOPPED}
        names: list[str] = []
        number = 0
        while len(names) < count:
            number += 1
            name = f"{template}-{number}"
            if name not in taken:
                names.append(name)
        return tuple(names)


def snapshot_name(guest: str, name: str) -> str:
    """Return under which name a guest's snapshot is kept; no guest's name has an ``@``."""
    return f"{guest}@{name}"


def _require(name: str, what: str, reasons: Sequence[str]) -> None:
    if reasons:
        raise RefusedError(f"{name}: {what}: {'; '.join(reasons)}")
