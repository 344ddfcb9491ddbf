"""Twenty guests of mixed architectures and widths take turns for two minutes, and are watched from outside."""

from __future__ import annotations

import time
from collections import defaultdict

from tests.lab.inside.crowd import Crowd
from tests.lab.inside.looking import heartbeats, says
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
