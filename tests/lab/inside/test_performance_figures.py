"""Measured figures of the twenty guests' turns; what is asserted is no timing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import ask, command, says
from tests.lab.inside.servers import events
from tests.lab.inside.turns import hand_overs, moment, turns


def test_hand_overs_and_the_use_of_the_pool(crowd: Crowd) -> None:
    told = events()
    first = max(moment(event) for event in told if event["what"] == "takes turns")
    last = moment(told[-1])
    every = list(turns(told, first, last))
    shared = [turn for turn in every if crowd.members[turn.guest].mode == "shared"]
    used = sum((turn.ended - turn.began) * len(turn.cores) for turn in shared)
    cores = {core for turn in shared for core in turn.cores}
    between = sorted(hand_overs(shared))
    lengths = sorted(turn.ended - turn.began for turn in shared)
    says(
        f"{len(shared)} turns on {len(cores)} cores within {last - first:.0f} s",
        f"hand-over, stop confirmed to running: {spread(between)}",
        f"length of a turn: {spread(lengths)}",
        f"useful pool time: {100 * used / (len(cores) * (last - first)):.1f}%",
    )
    assert len(cores) == 4
    assert between
    assert 0 < used <= len(cores) * (last - first) * 1.001


def test_answers(crowd: Crowd) -> None:
    name = crowd.one("aarch64")
    took = {}
    for asked in (("ps",), ("cores",), ("explain", name), ("show", name)):
        began = time.monotonic()
        assert ask(*asked)
        took[asked[0]] = time.monotonic() - began
    began = time.monotonic()
    assert command("start", "--dry-run", "domains/heartbeat-armv7l.toml").code in (0, 3)
    took["start --dry-run"] = time.monotonic() - began
    says(*(f"{what}: answered in {1000 * seconds:.0f} ms" for what, seconds in took.items()))


def spread(values: Sequence[float]) -> str:
    return (
        f"median {1000 * statistics.median(values):.0f} ms, 99% within "
        f"{1000 * values[min(len(values) - 1, int(len(values) * 0.99))]:.0f} ms"
    )
