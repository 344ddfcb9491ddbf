"""A guest's life as its user sees it: one table of states and events for every architecture, and its diagram.

It may not act, wait or know the time. What the scheduler's books need for decisions is a `snapshot.Standing`, and where
a guest is between two turns is a `handover.Phase`; `state_of` says what a user calls the two together. A life goes
beyond them at both ends: the books know nothing of a guest that waits to be restarted, or that has ended.

A user's pause and the end of a turn both stop the vCPUs, and are not the same: only the one that a user asked for is
`PAUSED`, only a user ends it, and nobody's share of the cores suffers from it.

Trouble of every kind leads to `FAILED`, with all that is known of it. What follows there is for the definition
(`model.OnCrash`) and for `restarts` to say: the guest is `KEPT`, has to `BACK_OFF`, or is `GIVEN_UP`; the process is
ended first, except for a guest that is kept. From when trouble is noticed, it gets no turns: QEMU's ``cont`` would let
a guest that has panicked, or that its watchdog has paused, run on as if nothing had been (measured, QEMU 7.2).

All calls are O(1), `diagram` is linear in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from orchestrator.core.acts import Phase
from orchestrator.core.snapshot import Standing
from orchestrator.errors import ImpossibleTransitionError


class State(StrEnum):
    """What a user sees. A life begins with `STARTING` and ends with `STOPPED`; another start is another life.

    A guest that is `WAITING` or `RUNNING` has its turns. One that is `FAILED` is being cleared away, and its cores are
    still its own; `CRASHED_KEPT` stands still with its memory, for inspection; `BACKING_OFF` has no process.
    """

    STARTING = "starting"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    CRASHED_KEPT = "crashed-kept"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happens to a guest; an act has happened when it is confirmed.

    `LAUNCHED`: a shared guest takes turns from now on (an exclusive one has its one turn, which begins).
    `RESUME`, `STOP_ASKED`, `KILLED`: a plan for it has begun; `PAUSE`: it has been carried out.
    `GRACE_OVER`: it has not shut down in time, and is ended by force, as it is when it is `KILLED`.
    `PROCESS_GONE`: it has shut down of itself, was ended as it was to be, or by somebody else on purpose.
    `PANICKED`: as its panic device says. `WATCHDOG_FIRED`: and did not just reset it, which counts as a reboot.
    `QEMU_CRASHED`: its process has ended and nothing told why. `REBOOT_LOOP`, `SILENT`: see `restarts`.
    `DID_NOT_CONFIRM`: QEMU did not obey in time, or nobody knows whether it did.
    `KEPT`, `BACK_OFF`, `GIVEN_UP`: what follows trouble; `GIVEN_UP` also where the definition says stop, where a first
    launch has failed, and where nothing is left to keep.
    `DISCARDED`: its user has no more use for what was kept, or does not want it restarted.
    """

    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch failed"
    TURN_BEGINS = "turn begins"
    TURN_ENDS = "turn ends"
    PAUSE = "pause"
    RESUME = "resume"
    STOP_ASKED = "stop asked"
    GRACE_OVER = "grace over"
    KILLED = "killed"
    PROCESS_GONE = "process gone"
    PANICKED = "panicked"
    WATCHDOG_FIRED = "watchdog fired"
    QEMU_CRASHED = "QEMU crashed"
    REBOOT_LOOP = "reboot loop"
    SILENT = "silent"
    DID_NOT_CONFIRM = "did not confirm"
    KEPT = "kept"
    BACK_OFF = "back off"
    RESTART_DUE = "restart due"
    GIVEN_UP = "given up"
    DISCARDED = "discarded"


HAS_TURNS = frozenset({State.WAITING, State.RUNNING})
"""The states of a guest that is up and whose user wants it so: only then can it be silent."""

TROUBLE = frozenset(
    {Event.PANICKED, Event.WATCHDOG_FIRED, Event.QEMU_CRASHED, Event.REBOOT_LOOP, Event.SILENT, Event.LAUNCH_FAILED}
)
"""The events after which the definition says what follows; a quarantine ends in the same way."""

_LATE = (Event.PANICKED, Event.WATCHDOG_FIRED, Event.REBOOT_LOOP)
"""Two channels tell of a guest, QEMU's monitor and libvirt: the slower one may tell what is settled already."""

_BREAKS = (Event.QEMU_CRASHED, *_LATE)
_ENDS = (Event.PROCESS_GONE, Event.QEMU_CRASHED)

_ROWS: Mapping[State, Mapping[State, tuple[Event, ...]]] = {
    State.STARTING: {
        State.WAITING: (Event.LAUNCHED,),
        State.RUNNING: (Event.TURN_BEGINS,),
        State.FAILED: (Event.LAUNCH_FAILED, *_BREAKS),
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: (Event.PROCESS_GONE,),
    },
    State.WAITING: {
        State.RUNNING: (Event.TURN_BEGINS,),
        State.PAUSED: (Event.PAUSE,),
        State.STOPPING: (Event.STOP_ASKED, Event.KILLED),
        State.FAILED: (*_BREAKS, Event.SILENT),
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: (Event.PROCESS_GONE,),
    },
    State.RUNNING: {
        State.WAITING: (Event.TURN_ENDS,),
        State.PAUSED: (Event.PAUSE,),
        State.STOPPING: (Event.STOP_ASKED, Event.KILLED),
        State.FAILED: (*_BREAKS, Event.SILENT),
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: (Event.PROCESS_GONE,),
    },
    State.PAUSED: {
        State.PAUSED: (Event.TURN_ENDS,),
        State.WAITING: (Event.RESUME,),
        State.STOPPING: (Event.STOP_ASKED, Event.KILLED),
        State.FAILED: _BREAKS,
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: (Event.PROCESS_GONE,),
    },
    State.STOPPING: {  # its turns go on: it shuts down by itself
        State.STOPPING: (Event.TURN_BEGINS, Event.TURN_ENDS, Event.GRACE_OVER, Event.KILLED, *_LATE),
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: _ENDS,
    },
    State.QUARANTINED: {
        State.QUARANTINED: (Event.TURN_ENDS, Event.KILLED, *_LATE),
        State.FAILED: _ENDS,
    },
    State.FAILED: {
        State.FAILED: (Event.TURN_BEGINS, Event.TURN_ENDS, *_ENDS, *_LATE),
        State.CRASHED_KEPT: (Event.KEPT,),
        State.BACKING_OFF: (Event.BACK_OFF,),
        State.QUARANTINED: (Event.DID_NOT_CONFIRM,),
        State.STOPPED: (Event.GIVEN_UP,),
    },
    State.CRASHED_KEPT: {
        State.CRASHED_KEPT: (Event.TURN_ENDS, *_LATE),
        State.STOPPING: (Event.DISCARDED,),
        State.STOPPED: _ENDS,
    },
    State.BACKING_OFF: {
        State.STARTING: (Event.RESTART_DUE,),
        State.STOPPED: (Event.DISCARDED,),
    },
    State.STOPPED: {},
}

TABLE: Mapping[tuple[State, Event], State] = MappingProxyType(
    {(state, event): then for state, row in _ROWS.items() for then, events in row.items() for event in events}
)
"""What each event makes of a guest in each state. A pair that is not here cannot happen."""


def after(state: State, event: Event) -> State:
    """Return the state that an event leads to.

    Raises ImpossibleTransitionError, which names both, for a pair that is not in the table: who came to it is wrong.
    """
    then = TABLE.get((state, event))
    if then is None:
        raise ImpossibleTransitionError(state, event)
    return then


def state_of(standing: Standing, phase: Phase | None) -> State:
    """Return the state of a guest that is in the scheduler's books, by its standing and its phase there.

    After trouble it is `FAILED` or `CRASHED_KEPT`, whatever stands in the books: that is for their reader to remember.
    """
    match standing:
        case Standing.PAUSED:
            return State.PAUSED
        case Standing.STOPPING:
            return State.STOPPING
        case Standing.QUARANTINED:
            return State.QUARANTINED
        case _ if phase in (Phase.RUNNING, Phase.SUSPENDING):
            return State.RUNNING
        case Standing.STARTING:
            return State.STARTING
        case _:
            return State.WAITING


def diagram() -> str:
    """Return the table as Mermaid's stateDiagram-v2: a picture where that is drawn, a list of arrows elsewhere.

    What leaves a state as it is, is left out.
    """
    arrows = {
        (state, then): events for state, row in _ROWS.items() for then, events in row.items() if then is not state
    }
    names = {state: state.replace("-", "_") for state in State}
    width = max(len(f"{names[state]} --> {names[then]}") for state, then in arrows)
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state}" as {name}' for state, name in names.items() if name != state]
    lines.append(f"    [*] --> {names[State.STARTING]}")
    for (state, then), events in arrows.items():
        lines.append(f"    {f'{names[state]} --> {names[then]}':{width}} : {', '.join(events)}")
    lines.append(f"    {names[State.STOPPED]} --> [*]")
    return "\n".join(lines) + "\n"
