"""Where things are kept: the run directory is on a tmpfs, its owner's alone, or a clear refusal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import HostError
from orchestrator.host.places import cache_directory, runtime_directory


def chosen(path: Path) -> dict[str, str]:
    return {"ORCHESTRATOR_RUNTIME_DIR": str(path)}


def test_a_chosen_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert runtime_directory(chosen(path)) == path
    assert path.stat().st_mode & 0o777 == 0o700
    assert runtime_directory(chosen(path)) == path


def test_a_chosen_directory_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runtime_directory({"ORCHESTRATOR_RUNTIME_DIR": "near"}) == tmp_path / "near"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_directory_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(HostError, match=r"open: .*others may write to it; set ORCHESTRATOR_RUNTIME_DIR") as told:
        runtime_directory(chosen(path))
    assert told.value.exit_code == 4


def test_a_link_to_somewhere_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(HostError, match="link: belongs to another user or others may write to it"):
        runtime_directory(chosen(tmp_path / "link"))


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file: cannot be the run directory: File exists"):
        runtime_directory(chosen(tmp_path / "file"))
    with pytest.raises(HostError, match="below: cannot be the run directory: Not a directory"):
        runtime_directory(chosen(tmp_path / "file" / "below"))


def test_without_a_choice_it_is_on_a_tmpfs() -> None:
    path = runtime_directory({})
    kinds = dict(line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    assert kinds[str(path.parent)] == "tmpfs"
    assert path.stat().st_uid == os.geteuid()


def test_the_cache_follows_xdg_and_is_not_made() -> None:
    assert cache_directory({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/orchestrator")
    assert cache_directory({}) == Path.home() / ".cache" / "orchestrator"
