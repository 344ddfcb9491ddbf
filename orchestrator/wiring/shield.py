"""`orchestrator host shield`, put together: the kernel, the record, and who must not run meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.boot_arguments import Argument, absent, arguments
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.shield import Change, Division, Kind, divide
from orchestrator.core.shield_record import Phase, ShieldRecord
from orchestrator.errors import HostError, RefusedError
from orchestrator.wiring.guests import EMBED
from orchestrator.wiring.site import embedded_root, load_topology

if TYPE_CHECKING:
    from orchestrator.core.policy import Policy
    from orchestrator.host.shield_book import ShieldFile
    from orchestrator.shield_keeper import ShieldKeeper


@dataclass(frozen=True, slots=True)
class Status:
    """The shield as it is. `record` is None where there is none; `missing` is what does not hold (any more)."""

    record: ShieldRecord | None
    missing: tuple[Change, ...]

    def describe(self) -> dict[str, object]:
        """Return it as JSON's types."""
        if self.record is None:
            return {"phase": "none"}
        return {
            "phase": self.record.phase.value,
            "inside": sorted(self.record.division.inside),
            "rest": sorted(self.record.division.rest),
            "changed": {kind.value: count for kind, count in counted(self.record).items()},
            "refused": [{"target": target, "why": why} for target, why in sorted(self.record.refused.items())],
            "missing": [{"kind": each.kind.value, "target": each.target, "is": each.before} for each in self.missing],
        }


def counted(record: ShieldRecord) -> dict[Kind, int]:
    """Return how many settings of each kind were changed."""
    done = [change.kind for change in record.changes if change.target not in record.refused]
    return {kind: done.count(kind) for kind in Kind if kind in done}


def shield(policy: Policy) -> ShieldRecord:
    """Raise the shield; fine if it is there. RefusedError while guests or a scheduler run, HostError if not root."""
    from orchestrator.host.kernel import KernelTrees
    from orchestrator.shielding import shield as raise_it

    topology = load_topology(policy)
    division = divide(topology)
    if policy.hypervisor.connect != EMBED:
        raise RefusedError(
            f"guests of {policy.hypervisor.connect} are put into cgroups by libvirt, which the shield would confine to "
            f"cores {format_cpulist(division.rest)}; it is for connect = 'embed' in [hypervisor] of the policy"
        )
    with _alone() as book:
        return raise_it(KernelTrees(), book, division, isolated=_isolated(topology.isolated, division))


def unshield() -> ShieldRecord | None:
    """Undo what `shield` has changed; None if there is nothing. As for `shield`, nothing of ours may run."""
    from orchestrator.host.kernel import KernelTrees
    from orchestrator.shielding import unshield as take_down

    if _book().load() is None:
        return None
    with _alone() as book:
        return take_down(KernelTrees(), book)


def status(policy: Policy) -> Status:
    """Look at the shield without changing anything."""
    from orchestrator.host.kernel import KernelTrees
    from orchestrator.shielding import missing, recorded

    kernel = KernelTrees()
    record = recorded(kernel, _book())
    if record is None:
        return Status(None, ())
    isolated = _isolated(load_topology(policy).isolated, record.division)
    return Status(record, tuple(missing(kernel, record, isolated=isolated)))


def keeper(tell: Callable[[str, Mapping[str, Any]], None]) -> ShieldKeeper | None:
    """Return what keeps the shield as it is; None where there is none, or none that is whole."""
    from orchestrator.host.kernel import KernelTrees
    from orchestrator.shield_keeper import ShieldKeeper
    from orchestrator.shielding import recorded

    if os.geteuid() != 0:
        return None
    kernel = KernelTrees()
    record = recorded(kernel, _book())
    return None if record is None or record.phase is not Phase.SHIELDED else ShieldKeeper(kernel, record, tell)


def kernel_arguments(policy: Policy, cmdline: Path = Path("/proc/cmdline")) -> tuple[tuple[Argument, bool], ...]:
    """Return what this host is to be booted with, each with whether it was."""
    topology = load_topology(policy)
    wanted = arguments(topology.pool.cores, divide(topology))
    lacking = absent(cmdline.read_text(), wanted)
    return tuple((argument, argument not in lacking) for argument in wanted)


def _isolated(isolated: tuple[int, ...], division: Division) -> bool:
    return not division.inside.isdisjoint(isolated)


def _book() -> ShieldFile:
    from orchestrator.host.places import state_directory
    from orchestrator.host.shield_book import ShieldFile

    return ShieldFile(state_directory(os.environ) / "shield.json")


@contextlib.contextmanager
def _alone() -> Iterator[ShieldFile]:
    """Keep schedulers and guards from starting meanwhile; moving between cpusets lets threads go for a moment."""
    from orchestrator.host import embed
    from orchestrator.host.places import runtime_directory
    from orchestrator.host.processes import ProcFs
    from orchestrator.host.writer_lock import WriterLock

    if os.geteuid() != 0:
        raise HostError("only root can shield a host, or take its shield down: sudo orchestrator host ...")
    runtime = runtime_directory(os.environ)
    with contextlib.ExitStack() as held:
        for what, remedy in (
            ("scheduler", "end it and its guests first"),
            ("guard", "end it first, and start it after"),
        ):
            lock = WriterLock(runtime / f"{what}.lock", what, remedy)
            lock.acquire()
            held.callback(lock.release)
        busy = embed.holder(embedded_root())
        if busy is not None:
            raise RefusedError(f"process {busy} runs guests here; end it and its guests first")
        guests = ProcFs().emulators_of_ours()
        if guests:
            raise RefusedError(
                f"{len(guests)} guests run (processes {format_cpulist(guests)}), whose threads would be let go for a "
                "moment; end them first: orchestrator stop --all"
            )
        yield _book()
