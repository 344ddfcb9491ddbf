"""Control groups of guests, on trees as kernels make them: what is switched on, made, written, and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.bounds import Bounds
from orchestrator.core.model import Size
from orchestrator.errors import FailedError
from orchestrator.group_ports import GuestGroups
from orchestrator.host.guest_groups import CgroupGroups, why_none
from tests.fakes.groups import FakeGroups
from tests.fakes.host import FakeHost

UUID = "3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4b"
PID = 77
ALL = "cpuset cpu io memory pids"
LEAF = ("memory.max", "memory.swap.max", "pids.max", "io.max", "cgroup.procs")


class Side:
    """A tree in which the kernel has already made what it will: files cannot be born here by making a directory."""

    def __init__(self, tmp_path: Path, above: str = "orchestrator.guests") -> None:
        self.root, self.proc, self.block = tmp_path / "cg", tmp_path / "proc", tmp_path / "block"
        self.above = self.root / above
        for group in (self.root, *self.above.parents[: len(Path(above).parts) - 1], self.above):
            self.write(group / "cgroup.controllers", ALL)
            self.write(group / "cgroup.subtree_control", "")
            self.write(group / "cpuset.cpus", "")
        self.group = self.above / UUID
        for name in LEAF:
            self.write(self.group / name, "max")
        for name, number, size in (("sda", "8:0", "4096"), ("loop0", "7:0", "0")):
            self.write(self.block / name / "dev", number)
            self.write(self.block / name / "size", size)
        self.groups = CgroupGroups({2, 3, 5}, self.root, self.proc, self.block)

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def read(self, name: str) -> str:
        return (self.group / name).read_text().strip()

    def is_in(self, pid: int, path: str) -> None:
        self.write(self.proc / str(pid) / "cgroup", f"3:cpuset:/x\n0::{path}")


class RealSide:
    """Has the tree's files say what a kernel would."""

    def __init__(self, tmp_path: Path) -> None:
        self.side = Side(tmp_path)
        self.groups: GuestGroups = self.side.groups

    def move(self, path: str) -> None:
        self.side.is_in(PID, path)

    def settle(self) -> None:
        if self.side.read("cgroup.procs") == str(PID):
            self.side.is_in(PID, f"/orchestrator.guests/{UUID}")


class FakeSide:
    def __init__(self, _: Path) -> None:
        self.fake = FakeGroups(FakeHost())
        self.groups: GuestGroups = self.fake

    def move(self, path: str) -> None:
        self.fake.inside[PID] = path

    def settle(self) -> None:
        """Nothing lags behind here."""


@pytest.mark.parametrize("kind", [RealSide, FakeSide])
def test_a_process_that_is_taken_out_can_be_brought_back(tmp_path: Path, kind: type[RealSide] | type[FakeSide]) -> None:
    side = kind(tmp_path)
    assert side.groups.elsewhere(UUID, PID) == "", "it is not there yet"
    side.groups.confine(UUID, PID, Bounds(1, 2))
    side.settle()
    assert side.groups.elsewhere(UUID, PID) == ""
    side.move("/evil")
    assert side.groups.elsewhere(UUID, PID) == "/evil"
    side.groups.confine(UUID, PID, Bounds(1, 2))
    side.settle()
    assert side.groups.elsewhere(UUID, PID) == ""
    side.groups.release(UUID)
    side.groups.release(UUID)


def test_a_process_is_brought_into_a_group_with_bounds(tmp_path: Path) -> None:
    side = Side(tmp_path)
    side.groups.confine(UUID, 77, Bounds(memory=Size.parse("1 GiB"), threads=130, disk_speed=Size.parse("1000 B")))
    assert {name: side.read(name) for name in LEAF} == {
        "memory.max": str(1 << 30),
        "memory.swap.max": str(1 << 30),
        "pids.max": "130",
        "io.max": "8:0 rbps=1000 wbps=1000",
        "cgroup.procs": "77",
    }
    assert (side.above / "cpuset.cpus").read_text() == "2-3,5\n"
    assert (side.above / "cgroup.subtree_control").read_text() == "+io\n", "the last of three that were written"
    assert (side.root / "cgroup.subtree_control").read_text() == "+cpuset\n"


def test_under_a_shield_it_is_inside_of_that(tmp_path: Path) -> None:
    side = Side(tmp_path, "orchestrator/guests")
    (side.root / "orchestrator/tasks").mkdir()
    side.groups.confine(UUID, 77, Bounds(1, 2))
    assert side.read("cgroup.procs") == "77"
    assert side.read("io.max") == "max"
    assert (side.root / "orchestrator/cgroup.subtree_control").read_text() != "\n"
    side.is_in(77, f"/orchestrator/guests/{UUID}")
    assert side.groups.elsewhere(UUID, 77) == ""
    side.is_in(77, "/orchestrator/tasks")
    assert side.groups.elsewhere(UUID, 77) == "/orchestrator/tasks"


def test_controllers_that_are_on_are_not_switched_on_again(tmp_path: Path) -> None:
    side = Side(tmp_path)
    side.write(side.root / "cgroup.subtree_control", ALL)
    side.groups.confine(UUID, 77, Bounds(1, 2))
    assert (side.root / "cgroup.subtree_control").read_text() == f"{ALL}\n"


@pytest.mark.parametrize(
    ("path", "elsewhere"),
    [
        (f"/orchestrator.guests/{UUID}", ""),
        (f"/orchestrator.guests/{UUID} (deleted)", ""),
        ("/evil", "/evil"),
        ("/", "/"),
        ("/orchestrator.guests/another", "/orchestrator.guests/another"),
    ],
)
def test_whoever_was_taken_out_is_found(tmp_path: Path, path: str, elsewhere: str) -> None:
    side = Side(tmp_path)
    side.is_in(77, path)
    assert side.groups.elsewhere(UUID, 77) == elsewhere
    assert side.groups.elsewhere(UUID, 78) == "", "it has gone"


def test_what_is_empty_is_removed(tmp_path: Path) -> None:
    side = Side(tmp_path)
    empty = side.above / "left"
    empty.mkdir()
    side.groups.release("unknown")
    assert not empty.exists()
    assert side.group.exists(), "there are files in it here, as there are processes in a real one"
    for path in (*side.group.iterdir(), *side.above.glob("c*")):
        path.unlink()
    side.groups.release(UUID)
    assert not side.above.exists()
    side.groups.release(UUID)


def test_a_speed_that_cannot_be_bounded_is_told(tmp_path: Path) -> None:
    side = Side(tmp_path)
    (side.group / "io.max").unlink()
    with pytest.raises(FailedError, match=r"no io controller .* leave disk_speed"):
        side.groups.confine(UUID, 77, Bounds(1, 2, 3))
    assert side.read("cgroup.procs") == "max", "it is in no group without all of its bounds"


@pytest.mark.parametrize(
    ("files", "user", "why", "mend"),
    [
        ({"cgroup.controllers": ALL, "cgroup.subtree_control": ""}, 0, "", ""),
        ({"cgroup.controllers": ALL, "cgroup.subtree_control": ""}, 1000, "only root may", "serve"),
        ({}, 0, "has no cgroup v2", "cgroup_no_v1=all"),
        ({"cgroup.controllers": "cpuset cpu"}, 0, "no controller memory and pids", "cgroup_no_v1=memory,pids"),
        (
            {"cgroup.controllers": ALL, "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.procs": "1"},
            0,
            "is a container's",
            "on the host",
        ),
    ],
)
def test_why_there_can_be_none(tmp_path: Path, files: dict[str, str], user: int, why: str, mend: str) -> None:
    for name, text in files.items():
        Side.write(tmp_path / name, text)
    found = why_none(tmp_path, user)
    assert why in found[0]
    assert mend in found[1]
    assert bool(found[0]) == bool(why)
