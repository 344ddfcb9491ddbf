"""The states that are kept: found by name, judged whether they fit this host, made into guests to be started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.core.context import Context, Host, Kind, decode, misfits
from orchestrator.core.model import GuestSpec
from orchestrator.core.xml.domain import RamFile
from orchestrator.errors import RefusedError, UsageError
from orchestrator.launch import Guest, Origin
from orchestrator.state_ports import Emulators, StateFiles

STATE, RAM = "state", "ram"
"""The files of a state, beside its disks' overlays: QEMU's stream, and the RAM of a template."""

_WORDS = {
    Kind.SAVED: ("saved guest", "`orchestrator saved ls`"),
    Kind.SNAPSHOT: ("snapshot", "`orchestrator snapshot ls GUEST`"),
    Kind.TEMPLATE: ("template", "`orchestrator template ls`"),
}


@dataclass(frozen=True, slots=True)
class Codec:
    """How definitions are read and written as canonical JSON, which files one names, and with whose rights.

    `pinned`: whether an owner's files are opened with his rights, which are not those of this process.
    """

    decode: Callable[[str], GuestSpec]
    encode: Callable[[GuestSpec], str]
    files: Callable[[GuestSpec], Sequence[str]]
    pinned: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Held:
    """A state that is kept: its manifest, and the directory of its files."""

    context: Context
    directory: str


class Shelf:
    """Reads what is kept. `owner` is None for anybody's."""

    def __init__(self, files: StateFiles, emulators: Emulators, codec: Codec) -> None:
        self.files = files
        self.emulators = emulators
        self.codec = codec

    async def held(self, kind: Kind, owner: str | None = None) -> list[Held]:
        """Return what is kept, by owner and name."""
        records = await self.files.records(kind, owner)
        return [Held(decode(record.manifest, record.directory), record.directory) for record in records]

    async def find(self, kind: Kind, name: str, owner: str | None = None) -> Held:
        """Return what is kept under a name; UsageError if there is nothing, or several owners have one."""
        found = [each for each in await self.held(kind, owner) if each.context.name == name]
        if not found:
            what, where = _WORDS[kind]
            raise UsageError(f"{name[:130]}: there is no such {what}; {where} lists those that are")
        if len(found) > 1:
            owners = ", ".join(each.context.owner for each in found)
            raise UsageError(f"{name}: {owners} each have one of this name, so it has to be done by its owner")
        return found[0]

    async def misfits(self, held: Held) -> tuple[str, ...]:
        """Return why a state cannot be loaded here; nothing if it can."""
        context = held.context
        facts = await self.emulators.facts(self.codec.decode(context.specification).architecture)
        host = Host(
            qemu=facts.version,
            machines=facts.machines,
            accelerator=facts.accelerator,
            processor=facts.processor,
            files=await self.files.marks([mark.path for mark in context.marks]),
        )
        return misfits(context, host)

    async def guest(self, held: Held) -> Guest:
        """Return the guest that goes on from a state. RefusedError with every reason if it does not fit here."""
        reasons = await self.misfits(held)
        if reasons:
            raise RefusedError(f"{held.context.name}: cannot be loaded here: {'; '.join(reasons)}")
        ram = RamFile(f"{held.directory}/{RAM}") if held.context.kind is Kind.TEMPLATE else None
        return await self.guest_with(held.context, held.directory, STATE, ram)

    async def guest_with(self, context: Context, directory: str, state: str, ram: RamFile | None) -> Guest:
        """Return the guest that goes on from this file of a state, with this RAM."""
        spec = self.codec.decode(context.specification)
        facts = await self.emulators.facts(spec.architecture)
        overlays = {target: f"{directory}/{target}" for target in context.overlays}
        origin = Origin(
            state=f"{directory}/{state}",
            machine=context.machine,
            ram=ram,
            windowed=context.windowed,
            overlays=overlays,
        )
        return Guest(
            spec=spec,
            specification=context.specification,
            owner=context.owner,
            emulator=facts.program,
            accelerator=context.accelerator,
            disk=context.disk,
            pinned=self.codec.pinned(context.owner),
            origin=origin,
        )
