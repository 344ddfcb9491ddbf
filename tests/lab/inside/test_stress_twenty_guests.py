"""Twenty guests of mixed architectures and widths take turns for two minutes, and are watched from outside.

The observer aims at a look every 10 ms, and tells what came of it. The lab has eight cores on however many there are
below it: on two that had much other work, too, a look every 30 ms was had when it read the stat of all 25 vCPUs, and
every 126 ms when Python did; now it reads only those of guests that run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from pathlib import Path

from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import ask, heartbeats, says
from tests.lab.inside.observer import jain
from tests.lab.inside.servers import events
from tests.lab.inside.turns import moment, turns

ROTATION = 120.0
"""Seconds of turns that are watched."""


def test_twenty_guests_on_six_cores_have_their_share_within_the_bound(crowd: Crowd) -> None:
    """They are watched from the moment they run; what other tests asked meanwhile has disturbed nobody."""
    members, observer, began = crowd.members.values(), crowd.observer, crowd.began
    assert (len(members), {member.vcpus for member in members}) == (20, {1, 2, 3})
    assert len({member.architecture for member in members}) == 4
    time.sleep(max(0.0, began + ROTATION - time.time()))
    ended = time.time()
    beats = {name: heartbeats(name) - before for name, before in crowd.beats.items()}
    told = events()
    charged: defaultdict[str, float] = defaultdict(float)
    for turn in turns(told, began, ended):
        charged[turn.guest] += (turn.ended - turn.began) * len(turn.cores)
    fair = jain(charged[member.name] / member.weight for member in crowd.shared)
    watched = observer.report()
    seen = jain(watched.guests[member.name].ran * member.vcpus / member.weight for member in crowd.shared)
    waits = [event for event in told if event["waited"] and began <= moment(event) <= ended]
    longest = max(waits, key=lambda event: event["waited"]["seconds"])
    says(
        f"{len(waits)} turns in {ended - began:.0f} s",
        f"looked {watched.looks} times, every {watched.seconds / watched.looks * 1000:.1f} ms",
        f"Jain's index over weighted core time: {fair:.4f} as charged, {seen:.4f} as seen from outside",
        f"longest wait: {longest['waited']['seconds']:.1f} s of at most {longest['waited']['bound']:.1f} s, "
        f"seen from outside {max(guest.longest_wait for guest in watched.guests.values()):.1f} s",
        *(f"{name}: {charged[name]:.1f} core seconds, {beats[name]} heartbeats" for name in crowd.members),
    )
    assert observer.violations == []
    assert watched.looks > 100
    assert all(beats.values()), beats
    assert {event["guest"] for event in waits} == {member.name for member in crowd.shared}
    assert [event for event in waits if event["waited"]["seconds"] > event["waited"]["bound"]] == []
    assert min(fair, seen) >= 0.98


def test_the_report_of_it_tells_who_waited_longest_and_the_page_has_every_turn(crowd: Crowd, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    told = events()  # first, for they go on
    made = ask("report", "--since", "1h", "--html", str(page))
    lines = {line["name"]: line for line in made["guests"]}
    assert set(crowd.members) <= set(lines)
    assert all(lines[name]["architecture"] == member.architecture for name, member in crowd.members.items())
    waits = [(event["waited"]["seconds"], event["guest"]) for event in told if event["waited"]]
    longest = made["guests"][0]
    assert longest["longest"] / 10**9 >= max(waits)[0] - 0.001
    assert [line["core"] for line in made["cores"]] == list(range(2, 8))
    said = page.read_text()
    assert all(f"{name} · root" in said for name in crowd.members)
    held = sum(line["held"] for line in made["cores"]) / len(made["cores"])
    says(f"{held:.1%} of the pool's time was held while guests started and ran, {longest['name']} waited longest")
    if keep := os.environ.get("ORCHESTRATOR_KEEP_REPORT"):
        shutil.copy(page, keep)
    seen = ask("top")
    assert {guest["name"] for guest in seen["guests"]} >= set(crowd.members)
    assert sum(guest["turns"] for guest in seen["guests"]) >= len(waits)
    assert seen["daemon"]["cpu_seconds"] > 0
