"""Rows for tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import decode_guest
from orchestrator.core.topology import Topology
from orchestrator.ports import LiveDomain


def describe_guest(domain: LiveDomain, cpu_seconds: float | None) -> dict[str, object]:
    """Return a live guest as JSON's types; a process that has gone has neither pid nor CPU time."""
    spec = decode_guest(domain.metadata.specification)
    return {
        "name": domain.name,
        "owner": domain.metadata.owner,
        "architecture": spec.architecture,
        "mode": spec.mode,
        "accelerator": domain.metadata.accelerator,
        "state": domain.state if domain.pid else "gone",
        "cores": list(domain.metadata.held),
        "vcpus": list(domain.metadata.vcpus),
        "emulator": list(domain.metadata.emulator),
        "cpu_seconds": cpu_seconds,
        "pid": domain.pid,
        "uuid": domain.uuid,
        "serial_lost": 0,
    }


def describe_cores(topology: Topology, domains: Sequence[LiveDomain]) -> list[dict[str, object]]:
    """Return each online core with its role, node, and the name of the guest that holds it (None if free)."""
    holders = {core: domain.name for domain in domains for core in domain.metadata.held}
    return [
        {
            "id": cpu.id,
            "role": cpu.role,
            "node": cpu.node,
            "holder": holders.get(cpu.id),
            "held": cpu.id in holders,
        }
        for cpu in topology.cpus
    ]
