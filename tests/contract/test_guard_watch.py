"""What the guard sees of the scheduler and of where guests may run, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import HostError
from orchestrator.guard.guests import has_ended
from orchestrator.guard.starter import Starter
from orchestrator.guard.watch import Command, Watch
from orchestrator.host.heartbeat import Heart, Listener
from tests.contract.guard_parts import eventually, guests, lookalike

BEATS = """
import sys, time
from pathlib import Path
from orchestrator.host.heartbeat import Heart
heart = Heart(Path(sys.argv[1]))
for _ in range(6000):
    heart.beat()
    time.sleep(0.05)
"""


@contextmanager
def beating(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BEATS, str(path)]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_scheduler_that_hangs_is_told_of_and_started_anew_if_that_is_wished(tmp_path: Path) -> None:
    path, told, started = tmp_path / "beat", list[str](), list[Command]()
    records: list[tuple[str, Mapping[str, object]]] = []
    watch = Watch(
        guests(),
        Listener(path).last,
        told.append,
        frozenset({0, 1}),
        record=lambda kind, body: records.append((kind, body)),
        start=started.append,
        patience=lambda: 2.0,
    )

    def tells(what: str) -> None:
        def felt() -> bool:
            watch.feel()
            return bool(told) and what in told[-1]

        eventually(felt)

    assert watch.heard == "absent"
    with beating(path) as process:
        tells(f"(process {process.pid}) is there")
        process.send_signal(signal.SIGSTOP)
        tells("hangs: no heartbeat for ")
        process.send_signal(signal.SIGCONT)
        tells("goes on, after ")
        process.send_signal(signal.SIGSTOP)
        tells("was ended, and is started anew")
        assert process.wait() == -signal.SIGKILL
    (command,) = started
    assert list(command.arguments)[-1] == str(path)
    assert command.directory == str(Path.cwd())
    (record,) = records
    assert (record[0], record[1]["pid"]) == ("restart", process.pid)
    tells("has died")


def test_what_the_starter_starts_obeys_signals_and_outlives_it(tmp_path: Path) -> None:
    starter = Starter()
    starter.start(Command([sys.executable, "-c", BEATS, str(tmp_path / "beat")], str(Path.cwd()), dict(os.environ)))
    listener = Listener(tmp_path / "beat")
    eventually(lambda: listener.last() is not None)
    starter.close()
    beat = listener.last()
    assert beat is not None
    handle = os.pidfd_open(beat.pid)
    try:
        assert not has_ended(handle)
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        eventually(lambda: has_ended(handle))
    finally:
        os.close(handle)


def test_a_heart_says_when_it_ends(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "beat")
    assert listener.last() is None
    heart = Heart(tmp_path / "beat")
    first = listener.last()
    assert first is not None
    assert (first.pid, first.ended) == (os.getpid(), False)
    heart.beat()
    heart.end()
    last = listener.last()
    assert last is not None
    assert (last.at >= first.at, last.ended) == (True, True)
    with pytest.raises(HostError, match="heartbeat cannot be there"):
        Heart(tmp_path / "none" / "beat")


def test_a_guest_that_may_run_where_none_may_is_told_of_once() -> None:
    told: list[str] = []
    watch = Watch(
        guests(),
        lambda: None,
        told.append,
        frozenset(range(4096)),
        record=lambda *_: None,
        start=lambda _: None,
        patience=lambda: None,
    )
    with lookalike() as process:
        for _ in range(2):
            watch.look()
    (line,) = told
    assert line.startswith(f"web (process {process.pid}) may run on reserved cores ")
