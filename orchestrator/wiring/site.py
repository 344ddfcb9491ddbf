"""This host: its policy, its topology, and where things are kept."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.policy import Policy
from orchestrator.core.pool import SCHEDULER_CORE, SERVICE_CORE
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.topology import Topology

SYSFS = Path("/sys/devices/system")


def owner() -> str:
    """Return the name of the user who calls."""
    return pwd.getpwuid(os.getuid()).pw_name


def load_policy(path: Path | None) -> Policy:
    """Return the policy in this file, or the defaults (which are those of policies/default.toml)."""
    from orchestrator.core.policy import Policy
    from orchestrator.policy_file import parse_policy

    return Policy() if path is None else parse_policy(read_file(path), str(path))


def load_topology(policy: Policy, sysfs: Path = SYSFS) -> Topology:
    """Return the topology of the host behind `sysfs`, with the policy's reserved cores."""
    from orchestrator.host.sysfs import read_topology

    return read_topology(sysfs, policy.cores.reserved_cores())


def reserved_cores(policy: Path | None) -> frozenset[int]:
    """Return the cores of this host that no guest may have; 0 and 1 are among them whatever it looks like."""
    topology = load_topology(load_policy(policy))
    return frozenset(cpu.id for cpu in topology.reserved) | {SCHEDULER_CORE, SERVICE_CORE}


def read_file(path: Path) -> bytes:
    """Return a file's bytes, as many as any definition or policy may have and one more; UsageError if it cannot be."""
    from orchestrator.toml_tables import MOST_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def guest_directories() -> Path:
    """Return the directory that holds a run directory for each guest."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "guests"


def embedded_root() -> Path:
    """Return the root directory of libvirt's embedded driver."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "libvirt"
