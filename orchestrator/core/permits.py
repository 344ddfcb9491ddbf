"""What a policy lets any guest be, whoever's it is: architectures, files, networks, and how much one may ask for.

Quotas, which look at what else there is, are in `quota`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.core.files import guest_files
from orchestrator.core.model import GuestSpec, Network, NetworkKind, Size
from orchestrator.core.placement import Reason
from orchestrator.core.policy import Policy


def shut_out(policy: Policy, owner: str, *, by_admin: bool) -> Iterator[Reason]:
    """Yield why somebody may start nothing at all."""
    if owner in policy.users.banned:
        yield Reason(f"user {owner}", "a guest", f"nothing, since banned: {policy.users.banned[owner]}")
    if policy.emergency.lockdown and not by_admin:
        why = f": {policy.emergency.reason}" if policy.emergency.reason else ""
        yield Reason("lockdown", "a new guest", f"none but by members of group {policy.users.admin_group}{why}")


def forbidden(policy: Policy, spec: GuestSpec, disk: int) -> Iterator[Reason]:
    """Yield every rule by which nobody may start such a guest; `disk` is what its writable disks can grow to."""
    allowed = policy.allowed
    if spec.architecture not in allowed.architectures:
        yield Reason("architecture", spec.architecture, ", ".join(allowed.architectures))
    network = _spelled(spec.network)
    if allowed.networks is not None and network not in allowed.networks:
        yield Reason("network", network, ", ".join(allowed.networks) or "no other than none at all")
    if allowed.payload_directories is not None:
        for file in guest_files(spec):
            if not _lies_in(file.path, allowed.payload_directories):
                yield Reason("directory of a file", file.path, ", ".join(allowed.payload_directories) or "none")
    yield from _ceilings(policy, spec, disk)


def _ceilings(policy: Policy, spec: GuestSpec, disk: int) -> Iterator[Reason]:
    ceilings = policy.ceilings
    for name in ("vcpus", "iothreads", "weight"):
        most, wanted = getattr(ceilings, name), getattr(spec, name)
        if most is not None and wanted > most:
            yield Reason(f"{name} of one guest", str(wanted), f"{most} at most")
    for name, size in (("memory", spec.memory), ("disk", disk)):
        most = getattr(ceilings, name)
        if most is not None and size > most:
            yield Reason(f"{name} of one guest", str(Size(size)), f"{most} at most")


def _spelled(network: Network) -> str:
    if network.kind in (NetworkKind.NONE, NetworkKind.USER):
        return str(network.kind)
    return f"{network.kind}:{network.name}"


def _lies_in(path: str, folders: Iterable[str]) -> bool:
    below = "/../" not in path
    return below and any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders)
