"""All prerequisites of this host, looked at one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.backends.programs import find
from orchestrator.core import backends
from orchestrator.core.arch import TRAITS
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import GIB, Architecture
from orchestrator.core.shield_record import Phase
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.host import cgroups, guest_groups, landlock, pages, prerequisites
from orchestrator.host.kvm import probe_kvm
from orchestrator.host.places import runtime_directory
from orchestrator.host.prerequisites import Finding, Level
from orchestrator.payloads import huge
from orchestrator.wiring import enclosing, guests, shield
from orchestrator.wiring.site import load_topology, reserved_cores

if TYPE_CHECKING:
    from orchestrator.core.policy import Policy

__all__ = ["Finding", "Level", "findings", "guest_findings"]

_PACKAGES = {
    Architecture.I386: "qemu-system-x86",
    Architecture.X86_64: "qemu-system-x86",
    Architecture.ARMV7L: "qemu-system-arm",
    Architecture.AARCH64: "qemu-system-arm",
}


def findings(policy: Policy) -> Iterator[Finding]:
    """Yield a finding for each prerequisite. The KVM probe is run anew, not read from its cache."""
    topology = load_topology(policy)
    pool = format_cpulist(topology.pool)
    if topology.pool:
        yield Finding("cores", Level.OK, f"{len(topology.cpus)} online, pool {pool}")
    else:
        found = f"{len(topology.cpus)} online, none left for the pool: guests need cores beside 0 and 1"
        yield Finding("cores", Level.MISSING, found, "orchestrator lab run -- COMMAND")
    yield from _run_directory()
    yield prerequisites.libvirt_driver()
    for architecture in Architecture:
        yield prerequisites.emulator(architecture, TRAITS[architecture].emulator, _PACKAGES[architecture])
    yield prerequisites.program("qemu-img", "qemu-utils", "it makes disk overlays")
    yield from _back_ends()
    yield prerequisites.extra("capstone", "inspect", "it disassembles for `inspect --disassemble`")
    yield prerequisites.efi_firmware((architecture, TRAITS[architecture].machine) for architecture in Architecture)
    yield prerequisites.cgroups()
    yield _ceilings(policy)
    yield _enclosed(policy.hypervisor.connect)
    yield prerequisites.isolation(topology.pool.cores, topology.isolated, topology.nohz_full, pool)
    if topology.pool:
        yield from _kept_off(policy)
    yield prerequisites.huge_pages(huge.mounted())
    yield _merging(policy.hypervisor.merge_memory)
    yield prerequisites.memory(GIB)
    yield prerequisites.real_root()


async def guest_findings(name: str, connect: str, policy: Path | None) -> list[Finding]:
    """Return what the kernel says of a guest's sandbox, part by part; UsageError if there is no such guest."""
    from orchestrator.core.sandbox import judge
    from orchestrator.host.sandbox import read_facts

    found = next((domain for domain in await guests.live_domains(connect) if domain.name == name), None)
    facts = None if found is None or found.pid is None else read_facts(found.pid)
    if found is None or facts is None:
        raise UsageError(f"{name}: no such guest has a process here; `orchestrator ps` lists those that are")
    return [
        Finding(each.name, Level.OK if each.closed else Level.NOTE, each.found, "" if each.closed else each.mend)
        for each in judge(replace(facts, enclosed=found.metadata.enclosed), reserved_cores(policy))
    ]


_SERVES = {
    backends.Kind.DISK: "a disk with backend = 'vhost-user'",
    backends.Kind.SHARE: "a [[share]]",
    backends.Kind.TPM: "a [tpm]",
}


def _back_ends() -> Iterator[Finding]:
    """Say which programs there are that serve devices beside QEMU."""
    for kind, what in _SERVES.items():
        path = find(kind)
        if path is None:
            mend = f"apt-get install {backends.PACKAGES[kind]}"
            yield Finding(kind, Level.NOTE, f"not there; guests with {what} cannot start", mend)
        else:
            yield Finding(kind, Level.OK, f"{path}, for guests with {what}")


def _kept_off(policy: Policy) -> Iterator[Finding]:
    """Say what keeps everything else off the pool: from the boot on, and since the host was shielded."""
    wanted = shield.kernel_arguments(policy)
    lacking = [str(argument) for argument, booted in wanted if not booted]
    if lacking:
        found, mend = f"booted without {' '.join(lacking)}", "boot with what `orchestrator host kernel-args` prints"
        yield Finding("kernel arguments", Level.NOTE, found, mend)
    else:
        yield Finding("kernel arguments", Level.OK, f"booted with {' '.join(str(each) for each, _ in wanted)}")
    try:
        status = shield.status(policy)
    except OrchestratorError as error:
        yield Finding("shield", Level.NOTE, str(error))
        return
    raise_it = "orchestrator host shield"
    if status.record is None:
        yield Finding("shield", Level.NOTE, "none: other programs and interrupts may use the pool", raise_it)
    elif status.missing or status.record.phase is not Phase.SHIELDED:
        yield Finding("shield", Level.NOTE, f"{status.record.phase}, {len(status.missing)} settings differ", raise_it)
    else:
        rest = format_cpulist(status.record.division.rest)
        yield Finding("shield", Level.OK, f"everything else is kept to core {rest}")


def _ceilings(policy: Policy) -> Finding:
    """Say what the kernel keeps each guest's QEMU from having more of than its share."""
    name, connect, speed = "ceilings", policy.hypervisor.connect, policy.hypervisor.disk_speed
    trusted = "a guest's QEMU is trusted to keep to its size"
    if connect == guests.EMBED:
        why, mend = guest_groups.why_none()
        if why and speed is not None:
            found = f"the policy bounds the speed of disks, so no guest can be started: {why}"
            return Finding(name, Level.MISSING, found, f"{mend}; or no disk_speed in the policy")
        if why:
            return Finding(name, Level.NOTE, f"none of the kernel's: {why}; {trusted}", mend)
        disks = "" if speed is None else f", {speed}/s of each disk"
        return Finding(name, Level.OK, f"each guest's QEMU has a cgroup with bounds: memory, threads{disks}")
    if cgroups.bounds_memory(connect):
        return Finding(name, Level.OK, f"libvirt makes a cgroup for each guest at {connect}, and bounds its memory")
    if not cgroups.has_memory_controller():
        found = f"none of the kernel's: no cgroup has a memory controller; {trusted}"
        return Finding(name, Level.NOTE, found, "boot without cgroup_disable=memory")
    found = f"none of the kernel's: the libvirt at {connect} runs without cgroups; {trusted}"
    return Finding(name, Level.NOTE, found, "connect = 'embed' in [hypervisor] of the policy, under root's daemon")


def _enclosed(connect: str) -> Finding:
    """Say what keeps a guest's QEMU from files that are not its guest's."""
    name, version = "files of guests", landlock.version()
    if connect != guests.EMBED:
        return Finding(name, Level.OK, f"the libvirt at {connect} runs QEMU as a user of its own")
    if enclosing.restricts():
        return Finding(name, Level.OK, f"a guest's QEMU may use its own, and no others (Landlock {version})")
    if not version:
        found = "this kernel has no Landlock: a guest's QEMU may use whatever its user may, root's everything of root's"
        return Finding(name, Level.NOTE, found, "boot a kernel from 5.13 on, with landlock among those of lsm=")
    return Finding(name, Level.NOTE, "a guest's QEMU may use whatever its user may", "sudo orchestrator serve")


def _merging(wanted: bool) -> Finding:
    name, merges = "page merging", pages.merging()
    if not wanted:
        return Finding(name, Level.OK, "off: nobody can find out so what is in the memory of others' guests")
    if merges is None:
        found = "the policy wants it, and this kernel cannot (no KSM): no guest can be started by this policy"
        return Finding(name, Level.MISSING, found, "merge_memory = false in the policy, or a kernel with CONFIG_KSM")
    if not merges:
        found = "the policy allows it, but nobody has switched it on"
        return Finding(name, Level.NOTE, found, "echo 1 > /sys/kernel/mm/ksm/run")
    return Finding(name, Level.OK, "on, as the policy has it: by the time of writes, guests can tell what others have")


def _run_directory() -> Iterator[Finding]:
    try:
        directory = runtime_directory(os.environ)
    except OrchestratorError as error:
        yield Finding("run directory", Level.MISSING, str(error), "mount -t tmpfs tmpfs /run")
        return
    yield Finding("run directory", Level.OK, str(directory))
    cache = directory / "kvm-probe.json"
    cache.unlink(missing_ok=True)
    probe = probe_kvm(cache)
    level = Level.OK if probe.usable else Level.NOTE
    mend = "" if probe.usable else "switch on virtualisation in the firmware, then: modprobe -a kvm_intel kvm_amd"
    yield Finding("KVM", level, probe.why if probe.usable else f"not used, TCG instead: {probe.why}", mend)
