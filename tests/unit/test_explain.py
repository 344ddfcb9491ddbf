"""What a user is told of a guest that waits, runs, or does neither."""

from __future__ import annotations

import pytest

from orchestrator.core.explain import Explanation
from orchestrator.core.orders import Happening
from orchestrator.core.plan import MoveGuest, PauseGuest, StartGuest
from orchestrator.errors import UsageError
from tests.unit.scheduler_world import MS, World, spec, world


def crowd() -> World:
    """Two cores, a server on a third, and three guests of two owners for the two."""
    host = world(5)
    host.ask(StartGuest(spec=spec("web", exclusive=True), owner="ann"))
    host.ask(StartGuest(spec=spec("a"), owner="ann"))
    host.ask(StartGuest(spec=spec("b", 2), owner="bob"))
    host.ask(StartGuest(spec=spec("c"), owner="bob"))
    host.run(1050)
    return host


def told(host: World, guest: str) -> Explanation:
    return host.scheduler.explain(guest, host.now)


def test_who_waits_is_told_its_place_who_has_the_cores_and_when_it_runs_at_the_latest() -> None:
    host = crowd()
    waiting = {wait.guest: wait for wait in host.scheduler.waits(host.now)}
    assert waiting
    for guest, wait in waiting.items():
        outcome = told(host, guest)
        assert outcome.state == "waiting"
        assert (outcome.position, outcome.since, outcome.latest) == (wait.position, wait.since, wait.latest)
        assert {holder.guest for holder in outcome.holders} <= set(host.may_run.values())
        assert {core for holder in outcome.holders for core in holder.cores} <= {3, 4}
        assert any("cores at once" in reason for reason in outcome.reasons)
        assert outcome.reasons[-1].endswith("at the latest, whoever comes")


def test_what_is_promised_is_kept() -> None:
    host = crowd()
    promised = {wait.guest: told(host, wait.guest).latest for wait in host.scheduler.waits(host.now)}
    asked = host.now
    host.run(3000)
    for guest, latest in promised.items():
        began = next(n.at for n in host.notices if n.what is Happening.TURN_BEGAN and n.guest == guest and n.at > asked)
        assert latest is not None
        assert began <= latest


def test_who_runs_is_told_where_and_until_when() -> None:
    host = crowd()
    for guest in {"a", "b", "c"} & set(host.may_run.values()):
        outcome = told(host, guest)
        assert outcome.state == "running"
        assert outcome.cores == tuple(sorted(core for core, other in host.may_run.items() if other == guest))
        assert outcome.until is not None
        assert outcome.until - host.now <= 110 * MS
    assert told(host, "web").reasons == ("it is exclusive: cores 2 are its own from start to stop",)


def test_every_guest_before_it_is_named_with_the_reason() -> None:
    host = world(3)
    for number, (owner, priority) in enumerate([("ann", 0), ("bob", 1), ("ann", 0), ("bob", 0)]):
        host.ask(StartGuest(spec=spec(f"g{number}"), owner=owner, priority=priority))
    host.run(5)
    waits = host.scheduler.waits(host.now)
    last = told(host, waits[-1].guest)
    assert last.reasons[0].startswith(f"{len(waits) - 1} guests are served before it: ")
    assert all(f"{wait.guest} (" in last.reasons[0] for wait in waits[:-1])
    assert "class 1, above 0" in last.reasons[0]
    assert told(host, waits[0].guest).reasons[0] == "it is next"


def test_a_guest_that_waits_for_another_ones_stop_is_told_whose() -> None:
    host = world(3, delays=(5 * MS,))
    host.ask(StartGuest(spec=spec("a"), owner="ann"))
    host.ask(StartGuest(spec=spec("b"), owner="ann"))
    host.run(200, stop=lambda: bool(host.scheduler.locks().waiters))
    ((waiter, _),) = host.scheduler.locks().waiters
    (holder,) = set(host.may_run.values())
    assert told(host, waiter).reasons == (f"it is its turn on cores 2, as soon as {holder} confirmed the stop there",)
    assert [entry.guest for entry in told(host, waiter).holders] == [holder]


def test_a_paused_guest_is_told_so_and_a_launched_one() -> None:
    host = world(4)
    host.ask(StartGuest(spec=spec("a"), owner="ann"))
    assert told(host, "a").reasons == ("it is being launched",)
    host.run(50)
    host.ask(PauseGuest("a"))
    host.run(50)
    assert told(host, "a").reasons == ("it was paused and gets no turns until it is resumed",)


def test_a_guest_too_wide_for_what_a_quarantine_leaves_is_told_who_keeps_the_rest() -> None:
    host = world(4)
    host.deaf = {"bad"}
    host.ask(StartGuest(spec=spec("bad"), owner="ann"))
    host.ask(StartGuest(spec=spec("wide", 2), owner="bob"))
    host.run(3000)
    outcome = told(host, "wide")
    assert outcome.latest is None
    assert outcome.reasons[-1] == "it needs 2 cores at once, and the shared pool has 1: bad keeps 2"
    assert "stay locked until its process is gone" in told(host, "bad").reasons[0]


def test_nobody_can_be_told_of_a_guest_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="ghost: there is no such guest"):
        told(world(4), "ghost")


def test_who_is_moved_is_told_whom_it_waits_for_and_what_it_keeps() -> None:
    host = world(8)
    for number in range(3):
        host.ask(StartGuest(spec=spec(f"s{number}"), owner="bob"))
    host.ask(StartGuest(spec=spec("web", exclusive=True), owner="ann"))
    host.run(100)
    (core,) = host.turns("s1")[-1]
    host.ask(MoveGuest("web", (core,)))
    waits = told(host, "web")
    assert (waits.state, waits.cores) == ("moving", host.turns("web")[-1])
    assert waits.reasons == (f"it is moving on cores {core}, as soon as s1 confirmed the stop there",)
    host.run(2)
    moves = told(host, "web")
    assert moves.state == "moving"
    assert moves.reasons[0].startswith("it is moving, and keeps cores ")
    host.run(50)
    assert told(host, "web").state == "running"
