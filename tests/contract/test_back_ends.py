"""The BackEnds port: the fake and processes agree; and what only processes can get wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from orchestrator.backend_ports import BackEnds
from orchestrator.backends.programs import find
from orchestrator.backends.service import ServiceBackEnds
from orchestrator.core.backends import BackEnd, Kind
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.errors import FailedError, HostError
from tests.fakes.backends import FakeBackEnds
from tests.fakes.host import FakeHost

COMMAND = (sys.executable, "-I", "-m", "orchestrator.backends")
WAITS = BackEnd(name="tpm", kind=Kind.TPM, arguments=("-c", "echo it waits >&2; exec sleep 600"), folder="tpm-state")
OTHER = BackEnd(name="vda", kind=Kind.DISK, arguments=("-c", "trap '' TERM; while :; do sleep 0.1; done"))


class Side(Protocol):
    back_ends: BackEnds
    root: str

    def kill(self, name: str) -> None: ...


@dataclass
class FakeSide:
    host: FakeHost = field(default_factory=FakeHost)
    root: str = "/run/orchestrator/guests"

    def __post_init__(self) -> None:
        self.back_ends: BackEnds = FakeBackEnds(self.host)

    def kill(self, name: str) -> None:
        for each in self.host.back_ends[f"{self.root}/{name}"].values():
            each.ended = True


@dataclass
class RealSide:
    """Shells in place of the programs: they are started, found and ended like these."""

    back_ends: BackEnds
    root: str

    def kill(self, name: str) -> None:
        for pid in self.back_ends.processes(f"{self.root}/{name}").values():
            os.kill(pid or 0, signal.SIGKILL)


def real(root: Path) -> ServiceBackEnds:
    for name in ("one", "two"):
        (root / name).mkdir(exist_ok=True)
    return ServiceBackEnds(root, COMMAND, lambda _: "/bin/sh")


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return FakeSide() if request.param == "fake" else RealSide(real(tmp_path), str(tmp_path))


def until_ended(side: Side, directory: str) -> None:
    for _ in range(300):
        if set(side.back_ends.processes(directory).values()) == {None}:
            return
        time.sleep(0.1)
    pytest.fail("they go on")


def test_what_is_started_is_found_until_it_is_ended(side: Side) -> None:
    one, two = f"{side.root}/one", f"{side.root}/two"

    async def story() -> None:
        await side.back_ends.start(one, None, [WAITS])
        await side.back_ends.start(two, None, [WAITS])
        found = side.back_ends.processes(one)
        assert set(found) == {"tpm"}
        assert found["tpm"] is not None
        await side.back_ends.end(one)
        await side.back_ends.end(one)
        assert side.back_ends.processes(one) == {}
        assert side.back_ends.processes(two)["tpm"] is not None
        await side.back_ends.end(two)

    asyncio.run(story())


def test_what_ended_by_itself_is_known_to_have_been_there(side: Side) -> None:
    directory = f"{side.root}/one"

    async def story() -> None:
        await side.back_ends.start(directory, None, [WAITS])
        side.kill("one")
        until_ended(side, directory)
        assert side.back_ends.last_words(directory)
        await side.back_ends.end(directory)

    asyncio.run(story())


def test_a_sweep_ends_those_of_guests_that_are_not_to_be_kept(side: Side) -> None:
    async def story() -> None:
        for name in ("one", "two"):
            await side.back_ends.start(f"{side.root}/{name}", None, [WAITS])
        (line,) = await side.back_ends.sweep([f"{side.root}/two"])
        assert line.startswith("one: ended")
        assert side.back_ends.processes(f"{side.root}/one") == {}
        assert side.back_ends.processes(f"{side.root}/two")["tpm"] is not None
        assert len(await side.back_ends.sweep([])) == 1

    asyncio.run(story())


# Processes alone.


def test_they_stand_on_the_service_core_and_another_process_finds_and_ends_them(tmp_path: Path) -> None:
    asyncio.run(real(tmp_path).start(str(tmp_path / "one"), None, [WAITS, OTHER]))
    later = real(tmp_path)
    found = later.processes(str(tmp_path / "one"))
    pids = [pid for pid in found.values() if pid is not None]
    assert len(pids) == 2
    for pid in pids:
        assert os.sched_getaffinity(pid) == {SERVICE_CORE}
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert (tmp_path / "one" / "vda.sock").is_socket()
    asyncio.run(later.end(str(tmp_path / "one")))  # one of them does not heed SIGTERM
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    assert list((tmp_path / "one").iterdir()) == []


def test_a_number_that_is_anothers_by_now_is_left_alone(tmp_path: Path) -> None:
    asyncio.run(real(tmp_path).start(str(tmp_path / "one"), None, [WAITS]))
    note = tmp_path / "one" / "tpm.process"
    pid, _, boot = note.read_text().split(" ", 2)
    kept = note.read_text()
    note.write_text(f"{os.getpid()} 1 {boot}")  # ours, were it not for when we began
    back_ends = real(tmp_path)
    assert back_ends.processes(str(note.parent)) == {"tpm": None}
    asyncio.run(back_ends.end(str(note.parent)))
    assert Path(f"/proc/{pid}/exe").exists()
    note.write_text(kept)
    asyncio.run(back_ends.end(str(note.parent)))


def test_all_or_none_and_the_reason(tmp_path: Path) -> None:
    lost = BackEnd(name="share0", kind=Kind.SHARE, arguments=(), folder=str(tmp_path / "nowhere"))
    with pytest.raises(FailedError, match=rf"virtiofsd, the back end share0: {tmp_path}/nowhere: No such file"):
        asyncio.run(real(tmp_path).start(str(tmp_path / "one"), None, [WAITS, lost]))
    assert list((tmp_path / "one").iterdir()) == []


def test_a_program_that_is_not_there_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    nothing = ServiceBackEnds(tmp_path, COMMAND, lambda _: None)
    with pytest.raises(HostError, match="swtpm is missing; `apt-get install swtpm` installs it"):
        asyncio.run(nothing.start(str(tmp_path / "one"), None, [WAITS]))
    assert find(Kind.SHARE, [tmp_path]) is None
    assert (find(Kind.TPM) is None) == (shutil.which("swtpm") is None)


def test_a_start_that_is_broken_off_starts_no_more(tmp_path: Path) -> None:
    back_ends, directory = real(tmp_path), str(tmp_path / "one")
    many = [replace(WAITS, name=f"share{number}", folder="") for number in range(40)]

    async def story() -> None:
        starting = asyncio.create_task(back_ends.start(directory, None, many))
        for _ in range(30_000):
            if back_ends.processes(directory):
                break
            await asyncio.sleep(0.001)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await back_ends.end(directory)
        await asyncio.sleep(0.2)
        assert not back_ends.processes(directory)

    asyncio.run(story())
