"""The guard's parts on real processes: whom it finds and hits, whom it obeys, and what it sees of the scheduler."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.consoles import Process
from orchestrator.core.emergency import Act, Request, Standing, decode_reply, encode_request
from orchestrator.core.journal import Record
from orchestrator.errors import HostError
from orchestrator.guard.acts import Acts, Surroundings
from orchestrator.guard.callers import Caller, caller
from orchestrator.guard.console import Console
from orchestrator.guard.guests import Guests, cores_of, has_ended, send, stands_still
from orchestrator.guard.starter import Starter
from orchestrator.guard.watch import Command, Watch
from orchestrator.host.guard_book import GuardBook, last_records
from orchestrator.host.heartbeat import Heart, Listener
from orchestrator.host.journal_file import JournalFile
from tests.fakes.journal import FakeJournal

MARK = f"a mark that no other process has, {os.getpid()}"
UUID = "33333333-3333-4333-8333-333333333333"
PATIENCE = 60.0


@contextmanager
def lookalike(name: str = "web", mark: str = MARK) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps, with the arguments of a guest of ours."""
    program = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    arguments = ["-name", f"guest={name},debug-threads=on", "-uuid", UUID, "-mon", mark]
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        try:
            yield process
        finally:
            process.kill()


def guests(owner: str = "eve") -> Guests:
    return Guests(MARK, lambda _name, _uuid: owner)


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


# Who is found, and hit.


def test_only_guests_of_ours_are_found_by_name_owner_and_core() -> None:
    with lookalike() as process, lookalike(mark="another's") as other:
        found = guests()
        found.look()
        (guest,) = found.all()
        assert (guest.name, guest.uuid, guest.pid, guest.owner) == ("web", UUID, process.pid, "eve")
        assert found.chosen(["web"], "") == found.chosen([], "eve") == [guest]
        assert found.chosen(["db"], "") == found.chosen([], "bob") == []
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, {core})
        assert cores_of(process.pid) == {core}
        assert found.on([core]) == [guest]
        assert found.on([4096]) == []
        assert other.poll() is None


def test_one_that_is_new_is_found_when_it_is_asked_for() -> None:
    found = guests()
    found.look()
    with lookalike() as process:
        assert [guest.pid for guest in found.chosen(["web"], "")] == [process.pid]


def test_guests_of_another_folder_are_not_ours() -> None:
    with lookalike():
        found = Guests(MARK, lambda _name, _uuid: "", below="/run/elsewhere")
        found.look()
        assert found.all() == []


def in_its_place(pid: int) -> subprocess.Popen[bytes] | None:
    """Start a process that has the number of one that has ended; None if somebody else was faster."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    process = subprocess.Popen(["sleep", "600"])
    if process.pid == pid:
        return process
    process.kill()
    process.wait()
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root says which number the next process gets")
def test_a_number_that_another_process_has_now_is_never_hit() -> None:
    for _ in range(50):
        found = guests()
        with lookalike() as process:
            found.look()
            (guest,) = found.all()
        heir = in_its_place(process.pid)
        if heir is not None:
            break
    else:
        pytest.skip("processes begin so fast here that the number was never free")
    try:
        assert found.all() == []
        send([guest], signal.SIGKILL)
        found.look()
        assert found.chosen(["web"], "") == []
        assert heir.poll() is None
    finally:
        heir.kill()
        heir.wait()


# Who is obeyed, and what is done.

INIT = Process(pid=1, parent=0, session=1, terminal=0, began=1, uid=0, effective=0, program="init")
SHELL = replace(INIT, pid=60, parent=1, session=60, terminal=4 << 8 | 1, program="bash")
ROOT_AT_CONSOLE = Caller(60, 0, (SHELL, INIT), remote=False)
IN_A_PTY = Caller(61, 0, (replace(SHELL, terminal=136 << 8), INIT), remote=False)


class Full(FakeJournal):
    """Takes nothing."""

    def append(self, kind: str, body: Mapping[str, Any], at: int) -> Record:  # noqa: ARG002 (the port's)
        raise HostError("no room")


def acts_on(found: Guests, journal: FakeJournal, records: list[Record]) -> Acts:
    around = Surroundings(
        wall=lambda: 5_000_000_000,
        recorded=records.append,
        consoles=tuple,
        reserved=frozenset({0, 1}),
        heart=lambda: "alive",
        tail=lambda most: records[-most:],
    )
    return Acts(journal, found, Standing(), around)


def test_what_is_done_was_recorded_before() -> None:
    records: list[Record] = []
    with lookalike() as process:
        found = guests()
        acts = acts_on(found, FakeJournal(), records)
        frozen = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.FREEZE, reason="look", guests=("web",)))
        assert (frozen.code, "frozen" in frozen.lines[0]) == (0, True)
        assert stands_still(process.pid)
        status = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.STATUS))
        assert status.data["guests"][0]["frozen"] is True
        assert acts.obey(ROOT_AT_CONSOLE, Request(act=Act.THAW, reason="go", user="eve")).code == 0
        eventually(lambda: not stands_still(process.pid))
        ended = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="enough", guests=("web",)))
        assert (ended.code, ended.data["guests"]) == (0, ["web"])
        assert f"web (process {process.pid}, of eve): ended; cores " in ended.lines[0]
        assert process.wait() == -signal.SIGKILL
    assert [record.kind for record in records] == ["freeze", "thaw", "kill"]
    target = records[-1].body["guests"][0]
    assert (target["name"], target["pid"], target["owner"]) == ("web", process.pid, "eve")
    assert records[-1].body["by"]["terminal"] == "tty1"
    told = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.JOURNAL, last=1))
    assert told.lines[0].endswith("kill web (enough)")


def test_what_cannot_be_recorded_is_not_done() -> None:
    with lookalike() as process:
        acts = acts_on(guests(), Full(), [])
        refused = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="enough", guests=("web",)))
        assert (refused.code, refused.lines) == (4, ("no room",))
        assert process.poll() is None


def test_a_name_that_nobody_has_does_nothing_to_anybody() -> None:
    records: list[Record] = []
    with lookalike() as process:
        acts = acts_on(guests(), FakeJournal(), records)
        missing = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="x", guests=("web", "db")))
        assert (missing.code, "no guest of this host is called db" in missing.lines[0]) == (2, True)
        reserved = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.RECLAIM, reason="x", cores=(1, 9)))
        assert (reserved.code, "cores 1 are no guest's" in reserved.lines[0]) == (2, True)
        nobody = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="x", user="bob"))
        assert nobody.lines == ("kill: there is no guest of bob",)
        assert process.poll() is None
    assert records == []


def test_tries_are_recorded_until_they_would_fill_the_journal() -> None:
    records: list[Record] = []
    acts = acts_on(guests(), FakeJournal(), records)
    for _ in range(100):
        refused = acts.obey(IN_A_PTY, Request(act=Act.LOCKDOWN, reason="mine"))
        assert (refused.code, "which is no console of this machine" in refused.lines[0]) == (3, True)
    assert 20 <= len(records) < 100
    assert {record.kind for record in records} == {"refused"}
    assert acts.standing.lockdown is None


def test_bans_and_lockdown_hold_for_the_scheduler_as_they_are_recorded(tmp_path: Path) -> None:
    path, records = tmp_path / "guard.jsonl", list[Record]()
    book = GuardBook(path)
    assert (book.news(), book.barred("eve", 0)) == ([], "")
    with contextlib.closing(JournalFile(path)) as journal:
        acts = Acts(journal, guests(), Standing(), acts_on(guests(), FakeJournal(), records)._around)
        acts.obey(ROOT_AT_CONSOLE, Request(act=Act.BAN, reason="coins", user="eve", seconds=60))
        assert book.barred("eve", 64_000_000_000) == "eve is banned by the emergency console: coins"
        assert book.barred("eve", 65_000_000_000) == book.barred("bob", 0) == ""
        acts.obey(ROOT_AT_CONSOLE, Request(act=Act.LOCKDOWN, reason="fire"))
        assert book.barred("bob", 0) == "lockdown by the emergency console: fire"
        acts.obey(ROOT_AT_CONSOLE, Request(act=Act.LIFT, reason="out"))
        assert [record.kind for record in book.news()] == ["lift"]
        assert book.news() == []
        assert book.head == journal.head
    assert [record.kind for record in last_records(path, 2)] == ["lockdown", "lift"]
    assert GuardBook(tmp_path / "none").news() == last_records(tmp_path / "none", 2) == []
    with path.open("ab") as file:
        file.write(b"no record\n")
    again = GuardBook(path)
    assert len(again.news()) == 3
    assert again.standing == acts.standing


# The socket.


@contextmanager
def listening(path: Path, acts: Acts) -> Iterator[None]:
    console = Console(path, acts)
    thread = threading.Thread(target=console.serve)
    thread.start()
    try:
        yield
    finally:
        console.stop()
        thread.join()
        console.close()


def asked(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            connection.send(data)
        return connection.recv(65536)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone is listened to")
def test_this_very_process_is_no_console_and_noise_is_answered(tmp_path: Path) -> None:
    records: list[Record] = []
    path = tmp_path / "guard" / "socket"
    with listening(path, acts_on(guests(), FakeJournal(), records)):
        assert decode_reply(asked(path, b"noise")).code == 2
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.connect(str(path))  # nobody waits for it
            assert decode_reply(asked(path, encode_request(Request(act=Act.LOCKDOWN, reason="x")))).code == 3
    assert [record.kind for record in records] == ["refused"]
    assert records[0].body["by"]["pid"] == os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes others")
def test_who_is_not_root_is_answered_before_he_has_asked() -> None:
    records: list[Record] = []
    program = (
        "import os, socket, sys; os.setresuid(65534, 65534, 65534); "
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])\n"
        "try: s.send(b'x' * 1000)\n"
        "except BrokenPipeError: pass\n"
        "print(s.recv(65536).decode())"
    )
    with tempfile.TemporaryDirectory() as folder:  # others may not pass through a test's own
        Path(folder).chmod(0o711)
        path = Path(folder) / "guard" / "socket"
        knock(path, records, program)
    assert records[0].body["why"] == "user 65534 is not root"


def knock(path: Path, records: list[Record], program: str) -> None:
    with listening(path, acts_on(guests(), FakeJournal(), records)):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, str(path)], capture_output=True, text=True, check=True
        )
    assert json.loads(done.stdout)["code"] == 3


def test_a_process_that_began_after_the_connection_is_nobody() -> None:
    mine = caller(os.getpid(), os.geteuid(), 1 << 62)
    assert [each.pid for each in mine.line][:2] == [os.getpid(), os.getppid()]
    assert mine.line[-1].parent == 0
    assert caller(os.getpid(), os.geteuid(), 0).line == ()
    assert caller(os.getpid(), os.geteuid() + 1, 1 << 62).line == ()
    assert caller(2**22 + 1, 0, 1 << 62).line == ()


# The scheduler.

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
