"""The lifecycle table: what leads where, that nothing is a dead end, and that a scheduler's guests live by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.acts import Phase
from orchestrator.core.lifecycle import HAS_TURNS, TABLE, TROUBLE, Event, State, after, diagram, state_of
from orchestrator.core.orders import Happening, Notice
from orchestrator.core.plan import PauseGuest, Plan, Request, ResumeGuest, StartGuest, StopGuest
from orchestrator.core.snapshot import Standing
from orchestrator.errors import ImpossibleTransitionError, OrchestratorError
from tests.unit.scheduler_world import MS, World, spec, world

README = Path(__file__).parents[2] / "domains" / "README.md"


def reached(start: State, without: Iterable[Event] = ()) -> set[State]:
    """Return the states that a guest can come to, its present one included, if these events never happen."""
    never, found, fresh = set(without), {start}, [start]
    while fresh:
        state = fresh.pop()
        then = {to for (of, event), to in TABLE.items() if of is state and event not in never} - found
        found |= then
        fresh += then
    return found


def lived(*events: Event) -> State:
    state = State.STARTING
    for event in events:
        state = after(state, event)
    return state


def test_every_state_and_every_event_happens() -> None:
    assert reached(State.STARTING) == set(State)
    assert {event for _, event in TABLE} == set(Event)


@pytest.mark.parametrize("state", State)
def test_every_life_can_end(state: State) -> None:
    assert State.STOPPED in reached(state)


def test_nothing_happens_to_a_guest_that_has_stopped() -> None:
    assert reached(State.STOPPED) == {State.STOPPED}


def test_what_cannot_happen_is_a_defect_that_names_state_and_event() -> None:
    with pytest.raises(
        ImpossibleTransitionError, match="a guest that is stopped cannot come to 'turn begins'"
    ) as caught:
        after(State.STOPPED, Event.TURN_BEGINS)
    assert (caught.value.state, caught.value.event) == (State.STOPPED, Event.TURN_BEGINS)
    assert not isinstance(caught.value, OrchestratorError)  # which is what the engine takes for the world's fault


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ("launched, turn begins, turn ends", State.WAITING),
        ("turn begins", State.RUNNING),  # an exclusive guest
        ("launched, turn begins, pause, turn ends, resume", State.WAITING),
        ("launched, stop asked, turn begins, turn ends, grace over, process gone", State.STOPPED),
        ("launched, turn begins, process gone", State.STOPPED),  # it shut down
        ("launched, turn begins, panicked, turn ends, process gone, back off, restart due", State.STARTING),
        ("launched, turn begins, panicked, kept, discarded, process gone", State.STOPPED),
        ("launched, silent, process gone, given up", State.STOPPED),
        ("turn begins, did not confirm, killed, turn ends, process gone, back off, discarded", State.STOPPED),
        ("launch failed, back off, restart due, launch failed, given up", State.STOPPED),
    ],
)
def test_lives(events: str, end: State) -> None:
    assert lived(*map(Event, events.split(", "))) is end


def test_a_users_pause_is_no_preemption() -> None:
    """Only its user lets a paused guest go on; a preempted one goes on without."""
    assert HAS_TURNS.isdisjoint(reached(State.PAUSED, without={Event.RESUME, Event.RESTART_DUE}))
    assert State.RUNNING in reached(State.WAITING, without={Event.RESUME, Event.RESTART_DUE})


def test_only_a_guest_that_has_its_turns_can_be_silent() -> None:
    assert {state for state, event in TABLE if event is Event.SILENT} == HAS_TURNS


@pytest.mark.parametrize("event", sorted(TROUBLE - {Event.LAUNCH_FAILED}))
@pytest.mark.parametrize("state", sorted(HAS_TURNS))
def test_after_trouble_a_guest_runs_only_when_it_is_restarted(state: State, event: Event) -> None:
    assert after(state, event) is State.FAILED
    assert HAS_TURNS.isdisjoint(reached(State.FAILED, without={Event.RESTART_DUE}))


def test_a_guest_that_is_stopped_is_never_restarted() -> None:
    """Whatever happens on its way down, but that QEMU does not obey: then what follows must be said anew."""
    assert reached(State.STOPPING, without={Event.DID_NOT_CONFIRM}) == {State.STOPPING, State.STOPPED}


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("phase", [*Phase, None])
def test_a_guest_in_the_books_is_running_while_it_is_on_its_cores_and_nobody_told_it_more(
    standing: Standing, phase: Phase | None
) -> None:
    told = {Standing.PAUSED, Standing.STOPPING, Standing.QUARANTINED}
    state = state_of(standing, phase)
    if standing in told:
        assert state == standing.value
    else:
        assert (state is State.RUNNING) == (phase in (Phase.RUNNING, Phase.SUSPENDING))
        assert state in {State.STARTING, *HAS_TURNS}


# The diagram.


def test_the_readme_has_the_diagram_of_the_table() -> None:
    _, _, rest = README.read_text().partition("<!-- lifecycle: core/lifecycle.py, diagram() -->\n```mermaid\n")
    drawn, found, _ = rest.partition("```\n<!-- lifecycle end -->")
    assert found, "domains/README.md has no place for the lifecycle's diagram"
    assert drawn == diagram(), "domains/README.md: put in what orchestrator.core.lifecycle.diagram() returns"


def test_the_diagram_draws_every_change_once() -> None:
    drawn = []
    for line in diagram().splitlines():
        arrow, colon, events = line.partition(" : ")
        if colon:
            state, then = (State(name.strip().replace("_", "-")) for name in arrow.split("-->"))
            drawn += [((state, Event(event)), then) for event in events.split(", ")]
    assert len(drawn) == len(set(drawn))
    assert dict(drawn) == {pair: then for pair, then in TABLE.items() if pair[0] is not then}


# The scheduler's guests.

AFTERWARDS = {StartGuest: Event.LAUNCHED, PauseGuest: Event.PAUSE, StopGuest: Event.PROCESS_GONE}
AT_ONCE = {StopGuest: Event.STOP_ASKED, ResumeGuest: Event.RESUME}
TURNS = {Happening.TURN_BEGAN: Event.TURN_BEGINS, Happening.TURN_ENDED: Event.TURN_ENDS}


@dataclass
class Chronicle:
    """Follows the guests of a scheduler by what it is asked and what it tells, as an engine does."""

    host: World
    step: Callable[[State, Event], State] = after
    states: dict[str, State] = field(default_factory=dict)
    asked: dict[str, Request] = field(default_factory=dict)
    read: int = 0

    def ask(self, request: Request) -> None:
        outcome = self.host.ask(request)
        if isinstance(outcome, Plan) and outcome.steps:
            self.asked[request.guest] = request
            if isinstance(request, StartGuest):
                self.states[request.guest] = State.STARTING
            elif type(request) in AT_ONCE:
                self.note(request.guest, AT_ONCE[type(request)])
        self.follow()

    def follow(self) -> None:
        fresh, self.read = self.host.notices[self.read :], len(self.host.notices)
        for notice in fresh:
            for event in self.events(notice):
                self.note(notice.guest, event)

    def events(self, notice: Notice) -> list[Event]:
        state = self.states.get(notice.guest)
        match notice.what:
            case Happening.TURN_BEGAN | Happening.TURN_ENDED:
                return [TURNS[notice.what]]
            case Happening.DONE if state is not State.RUNNING and type(self.asked[notice.guest]) in AFTERWARDS:
                return [AFTERWARDS[type(self.asked[notice.guest])]]
            case Happening.UNDONE:
                return [Event.LAUNCH_FAILED, Event.GIVEN_UP]
            case Happening.QUARANTINED:
                return [Event.DID_NOT_CONFIRM]
            case Happening.GONE:
                return [Event.QEMU_CRASHED, Event.GIVEN_UP]
        return []

    def note(self, guest: str, event: Event) -> None:
        self.states[guest] = self.step(self.states[guest], event)

    def differs(self, view: Callable[[Standing, Phase | None], State] = state_of) -> list[str]:
        """Return what the scheduler's books say otherwise."""
        books = {
            name: view(known.standing, self.host.scheduler.phase(name))
            for name, known in self.host.scheduler.snapshot(self.host.now).guests.items()
        }
        lives = {name: state for name, state in self.states.items() if state is not State.STOPPED}
        names = sorted({*lives, *books})
        return [f"{name}: {lives.get(name)}, {books.get(name)}" for name in names if lives.get(name) != books.get(name)]


REQUESTS: dict[str, Callable[[str], Request]] = {"stop": StopGuest, "pause": PauseGuest, "resume": ResumeGuest}
ACTS = st.tuples(
    st.sampled_from(["start", "start", "start", *REQUESTS, "pause", "resume", "crash", "deaf", "unlucky"]),
    st.sampled_from([0, 1, 3, 40, 113]),
    st.integers(0, 5),
    st.sampled_from([False, False, True]),
)


def chronicled(acts: Iterable[tuple[str, int, int, bool]], step: Callable[[State, Event], State] = after) -> list[str]:
    """Let acts happen, each so many milliseconds after the one before; return where life and books differ."""
    chronicle, found = Chronicle(world(5, delays=[2 * MS, 5 * MS]), step), []
    host = chronicle.host
    for kind, wait, number, exclusive in [*acts, ("", 9000, 0, False)]:
        host.run(wait)
        chronicle.follow()
        name = f"g{number}"
        if kind in REQUESTS and host.scheduler.knows(name):
            chronicle.ask(REQUESTS[kind](name))
        elif kind == "start":
            host.unlucky.discard(name)
            host.deaf.discard(name)
            chronicle.ask(StartGuest(spec=spec(name, number % 2 + 1, exclusive=exclusive), owner="o"))
        elif kind == "crash":
            host.crash(name)
            chronicle.follow()
        elif kind in ("deaf", "unlucky"):
            getattr(host, kind).add(name)
        found += chronicle.differs()
    return found


@settings(deadline=None, max_examples=25)
@given(st.lists(ACTS, max_size=15))
def test_the_scheduler_brings_no_guest_to_what_cannot_happen_and_its_books_agree(
    acts: list[tuple[str, int, int, bool]],
) -> None:
    assert chronicled(acts) == []


STORY = [("start", 0, 0, False), ("start", 3, 1, True), ("pause", 113, 0, False), ("deaf", 3, 1, False)]


def test_a_life_in_which_a_pause_is_a_preemption_differs_from_the_books() -> None:
    def flawed(state: State, event: Event) -> State:
        return State.WAITING if event is Event.PAUSE else after(state, event)

    assert chronicled(STORY) == []
    assert set(chronicled(STORY, flawed)) == {"g0: waiting, paused"}
