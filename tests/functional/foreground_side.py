"""What `orchestrator run` does, on core 1 where this host has no pool, see `mortal`; it tells of what it heeds.

`sys.argv` has a definition. Its guest's states, and how it ended, come in lines of JSON.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from orchestrator.bench.borrowed import Host, lend, may_lend
from orchestrator.core.policy import Policy
from orchestrator.foreground import Until, run_in_foreground
from orchestrator.host.clock import MonotonicClock
from orchestrator.recorder import Unrecorded
from orchestrator.wiring import emergency
from orchestrator.wiring.definitions import accelerator_for, load_guests, to_run
from orchestrator.wiring.guests import EMBED, build_engine, build_launcher, open_hypervisor
from orchestrator.wiring.site import load_topology
from tests.functional.mortal import say


async def main(definition: Path) -> None:
    """Run one guest until it ends."""
    policy = Policy()
    topology = load_topology(policy)
    (parsed,) = load_guests([definition])
    architecture = parsed.spec.architecture
    wanted = to_run([parsed], 1, {architecture: accelerator_for(architecture, policy)})
    async with open_hypervisor(EMBED) as opened:
        launcher = build_launcher(topology, opened, EMBED)
        if may_lend(topology):
            host = lend(Host(topology, opened, launcher.processes))
            launcher = replace(launcher, topology=host.topology, hypervisor=host.hypervisor, processes=host.processes)
        engine = build_engine(policy, launcher)
        told: list[str] = []

        def look() -> None:
            state = engine.state(wanted[0].spec.name)
            if not told or told[-1] != state:
                told.append(state)
                say({"state": state})

        async with emergency.heeded(
            emergency.heeding(engine, launcher, Unrecorded(), lambda line: say({"line": line}))
        ):
            await run_in_foreground(
                engine, wanted, until=Until(), clock=MonotonicClock(), interrupted=asyncio.Event(), on_look=look
            )
        say({"ended": engine.guests[wanted[0].spec.name].ended})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
