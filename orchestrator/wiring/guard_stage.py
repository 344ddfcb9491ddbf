"""A scheduler with guests and libvirt's driver in it, in a process of its own, for a bench that has it stand still.

It prints the guests' names in a line of JSON when they take turns, or why there are none, and ends them at the end of
its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import HostError, OrchestratorError

_END_LIMIT = 120.0


@contextmanager
def scheduled(name: str, count: int, *, borrow: bool) -> Iterator[tuple[int, list[str]]]:
    """Give the pid of a scheduler, and its guests' names. HostError if it does not come up, and says why."""
    command = [sys.executable, "-m", __name__, name, str(count), "borrow" if borrow else ""]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is None or process.stdout is None:
        raise HostError("no pipes")
    try:
        line = process.stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else {"why": "its scheduler ended without a word"}
        if "why" in told:
            raise HostError(told["why"])
        yield process.pid, told["guests"]
    finally:
        process.stdin.close()
        try:
            process.wait(_END_LIMIT)
        finally:
            process.kill()
            process.stdout.close()


async def _schedule(name: str, count: int, *, borrow: bool) -> None:
    from orchestrator.core.policy import Policy
    from orchestrator.engine import Engine
    from orchestrator.host.realtime import AlarmClock
    from orchestrator.wiring.handover import alone_on, heartbeats, require_pool_or_loan
    from orchestrator.wiring.site import load_topology
    from orchestrator.wiring.stage import going

    policy = Policy()
    topology = load_topology(policy)
    require_pool_or_loan(topology, borrow=borrow)
    guests = heartbeats(policy)(name, count)
    async with alone_on(topology, borrow=borrow) as launcher:
        engine = Engine(launcher.topology, policy, launcher, AlarmClock())
        async with going(engine, launcher, guests):
            _say({"guests": [guest.spec.name for guest in guests]})
            await asyncio.to_thread(sys.stdin.read)


def _say(told: object) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


def _main() -> None:
    try:
        asyncio.run(_schedule(sys.argv[1], int(sys.argv[2]), borrow=bool(sys.argv[3])))
    except OrchestratorError as error:
        _say({"why": "; ".join(error.lines())})


if __name__ == "__main__":
    _main()
