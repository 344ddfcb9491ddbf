"""The live tables of `orchestrator run`."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.wiring.foreground import View


def run_tables(view: View) -> Group:
    """Return the tables of guests and of cores."""
    return Group(_guests(view), _cores(view))


def _guests(view: View) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("GUEST", "ARCHITECTURE", "CORES", "STATE", "CPU S", "BEATS"):
        table.add_column(column, no_wrap=True)
    table.add_column("LAST SERIAL LINE", no_wrap=True, overflow="ellipsis")
    for wanted in view.wanted:
        name, architecture = wanted.spec.name, wanted.spec.architecture
        guest, state = view.engine.guests.get(name), view.engine.state(name)
        if guest is None:
            table.add_row(name, architecture, "", state, "", "")
        else:
            cores = ",".join(map(str, guest.domain.placement.held))
            seconds, beats = f"{guest.cpu_seconds:.1f}", str(guest.heartbeats)
            table.add_row(name, architecture, cores, state, seconds, beats, Text(guest.last_line))
    return table


def _cores(view: View) -> Table:
    holders = view.engine.holders()
    table = Table(box=None, pad_edge=False)
    for column in ("CORE", "ROLE", "HOLDER"):
        table.add_column(column, no_wrap=True)
    for cpu in view.engine.topology.cpus:
        table.add_row(str(cpu.id), cpu.role, holders.get(cpu.id, ""))
    return table
