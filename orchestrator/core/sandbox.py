"""A guest's sandbox as the kernel sees it: what stands in /proc of its QEMU, and what that keeps it from.

Texts come in, judgements go out. The fields are those of proc(5)'s ``status``, capabilities are named as in
capabilities(7), and a namespace by the word that it has in ``/proc/PID/ns``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.cpulist import format_cpulist, parse_cpulist

_CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
"""By their numbers, from 0."""

_FILTER = 2  # of Seccomp in proc(5)
UNBOUNDED = {"max", "9223372036854771712"}
"""What the kernel writes where there is no limit, in cgroup v2 and, for memory, v1."""

_SYSTEM = "orchestrator serve --connect qemu:///system"
_CEILINGS = "orchestrator doctor"
"""It says why there are none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read: ``status`` of each thread, the namespaces that are not the host's own, and limits.

    `limits` maps the name of a control group's file (``memory.max``, ``pids.max``, ``io.max``) to the tightest text
    of it from the process's own group up. That it was `enclosed` is what its guest's metadata say: the kernel does not.
    """

    threads: Sequence[Mapping[str, str]]
    own_namespaces: Sequence[str]
    limits: Mapping[str, str]
    enclosed: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """One part of a sandbox: whether it is closed, what was found, and what would close it, where anything would."""

    name: str
    closed: bool
    found: str
    mend: str = ""


def parse_status(text: str) -> dict[str, str]:
    """Return the fields of a ``status`` file."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def capabilities(mask: str) -> tuple[str, ...]:
    """Return the names in a capability mask, as ``status`` has it in hexadecimal; unknown ones by number."""
    bits = int(mask, 16)
    known = [name for number, name in enumerate(_CAPABILITIES) if bits >> number & 1]
    return (*known, *(str(n) for n in range(len(_CAPABILITIES), bits.bit_length()) if bits >> n & 1))


def judge(facts: Facts, reserved: frozenset[int]) -> Iterator[Judgement]:
    """Yield a judgement of each part; `facts.threads` is not empty. The worst of all threads counts. O(threads)."""
    yield _user(facts.threads, enclosed=facts.enclosed)
    yield _files(facts)
    yield _capabilities(facts.threads)
    yield _seccomp(facts.threads)
    gains = [each for each in facts.threads if each.get("NoNewPrivs") != "1"]
    found = "no program that it executes has more rights than it" if not gains else "a set-uid program has its own"
    yield Judgement("privileges", not gains, found)
    yield _namespaces(facts.own_namespaces)
    yield from _limits(facts.limits)
    yield _cores(facts.threads, reserved)


def _user(threads: Sequence[Mapping[str, str]], *, enclosed: bool) -> Judgement:
    users = sorted({int(word) for each in threads for word in each["Uid"].split()})
    found = f"uid {', '.join(map(str, users))}, gid {threads[0]['Gid'].split()[0]}"
    if 0 not in users:
        return Judgement("user", True, found)
    if enclosed:
        return Judgement(
            "user", False, f"{found}: what root owns and is no file can be open to it, as sockets", _SYSTEM
        )
    return Judgement("user", False, f"{found}: whatever root owns is open to it, the files of others are not", _SYSTEM)


def _files(facts: Facts) -> Judgement:
    if facts.enclosed:
        return Judgement(
            "files", True, "its guest's own, and what every QEMU reads (Landlock, as was noted at its start)"
        )
    return Judgement("files", False, "those that its user may use", "orchestrator doctor")


def _capabilities(threads: Sequence[Mapping[str, str]]) -> Judgement:
    has = sorted({name for each in threads for name in capabilities(each["CapEff"])})
    can = sorted({name for each in threads for name in capabilities(each["CapBnd"])} - set(has))
    if not has:
        gain = "none can be had" if not can else f"of those it could be given: {' '.join(can)}"
        return Judgement("capabilities", True, f"none; {gain}")
    return Judgement("capabilities", False, " ".join(has), _SYSTEM)


def _seccomp(threads: Sequence[Mapping[str, str]]) -> Judgement:
    without = [each for each in threads if int(each.get("Seccomp", "0")) != _FILTER]
    if without:
        return Judgement("seccomp", False, f"{len(without)} of {len(threads)} threads have no filter")
    filters = min(int(each.get("Seccomp_filters", "1")) for each in threads)
    return Judgement("seccomp", True, f"a filter in each of {len(threads)} threads ({filters} in a row)")


def _namespaces(own: Sequence[str]) -> Judgement:
    if "mnt" in own:
        return Judgement("namespaces", True, f"its own: {' '.join(sorted(own))}")
    found = f"its own: {' '.join(sorted(own)) or 'none'}; it sees the host's file systems, /dev and network"
    return Judgement("namespaces", False, found, _SYSTEM)


def _limits(limits: Mapping[str, str]) -> Iterator[Judgement]:
    for name, file, unit in (("memory", "memory.max", "bytes"), ("threads", "pids.max", "threads and processes")):
        most = limits.get(file, "max")
        if most in UNBOUNDED:
            yield Judgement(name, False, "the kernel sets no ceiling", _CEILINGS)
        else:
            yield Judgement(name, True, f"at most {most} {unit}")
    io = limits.get("io.max", "")
    mend = "disk_speed in [hypervisor] of the policy"
    yield Judgement("disk speed", bool(io), io.replace("\n", "; ") or "the kernel sets no ceiling", mend)


def _cores(threads: Sequence[Mapping[str, str]], reserved: frozenset[int]) -> Judgement:
    allowed = frozenset().union(*(parse_cpulist(each["Cpus_allowed_list"]) for each in threads))
    return Judgement("cores", allowed.isdisjoint(reserved), format_cpulist(allowed), "orchestrator audit pins")
