"""Save, kill everything, come back, restore; snapshots and clones; and a kill at each step: real guests, real files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.functional.states_side import DOMAINS, MAPPING, NAMES, WINDOWS

SIDE = Path(__file__).with_name("states_side.py")


@dataclass
class Side:
    """Calls the other process; its files stay from call to call."""

    root: Path

    def __call__(self, step: str, *, killed: bool = False) -> Any:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "ORCHESTRATOR_RUNTIME_DIR": str(self.root / "r"),
            "ORCHESTRATOR_STATE_DIR": str(self.root / "s"),
            "PYTHONPATH": str(SIDE.parents[2]),
        }
        done = subprocess.run(
            [sys.executable, str(SIDE), step],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
        return json.loads(done.stdout) if done.stdout else None


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Side:
    subprocess.run(["make", "--silent", "-C", DOMAINS], check=True, timeout=600)
    root = tmp_path_factory.mktemp("s")
    (root / "s").mkdir()
    return Side(root)


def test_guests_of_all_architectures_go_on_after_everything_was_killed_and_clones_where_the_template_was(
    side: Side,
) -> None:
    saved = side("save", killed=True)
    assert set(saved) == set(NAMES)
    found = side("restore")
    assert found.pop("strays") == []
    for name in NAMES:
        one = found[name]
        assert one["first"] in (saved[name], saved[name] + 1)
        before, reverted = one["snapshot"]
        assert before <= reverted <= before + 2
        last, later, *clones = one["clones"]
        assert all(last <= each <= later + 1 for each in clones), "where the template was, and not from 1"
        assert len(set(one["uuids"])) == 3
        assert one["rams"] == ["", "rw-p", "rw-p"], "a private mapping of the template's file"
        assert one["notes"][0].startswith("clones go on with the template's random numbers")


def test_guests_with_a_window_into_a_payload_go_on_from_snapshots_and_map_it_as_before(side: Side) -> None:
    found = side("windows")
    assert set(found) == set(WINDOWS)
    for one in found.values():
        assert all(last <= first <= last + 1 for last, first in one["beats"])
        assert (one["written"], one["mapped"]) == (0, 64 << 20)


def test_guests_whose_payload_is_cut_short_end_for_that_reason_and_nobody_else_after_a_restart_too(
    side: Side,
) -> None:
    side("mapping", killed=True)
    found = side("cut_short")
    assert found["notes"] == []
    assert found["ended"] == {
        **dict.fromkeys(MAPPING, f"its payload was changed under it: {found['file']}"),
        NAMES[-1]: None,
    }


@pytest.mark.parametrize(("step", "merges"), [("unmerged", False), ("merged", True)])
def test_a_guests_pages_are_merged_with_others_only_if_the_policy_says_so(side: Side, step: str, merges: bool) -> None:
    found = side(step)
    assert found, "its RAM was found"
    assert set(found) == {merges}


def test_two_clones_are_told_that_they_are_and_have_different_random_numbers(side: Side) -> None:
    found = side("random")
    assert found["notes"] == []
    bytes_of = []
    for log in found["logs"]:
        assert "crng reseeded due to virtual machine fork" in log
        bytes_of += [line.split()[1] for line in log.splitlines() if line.startswith("random ")]
    assert len(set(bytes_of)) == 2
    assert all(len(each) == 32 for each in bytes_of)


CUTS = (
    ("save", "begun"),
    ("save", "written"),
    ("save", "published"),
    ("snapshot", "written"),
    ("snapshot", "published"),
    ("template", "written"),
    ("template", "loading"),
    ("clone", "loading"),
    ("clone", "loaded"),
)
"""At which step of what the process is killed. What loads is a clone, or the guest with which a template is made."""

RARE = (("snapshot", "begun"), ("template", "begun"), ("template", "loaded"), ("template", "published"))
"""More of the same kinds, which `make suites` cuts at, too."""


@pytest.mark.parametrize(("what", "step"), CUTS + (RARE if os.environ.get("ORCHESTRATOR_SUITES") == "all" else ()))
def test_killed_at_any_step_there_is_the_old_or_the_new_state_and_no_stray(side: Side, what: str, step: str) -> None:
    side(f"{what}-{step}", killed=True)
    found = side("after")
    whole = step == "published" or what == "clone"
    assert found["kept"] == ([{"save": "saved", "clone": "template"}.get(what, what)] if whole else [])
    living = set() if (what, step) == ("save", "published") else {NAMES[0]}
    assert set(found["living"]) == living | ({"cut-1"} if (what, step) == ("clone", "loaded") else set())
    assert found["strays"] == []
    assert emulators_below(side.root) == []


def emulators_below(root: Path) -> list[str]:
    """Return the command lines of QEMUs whose files are below this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "/qemu-system-" in line.partition(" ")[0] and str(root) in line:
                found.append(line)
    return found
