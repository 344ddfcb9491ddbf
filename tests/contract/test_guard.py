"""The guard's parts on real processes: whom it finds and hits, and whom it obeys."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.core.emergency import Act, Request, decode_reply, encode_request
from orchestrator.guard.acts import Acts
from orchestrator.guard.callers import caller
from orchestrator.guard.console import Console
from orchestrator.guard.guests import Guests, cores_of, send, stands_still
from orchestrator.host.guard_book import GuardBook, last_records
from orchestrator.host.journal_file import JournalFile
from tests.contract.guard_parts import (
    IN_A_PTY,
    MARK,
    PATIENCE,
    ROOT_AT_CONSOLE,
    UUID,
    acts_on,
    eventually,
    guests,
    lookalike,
)
from tests.fakes.journal import FakeJournal
from tests.fakes.reserve import FakeReserve

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


def test_what_is_done_was_recorded_before() -> None:
    journal = FakeJournal()
    with lookalike() as process, acts_on(guests(), journal) as acts:
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
        assert [record.kind for record in journal.records] == ["freeze", "thaw", "kill"]
        target = journal.records[-1].body["guests"][0]
        assert (target["name"], target["pid"], target["owner"]) == ("web", process.pid, "eve")
        assert journal.records[-1].body["by"]["terminal"] == "tty1"
        told = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.JOURNAL, last=1))
        assert told.lines[0].endswith("kill web (enough)")


def test_what_cannot_be_recorded_is_not_done() -> None:
    journal = FakeJournal()
    journal.full = True
    with lookalike() as process, acts_on(guests(), journal, FakeReserve(room=0)) as acts:
        refused = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="enough", guests=("web",)))
        assert (refused.code, "the reserve is used up, too" in refused.lines[0]) == (4, True)
        assert process.poll() is None
    assert journal.records == []


def test_a_name_that_nobody_has_does_nothing_to_anybody() -> None:
    journal = FakeJournal()
    with lookalike() as process, acts_on(guests(), journal) as acts:
        missing = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="x", guests=("web", "db")))
        assert (missing.code, "no guest of this host is called db" in missing.lines[0]) == (2, True)
        reserved = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.RECLAIM, reason="x", cores=(1, 9)))
        assert (reserved.code, "cores 1 are no guest's" in reserved.lines[0]) == (2, True)
        nobody = acts.obey(ROOT_AT_CONSOLE, Request(act=Act.KILL, reason="x", user="bob"))
        assert nobody.lines == ("kill: there is no guest of bob",)
        assert process.poll() is None
    assert journal.records == []


def test_tries_are_recorded_until_they_would_fill_the_journal() -> None:
    journal = FakeJournal()
    with acts_on(guests(), journal) as acts:
        for _ in range(100):
            refused = acts.obey(IN_A_PTY, Request(act=Act.LOCKDOWN, reason="mine"))
            assert (refused.code, "which is no console of this machine" in refused.lines[0]) == (3, True)
    assert 20 <= len(journal.records) < 100
    assert {record.kind for record in journal.records} == {"refused"}
    assert acts.standing.lockdown is None


def test_bans_and_lockdown_hold_for_the_scheduler_as_they_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "guard.jsonl"
    book = GuardBook(path)
    assert (book.news(), book.barred("eve", 0)) == ([], "")
    with contextlib.closing(JournalFile(path)) as journal, acts_on(guests(), journal) as acts:
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
    journal, path = FakeJournal(), tmp_path / "guard" / "socket"
    with acts_on(guests(), journal) as acts, listening(path, acts):
        assert decode_reply(asked(path, b"noise")).code == 2
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.connect(str(path))  # nobody waits for it
            assert decode_reply(asked(path, encode_request(Request(act=Act.LOCKDOWN, reason="x")))).code == 3
    assert [record.kind for record in journal.records] == ["refused"]
    assert journal.records[0].body["by"]["pid"] == os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes others")
def test_who_is_not_root_is_answered_before_he_has_asked() -> None:
    journal = FakeJournal()
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
        knock(path, journal, program)
    assert journal.records[0].body["why"] == "user 65534 is not root"


def knock(path: Path, journal: FakeJournal, program: str) -> None:
    with acts_on(guests(), journal) as acts, listening(path, acts):
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
