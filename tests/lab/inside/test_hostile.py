"""Guests that mean harm under a daemon, on the only core that there is: who waits for it has it within the bound.

That is the one which the daemon itself tells with each turn. Nor is the host's disk filled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.hostile import DISK, HARM, boot_sector
from tests.lab.inside.looking import command, emulators, eventually, guests, heartbeats, says
from tests.lab.inside.servers import Serve, Servers, events

NEIGHBOUR = "heartbeat-i386"
TURNS = 4
ENDS = ("TRIPLE", "EVENTS")
"""Who is ended for what it does: to boot again and again, to say that it crashes."""

MOST = 64 << 20
"""Bytes by which all that is kept of guests may grow for each of them: four times of what is kept of a serial port."""

KEPT = ("/run/orchestrator", "/var/lib/orchestrator", "/var/log/orchestrator")
POLICY = """
extends = "{lab}"
[cores]
reserved = "3-5"
"""
GUEST = """
name = "{name}"
architecture = "i386"
vcpus = 1
memory = "32 MiB"
stop_grace = "0 s"
panic = {panic}
[boot]
disk = "vda"
[[disk]]
path = "{disk}"
format = "raw"
"""


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    directory = tmp_path_factory.mktemp("hostile")
    policy = directory / "policy.toml"
    policy.write_text(POLICY.format(lab=Path("policies/lab.toml").absolute()))
    servers = Servers(directory, policy=str(policy))
    try:
        started = servers.start()
        assert command("start", f"domains/{NEIGHBOUR}.toml").code == 0
        eventually(lambda: heartbeats(NEIGHBOUR) > 0, "the neighbour beats")
        yield started
    finally:
        servers.clear()


def kept() -> int:
    """Return how many bytes are kept, in blocks that are there: logs have holes."""
    total = 0
    for path in (file for place in KEPT for file in Path(place).rglob("*")):
        with contextlib.suppress(OSError):
            total += 0 if path.is_symlink() else path.lstat().st_blocks * 512
    return total


def began(since: int, name: str) -> list[Any]:
    return [each for each in events(since) if each["what"] == "turn began" and each["guest"] == name]


@pytest.mark.parametrize("harm", HARM)
def test_who_waits_beside_it_has_his_turns_within_the_bound(serve: Serve, tmp_path: Path, harm: str) -> None:
    name = harm.lower()
    disk = boot_sector(harm, tmp_path)
    definition = tmp_path / f"{name}.toml"
    definition.write_text(GUEST.format(name=name, disk=disk, panic=str(harm == "EVENTS").lower()))
    last, before = events()[-1]["seq"], kept()
    started = command("start", str(definition))
    assert started.code == 0, (started.err, serve.lines)
    its = 1 if harm in ENDS else TURNS
    # One that takes too long to stop is quarantined, and ended: the storm of timers, where emulation is emulated.
    eventually(lambda: len(began(last, name)) >= its or name not in running(), f"{its} turns of the hostile one")
    eventually(lambda: len(began(last, NEIGHBOUR)) >= TURNS or name not in running(), f"{TURNS} turns beside it")
    beats = heartbeats(NEIGHBOUR)
    eventually(lambda: heartbeats(NEIGHBOUR) > beats, "the neighbour goes on")
    waits = [turn["waited"] for turn in began(last, NEIGHBOUR) if turn.get("waited")]
    assert waits or harm in ENDS
    longest = max((each["seconds"] for each in waits), default=0.0)
    bound = max((each["bound"] for each in waits), default=0.0)
    grown = (kept() - before) >> 20
    troubles = sorted({each["what"] for each in events(last) if each["guest"] == name} - {"turn began", "turn ended"})
    says(f"{harm}: the neighbour waited {longest:.2f} s at most, of {bound:.2f}; {grown} MiB more kept; {troubles}")
    assert all(each["seconds"] <= each["bound"] for each in waits), waits
    assert grown << 20 <= MOST
    written = disk.stat().st_blocks * 512
    assert written <= DISK + (64 << 10), "beyond its disk"
    assert harm != "FILL" or written > 64 << 10, "it has written nothing"
    command("stop", name)
    eventually(lambda: len(emulators()) == 1, "it has ended")


def running() -> set[str]:
    return {name for name, guest in guests().items() if guest["state"] in ("running", "waiting")}
