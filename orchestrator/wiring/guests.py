"""Guests that run: through libvirt, or read from what libvirt and the kernel leave to be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.errors import HostError, RefusedError
from orchestrator.wiring.site import embedded_root, guest_directories

if TYPE_CHECKING:
    from orchestrator.core.policy import HypervisorPolicy, Policy
    from orchestrator.core.topology import Topology
    from orchestrator.engine import Engine
    from orchestrator.group_ports import GuestGroups
    from orchestrator.host.hypervisor import LibvirtHypervisor
    from orchestrator.host.processes import ProcFs
    from orchestrator.launch import Launcher
    from orchestrator.ports import LiveDomain

EMBED = "embed"

WAITING = "waiting"
"""The state of a shared guest that stands still since it is not its turn."""


@contextlib.asynccontextmanager
async def open_hypervisor(
    connect: str, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[LibvirtHypervisor]:
    """Open libvirt at `connect`: ``embed`` or a URI. RefusedError if another process holds the embedded root.

    `tell` is given a line when it goes away, and when it is back.
    """
    from orchestrator import rooms
    from orchestrator.host import embed, places, processes, realtime
    from orchestrator.wiring import enclosing

    uri, begin = connect, enclosing.BARE
    if connect == EMBED:
        root, cache = embedded_root(), places.cache_directory(os.environ) / "libvirt"
        embed.prepare_root(root, cache)
        begin = enclosing.begin(root, cache)
        # The embedded driver's warnings are for its log, not for the user; libvirt reads this when it is imported.
        os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"3:file:{root}/log/driver.log")
        # Where there is a system bus, libvirt has systemd's machined move each QEMU out of the shield, and then fails.
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=/dev/null"
        busy = embed.holder(root)
        if busy is not None:
            raise RefusedError(f"process {busy} runs guests here already; end it, or wait until it is done")
        uri = f"qemu:///embed?root={root}"
        processes.become_subreaper()
        if rooms.enter():  # guests begin as children of this process, which itself has nothing to do on the pool
            realtime.pin_to(SCHEDULER_CORE)
    from orchestrator.host.hypervisor import LibvirtHypervisor

    reaping = asyncio.create_task(_reap_now_and_then())
    hypervisor = await LibvirtHypervisor.open(uri, tell, begin)
    try:
        yield hypervisor
    finally:
        reaping.cancel()
        await hypervisor.close()


async def _reap_now_and_then() -> None:
    from orchestrator.host.processes import ProcFs

    kernel = ProcFs()
    while True:
        kernel.reap()
        await asyncio.sleep(0.1)


def build_engine(policy: Policy, launcher: Launcher) -> Engine:
    """Return an engine on real adapters, by what the policy says now."""
    from orchestrator.core.windows import effective
    from orchestrator.engine import Engine
    from orchestrator.host.calendar import HostCalendar
    from orchestrator.host.clock import MonotonicClock
    from orchestrator.quotas import Accounting

    calendar = HostCalendar()
    now = effective(policy, calendar.local()).policy
    return Engine(launcher.topology, now, launcher, MonotonicClock(), accounting=Accounting(calendar))


def build_launcher(
    topology: Topology, hypervisor: LibvirtHypervisor, connect: str, policy: HypervisorPolicy | None = None
) -> Launcher:
    """Return a launcher on real adapters; `connect` is where the hypervisor was opened.

    HostError if the policy wants what the kernel cannot: to merge equal pages of guests, to bound the speed of disks.
    """
    from orchestrator.core.policy import HypervisorPolicy
    from orchestrator.host.cgroups import bounds_memory
    from orchestrator.host.guest_files import GuestDirectories
    from orchestrator.host.monitor import QmpMonitors
    from orchestrator.host.opening import UserFiles
    from orchestrator.host.pages import require_merging
    from orchestrator.host.processes import ProcFs
    from orchestrator.launch import Launcher
    from orchestrator.rooms import CGROUP
    from orchestrator.wiring import enclosing
    from orchestrator.wiring.backends import service_back_ends
    from orchestrator.wiring.emergency import barred_by, guard_book
    from orchestrator.wiring.payloads import service_payloads

    policy = policy or HypervisorPolicy()
    opener = UserFiles((SERVICE_CORE,))
    user = _daemons_user(connect)
    files = GuestDirectories(guest_directories(), user, opener)
    if policy.merge_memory:
        require_merging()
    groups = _groups(topology, connect, policy)
    return Launcher(
        topology,
        hypervisor,
        ProcFs(home=CGROUP if connect == EMBED else None),
        QmpMonitors(),
        files,
        service_payloads(),
        service_back_ends(user),
        bounds_memory=bounds_memory(connect),
        merges_memory=policy.merge_memory,
        foreign=user is not None,
        barred=barred_by(guard_book()),
        encloses=connect == EMBED and enclosing.restricts(),
        groups=groups,
        disk_speed=policy.disk_speed,
    )


def _groups(topology: Topology, connect: str, policy: HypervisorPolicy) -> GuestGroups | None:
    """Return the control groups of guests; None where libvirt makes them, or nobody can, which `doctor` tells."""
    from orchestrator.host.guest_groups import CgroupGroups, why_none

    why, mend = why_none() if connect == EMBED else ("libvirt makes guests' control groups itself", "connect = 'embed'")
    if not why:
        return CgroupGroups(topology.pool.cores)
    if policy.disk_speed is not None:
        raise HostError(f"hypervisor.disk_speed: the policy bounds it, which this host cannot: {why}; {mend}")
    return None


def _daemons_user(connect: str) -> int | None:
    """Return the user as whom the system's libvirt daemon runs QEMU, and let it pass through to its directories."""
    if connect != "qemu:///system" or os.geteuid() != 0:
        return None
    from orchestrator.host.places import runtime_directory

    runtime_directory(os.environ).chmod(0o711)
    return pwd.getpwnam("libvirt-qemu").pw_uid


async def live_domains(connect: str) -> list[LiveDomain]:
    """Return all domains of ours, by name, whoever runs them; `pid` is None where the process has gone.

    A shared guest is where its threads are: its metadata has only the cores on which it was launched.
    """
    from orchestrator.host.processes import ProcFs

    kernel = ProcFs()
    if connect == EMBED:
        from orchestrator.host.embed import domains

        found = domains(embedded_root())
    else:
        async with open_hypervisor(connect) as hypervisor:
            found = [replace(domain, pid=kernel.find(domain.uuid)) for domain in await hypervisor.domains()]
    return [_as_it_is(domain, kernel) for domain in found]


def _as_it_is(domain: LiveDomain, kernel: ProcFs) -> LiveDomain:
    from orchestrator.config import decode_guest
    from orchestrator.core.model import Mode
    from orchestrator.core.pins import seats, vcpu_threads_by_name

    if domain.pid is None or decode_guest(domain.metadata.specification).mode is Mode.EXCLUSIVE:
        return domain
    threads = kernel.threads(domain.pid)
    seated = seats(
        {thread.tid: thread.allowed for thread in threads},
        vcpu_threads_by_name({thread.tid: thread.name for thread in threads}),
    )
    if seated is None:
        return domain
    vcpus, emulator = seated
    runs = domain.state == "running"
    state = domain.state if runs or domain.metadata.paused else WAITING
    held = tuple(sorted({*vcpus, *emulator})) if runs else ()
    return replace(domain, state=state, metadata=replace(domain.metadata, vcpus=vcpus, emulator=emulator, held=held))


async def stop_domains(domains: Sequence[LiveDomain], connect: str) -> None:
    """End guests. Those that another process runs are ended by signal, and that process clears up after them."""
    from orchestrator.host import embed
    from orchestrator.host.guest_files import GuestDirectories
    from orchestrator.together import all_or_first_failure
    from orchestrator.wiring.backends import service_back_ends

    if connect == EMBED and embed.holder(embedded_root()) is not None:
        await all_or_first_failure([_stop_by_signal(domain) for domain in domains])
        return
    files, back_ends = GuestDirectories(guest_directories()), service_back_ends()
    async with open_hypervisor(connect) as hypervisor:
        await all_or_first_failure([hypervisor.remove(domain.uuid) for domain in domains])
    for domain in domains:
        await back_ends.end(domain.metadata.directory)
        files.discard(domain.name)


async def _stop_by_signal(domain: LiveDomain) -> None:
    from orchestrator.errors import OutcomeUnknownError
    from orchestrator.host.processes import terminate

    if domain.pid is not None and not await asyncio.to_thread(terminate, domain.pid, domain.uuid):
        raise OutcomeUnknownError(
            f"{domain.name}: its process {domain.pid} did not end in time; look again with `orchestrator ps`"
        )


def cpu_seconds(domain: LiveDomain) -> float | None:
    """Return the CPU time of all threads of a guest, None where its process has gone."""
    from orchestrator.host.processes import ProcFs

    if domain.pid is None:
        return None
    return round(sum(thread.cpu_seconds for thread in ProcFs().threads(domain.pid)), 2)
