"""Definitions: files -> guests that can be placed here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.arch import TRAITS
from orchestrator.core.model import Architecture
from orchestrator.core.policy import NO_DEFAULTS, GuestDefaults
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.core.xml.domain import Accelerator
from orchestrator.errors import InvalidFileError, InvalidFilesError
from orchestrator.wiring import shipped
from orchestrator.wiring.site import guest_directories, load_topology, owner, read_file

if TYPE_CHECKING:
    from orchestrator.config import ParsedGuest
    from orchestrator.core.model import GuestSpec
    from orchestrator.core.policy import Policy
    from orchestrator.core.topology import Topology
    from orchestrator.core.xml.domain import Domain
    from orchestrator.engine import Guest
    from orchestrator.file_ports import FileOpener


@dataclass(frozen=True, slots=True)
class AcceleratorChoice:
    """What guests of one architecture are run with here, and why."""

    accelerator: Accelerator
    why: str


def load_guests(paths: Sequence[Path], defaults: GuestDefaults = NO_DEFAULTS) -> list[ParsedGuest]:
    """Read and parse definitions of who calls; see `parse_guests`."""
    sources = [(read_file(path), str(path), str(path.resolve().parent)) for path in paths]
    return parse_guests(sources, defaults=defaults)


def parse_guests(
    sources: Iterable[tuple[bytes, str, str]], user: str | None = None, defaults: GuestDefaults = NO_DEFAULTS
) -> list[ParsedGuest]:
    """Parse definitions, each as its text, what messages call its file, and the directory at which its paths start.

    It is checked that this process can read the files they name, and that the payloads are for `user` (else who calls)
    to map; raises with the faults of all of them.
    """
    parsed, invalid = _parse(sources, user or owner(), defaults)
    return _without_faults(parsed, invalid, map(_unreadable, parsed))


async def parse_guests_for(
    sources: Iterable[tuple[bytes, str, str]], owner: str, opener: FileOpener, defaults: GuestDefaults = NO_DEFAULTS
) -> list[ParsedGuest]:
    """Parse definitions as `parse_guests` does, but see whether their owner can open the files they name.

    Nothing that they name is opened here, nor asked how large it is.
    """
    import asyncio

    from orchestrator.core.files import disk_key, guest_files

    parsed, invalid = await asyncio.to_thread(_parse, sources, owner, defaults)
    looked_at, troubles = [], []
    for guest in parsed:
        async with opener.opened(owner, guest_files(guest.spec)) as opened:
            troubles.append([(each.file.key, each.trouble) for each in opened if each.trouble])
            writable = {disk_key(index) for index, disk in enumerate(guest.spec.disks) if not disk.readonly}
            disk = sum(each.size for each in opened if each.file.key in writable)
            looked_at.append(replace(guest, disk=disk))
    return _without_faults(looked_at, invalid, troubles)


def _parse(
    sources: Iterable[tuple[bytes, str, str]], user: str, defaults: GuestDefaults
) -> tuple[list[ParsedGuest], list[InvalidFileError]]:
    from orchestrator.config import parse_guest
    from orchestrator.wiring.payloads import resolved

    parsed: list[ParsedGuest] = []
    invalid: list[InvalidFileError] = []
    for text, file, directory in sources:
        try:
            parsed.append(resolved(parse_guest(text, file, directory=directory, defaults=defaults), user))
        except InvalidFileError as error:
            invalid.append(error)
    return parsed, invalid


def _unreadable(guest: ParsedGuest) -> list[tuple[str, str]]:
    from orchestrator.core.files import guest_files
    from orchestrator.host.guest_files import unreadable, unusable

    found = [
        (file.key, unusable(file.path, writable=file.writable) if file.folder else unreadable(file.path))
        for file in guest_files(guest.spec)
    ]
    return [(key, why) for key, why in found if why]


def _without_faults(
    parsed: list[ParsedGuest], invalid: list[InvalidFileError], troubles: Iterable[Sequence[tuple[str, str]]]
) -> list[ParsedGuest]:
    """Return the definitions if nothing is wrong with any of them; `troubles` has keys and reasons for each."""
    invalid += [
        InvalidFileError(guest.file, [guest.fault(key, _missing(why)) for key, why in found])
        for guest, found in zip(parsed, troubles, strict=True)
        if found
    ]
    if invalid:
        raise InvalidFilesError(invalid)
    return parsed


def _missing(why: str) -> str:
    how = "make guests" if shipped.in_sources() else f"make -C {shipped.directory('domains')}"
    built = f"; `{how}` builds the shipped ones" if "/build/" in why else ""
    return f"{why}; the path is taken relative to the definition{built}"


def accelerator_for(architecture: Architecture, policy: Policy) -> AcceleratorChoice:
    """Choose KVM only where a guest has been seen to run in it, unless the policy says otherwise."""
    from orchestrator.host.kvm import probe_kvm
    from orchestrator.host.places import runtime_directory

    machine, wish = os.uname().machine, policy.hypervisor.accelerator
    if wish != "auto":
        return AcceleratorChoice(Accelerator(wish), "the policy says so")
    if machine not in TRAITS[architecture].kvm_hosts:
        return AcceleratorChoice(Accelerator.TCG, f"an {machine} processor does not run {architecture}")
    probe = probe_kvm(runtime_directory(os.environ) / "kvm-probe.json")
    return AcceleratorChoice(Accelerator.KVM if probe.usable else Accelerator.TCG, probe.why)


def to_run(
    parsed: Sequence[ParsedGuest],
    count: int,
    accelerators: Mapping[Architecture, AcceleratorChoice],
    user: str | None = None,
    *,
    pinned: bool = False,
) -> list[Guest]:
    """Make `count` guests of each definition, named NAME-1, NAME-2 ... where there are several.

    They belong to `user`, or to who calls; if they are `pinned`, so do the rights with which their files are opened.
    """
    from orchestrator.config import encode_guest
    from orchestrator.engine import Guest

    specs = [
        (replace(guest.spec, name=f"{guest.spec.name}-{number}") if count > 1 else guest.spec, guest.disk)
        for guest in parsed
        for number in range(1, count + 1)
    ]
    return [
        Guest(
            spec=spec,
            specification=encode_guest(spec),
            owner=user or owner(),
            emulator=emulator_path(spec.architecture),
            accelerator=accelerators[spec.architecture].accelerator,
            pinned=pinned,
            disk=grows_to(spec) if disk is None else disk,
        )
        for spec, disk in specs
    ]


def grows_to(spec: GuestSpec) -> int:
    """Return what the writable disks of a guest, layers that are thrown away included, can grow to, in bytes."""
    from orchestrator.host.images import virtual_size

    return sum(virtual_size(disk.path, disk.format) for disk in spec.disks if not disk.readonly)


def emulator_path(architecture: Architecture) -> str:
    """Return where the QEMU program for an architecture is, or where Debian would put it."""
    program = TRAITS[architecture].emulator
    return shutil.which(program) or f"/usr/bin/{program}"


def domain_to_print(path: Path, cores: str | None, policy: Policy) -> tuple[Domain, str]:
    """Return the domain of a definition, placed on `cores` or as on an idle host, and a note on what was assumed.

    A host whose pool is too small still gets its XML, as of one with enough cores: the note says so.
    """
    from orchestrator.core.cpulist import format_cpulist, parse_cpulist
    from orchestrator.core.placement import Placement, assign, place
    from orchestrator.wiring.payloads import mapped_to_print

    (parsed,) = load_guests([path], policy.defaults)
    spec, topology, note = parsed.spec, load_topology(policy), ""
    if cores is None:
        outcome = place(spec, topology.pool.cores, topology)
        if not isinstance(outcome, Placement):
            note = f"this host cannot place it now ({outcome}); the XML is as for a larger one"
            topology = _nominal_topology(spec.cores_needed, policy)
            outcome = assign(spec, list(topology.pool)[: spec.cores_needed], topology)
        placement = outcome
    else:
        wanted = parse_cpulist(cores)
        absent = wanted - {cpu.id for cpu in topology.cpus} - {SCHEDULER_CORE, SERVICE_CORE}
        if absent:
            note = f"this host has no core {format_cpulist(absent)}; the XML is as for one that has"
            topology = _nominal_topology(max(wanted), policy)
        placement = assign(spec, sorted(wanted), topology)
    (guest,) = to_run([parsed], 1, {spec.architecture: accelerator_for(spec.architecture, policy)})
    return mapped_to_print(guest.placed(placement, str(guest_directories() / spec.name))), note


def _nominal_topology(pool_cores: int, policy: Policy) -> Topology:
    """Return a plain host (one node, no SMT) with at least this many pool cores."""
    from orchestrator.core.cpulist import format_cpulist
    from orchestrator.core.discovery import discover

    reserved = policy.cores.reserved_cores() | {SCHEDULER_CORE, SERVICE_CORE}
    return discover({"cpu/online": format_cpulist(range(pool_cores + len(reserved)))}, reserved)
