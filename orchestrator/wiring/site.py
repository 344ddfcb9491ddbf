"""This host: its policy, its topology, and where things are kept."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.policy import Policy
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE

if TYPE_CHECKING:
    from orchestrator.core.topology import Topology
    from orchestrator.policy_file import SourcedPolicy

SYSFS = Path("/sys/devices/system")


def owner() -> str:
    """Return the name of the user who calls."""
    return user_name(os.getuid())


def user_name(uid: int) -> str:
    """Return a user's name, or the number where there is none. A name that reads like a number is none: whose is it?"""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return str(uid) if name.isdigit() else name


def today() -> date:
    """Return the day that the calendar on the wall shows here."""
    return date.today()


def load_policy(path: Path | None) -> Policy:
    """Return the policy in this file, or the defaults (which are those of policies/default.toml)."""
    from orchestrator.core.policy import Policy

    return Policy() if path is None else load_sources(path).policy


def load_sources(path: Path) -> SourcedPolicy:
    """Return the policy in this file and those it extends, and where each value was written.

    A group whose members it does not name gets those that the host's group has.
    """
    from orchestrator.policy_file import read_policy

    sourced = read_policy(str(path), lambda name: read_file(Path(name)), str(path.absolute().parent))
    groups = {
        name: group if group.members is not None else replace(group, members=_members(name))
        for name, group in sourced.policy.group.items()
    }
    return replace(sourced, policy=replace(sourced.policy, group=groups))


def _members(group: str) -> tuple[str, ...]:
    """Return who is in a group of this host, those included whose first group it is; nobody if there is no such."""
    import grp

    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return ()
    return tuple(sorted({*entry.gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == entry.gr_gid)}))


def load_topology(policy: Policy, sysfs: Path = SYSFS) -> Topology:
    """Return the topology of the host behind `sysfs`, with the policy's reserved cores."""
    from orchestrator.host.sysfs import read_topology

    return read_topology(sysfs, policy.cores.reserved_cores())


def reserved_cores(policy: Path | None) -> frozenset[int]:
    """Return the cores of this host that no guest may have; 0 and 1 are among them whatever it looks like."""
    topology = load_topology(load_policy(policy))
    return frozenset(cpu.id for cpu in topology.reserved) | {SCHEDULER_CORE, SERVICE_CORE}


def read_file(path: Path) -> bytes:
    """Return the text of a definition, policy or scenario, up to a byte more than one may have.

    UsageError says why a path has none.
    """
    from orchestrator.host.input_file import read_input
    from orchestrator.toml_tables import MOST_BYTES

    return read_input(path, MOST_BYTES)


def read_domain(path: Path) -> bytes:
    """Return the bytes of a domain's XML, up to one more than an audit looks at; UsageError says why there are none."""
    from orchestrator.core.xml.audit import MOST_BYTES
    from orchestrator.host.input_file import read_input

    return read_input(path, MOST_BYTES)


def guest_directories() -> Path:
    """Return the directory that holds a run directory for each guest."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "guests"


def embedded_root() -> Path:
    """Return the root directory of libvirt's embedded driver."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "libvirt"
