"""The chores process for real: what it was sent survives its sender, the disk's bad days, and who wants it to end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.chores.launcher import ChoresProcess, start_chores
from orchestrator.chores.process import settle
from orchestrator.errors import HostError
from tests.contract.small_disk import DISKS, SmallDisk, small_disk
from tests.functional.chores_side import chores, ended, records, until

CLIENT = """
import os, signal, sys
from pathlib import Path
from orchestrator.chores.launcher import start_chores
process = start_chores(Path(sys.argv[1]), batch_patience=60_000_000_000)
for number in range(500):
    process.client.log({"kind": "start", "number": number})
while process.client.health().queue:
    pass
print(process.pid, process.client.health().sent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_sent_is_durable_though_its_sender_is_killed(tmp_path: Path) -> None:
    client = subprocess.run([sys.executable, "-c", CLIENT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert client.returncode == -signal.SIGKILL
    pid, sent = map(int, client.stdout.split())
    ended(pid)
    assert sent == 500
    assert [record["number"] for record in records(tmp_path / "events.jsonl")[1:]] == list(range(500))


def test_signals_for_the_scheduler_do_not_end_it(tmp_path: Path) -> None:
    with chores(tmp_path) as process:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(process.pid, number)
        process.client.log({"kind": "start"})
        until(lambda: process.client.health().durable == 1)
        assert process.stop()
    assert records(tmp_path / "events.jsonl")[-1] == {"kind": "start"}


def test_it_runs_on_the_service_core_alone_with_ordinary_priority(tmp_path: Path) -> None:
    with chores(tmp_path) as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
    if len(os.sched_getaffinity(0)) > 1:
        assert "\nCpus_allowed_list:\t1\n" in status
        assert process.notes == ()
    else:
        assert process.notes[0].startswith("core 1 cannot be used")
    assert records(tmp_path / "events.jsonl")[0]["notes"] == list(process.notes)


def test_a_host_without_that_core_is_told_and_served_all_the_same() -> None:
    before = os.sched_getaffinity(0)
    (note,) = settle(core=1023)
    assert note.startswith("core 1023 cannot be used (Invalid argument); the chores run on ")
    assert os.sched_getaffinity(0) == before


@contextmanager
def full(disk: SmallDisk, process: ChoresProcess, kind: str) -> Iterator[None]:
    """Let the process write nothing more: to a full disk, or beyond what its files may be long."""
    if kind == "tmpfs":
        with disk.full():
            yield
        return
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (300, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


@DISKS
def test_a_full_disk_is_survived_and_what_did_not_fit_is_counted(kind: str, tmp_path: Path) -> None:
    with small_disk(kind, tmp_path) as disk, chores(disk.path, log_limit=200_000) as process:
        client = process.client
        client.log({"kind": "start", "number": 0})
        until(lambda: client.health().durable == 1)
        with full(disk, process, kind):
            for number in range(1, 101):
                client.log({"kind": "start", "number": number, "text": "x" * 60_000})
            until(lambda: client.health().lost > 0)
            until(lambda: client.health().queue == 0)
            assert client.health().alive
            assert client.health().trouble in ("No space left on device", "File too large")
        until(lambda: client.health().trouble == "")
        client.log({"kind": "stop"})
        until(lambda: client.health().durable + client.health().lost == 102)
        health = client.health()
        assert (health.sent, health.dropped) == (102, 0)
        assert 20 < health.lost < 80
        assert not process.stop()  # something was lost, and that is said
        assert disk.path.joinpath("events.jsonl.1").exists()
        last = records(disk.path / "events.jsonl")
    assert [record["kind"] for record in last[-2:]] == ["lost", "stop"]
    assert last[-2]["count"] == health.lost
    assert last[-2]["why"] in ("No space left on device", "File too large")


def test_a_log_is_set_aside_when_it_is_full(tmp_path: Path) -> None:
    with chores(tmp_path, log_limit=5000, batch_records=10) as process:
        for number in range(200):
            process.client.log({"number": number, "text": "x" * 80})
            process.client.health()
        assert process.stop()
    older, newer = (tmp_path / name for name in ("events.jsonl.1", "events.jsonl"))
    assert newer.stat().st_size <= 5000
    assert 4500 < older.stat().st_size <= 5000
    numbers = [record["number"] for record in records(older) + records(newer)]
    assert numbers == list(range(numbers[0], 200))


def test_a_torn_last_line_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"number":1}\n{"numb')
    with chores(tmp_path) as process:
        process.client.log({"number": 2})
    assert [record.get("number") for record in records(tmp_path / "events.jsonl")] == [1, None, 2]


def test_a_log_that_somebody_removes_is_begun_anew(tmp_path: Path) -> None:
    with chores(tmp_path) as process:
        until((tmp_path / "events.jsonl").exists)
        (tmp_path / "events.jsonl").unlink()
        process.client.log({"number": 1})
    assert records(tmp_path / "events.jsonl")[-1] == {"number": 1}


def test_what_is_no_record_is_dropped_and_counted(tmp_path: Path) -> None:
    with chores(tmp_path) as process:
        for wrong in ({"text": "x" * 70_000}, {"text": "\ud800"}, {"number": 1 << 70}):
            process.client.log(wrong)
        process.client.log({"what": {1, 2}, "who": Path("/x")})  # a set is an array, and all else is told in words
        assert process.client.health().dropped == 3
        until(lambda: process.client.health().durable == 1)
    *told, last = records(tmp_path / "events.jsonl")[1:]
    assert sum(record["count"] for record in told) == 3
    assert last == {"what": [1, 2], "who": "/x"}


@pytest.mark.parametrize("noise", [b"\xc1", b"\x93\xa3log\x01", b"\x92\xa4none\x01", b"\x92\xa3log\x81\xc0\x01"])
def test_noise_is_counted_and_does_no_harm(tmp_path: Path, noise: bytes) -> None:
    with chores(tmp_path) as process:
        process.client._socket.send(noise)
        process.client.watch_serial("../../escape", "/dev/null", 10)
        process.client.log({"number": 1})
        until(lambda: process.client.health().durable == 1)
        assert process.client.health().lost == 1
    assert [record["kind"] for record in records(tmp_path / "events.jsonl")[1:3]] == ["refused", "refused"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl", "serial"]


def test_that_it_died_is_seen_and_nothing_fails_for_it(tmp_path: Path) -> None:
    process = start_chores(tmp_path, queue=3)
    os.kill(process.pid, signal.SIGKILL)
    ended(process.pid)
    for number in range(5):
        process.client.log({"number": number})
    process.client.watch_serial("a", "/none", 1)
    health = process.client.health()
    assert (health.alive, health.sent, health.queue, health.dropped) == (False, 0, 3, 2)
    assert not process.stop()


def test_a_successor_waits_until_its_predecessor_has_kept_everything(tmp_path: Path) -> None:
    with chores(tmp_path) as first:
        found: list[ChoresProcess] = []
        second = threading.Thread(target=lambda: found.append(start_chores(tmp_path)))
        second.start()
        first.client.log({"number": 1})
        until(lambda: first.client.health().durable == 1)
        assert not found
        assert first.stop()
        second.join()
    found[0].client.log({"number": 2})
    assert found[0].stop()
    assert [record.get("number") for record in records(tmp_path / "events.jsonl")] == [None, 1, None, 2]


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file: logs cannot be kept there: File exists; make room or give access"):
        start_chores(tmp_path / "file")
    with pytest.raises(HostError, match="file/logs: logs cannot be kept there: Not a directory; make room"):
        start_chores(tmp_path / "file" / "logs")
