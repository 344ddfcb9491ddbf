"""What surrounds a launch: scripts, environment, command line, and what is refused before anything starts."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.errors import UsageError
from orchestrator.lab.kernel import LabKernel, default_cache, find_kernel
from orchestrator.lab.launch import minimal_environment, run_lab
from orchestrator.lab.machine import qemu_command
from orchestrator.lab.script import INIT, command_script, start_script
from orchestrator.lab.shape import LabShape

KERNEL = LabKernel("6.1.0-1-amd64", Path("/cache/linux-image"))


def test_the_command_keeps_its_words_directory_and_environment(tmp_path: Path) -> None:
    place = tmp_path / "a directory's name"
    place.mkdir()
    words = ["two words", "$HOME", "it's", 'say "so"', "*", "", "line\nbreak"]
    script = command_script(
        ["python3", "-c", "import os, sys; print(os.getcwd(), dict(os.environ), sys.argv[1:])", *words],
        place,
        {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "ODD": "a b'c"},
    )
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"{place} ")
    assert "'ODD': \"a b'c\"" in told
    assert "HOME'" not in told.partition("[")[0], "nothing else is inherited"
    assert told.rstrip().endswith(repr(words))


@pytest.mark.parametrize("script", [INIT, start_script("6.1", PurePosixPath("/a cache/modules"))])
def test_the_scripts_are_sound_shell(script: str) -> None:
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=True).returncode == 0


def test_the_modules_are_where_the_kernel_is() -> None:
    script = start_script("6.1.0-1", PurePosixPath("/a cache/modules"))
    assert "version=6.1.0-1\nmodules='/a cache/modules'\n" in script


def test_the_environment_is_small_and_finds_our_programs_first() -> None:
    outer = {"LANG": "C.UTF-8", "XDG_CACHE_HOME": "/cache", "SECRET": "x", "PATH": "/elsewhere"}
    inner = minimal_environment(outer)
    assert inner["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert "/elsewhere" not in inner["PATH"]
    assert set(inner) == {"PATH", "HOME", "LANG", "XDG_CACHE_HOME"}


def test_the_cache_follows_the_base_directory_specification() -> None:
    assert default_cache({"XDG_CACHE_HOME": "/var/c"}) == Path("/var/c/orchestrator/lab")
    home = Path.home() / ".cache/orchestrator/lab"
    assert default_cache({}) == default_cache({"XDG_CACHE_HOME": "relative"}) == home


def test_the_kernel_is_found_only_when_it_is_complete(tmp_path: Path) -> None:
    assert find_kernel(tmp_path) is None
    (tmp_path / "fetching/linux-image/lib/modules/6.1").mkdir(parents=True)
    assert find_kernel(tmp_path) is None
    (tmp_path / "fetching/linux-image").rename(tmp_path / "linux-image")
    assert find_kernel(tmp_path) == LabKernel("6.1", tmp_path / "linux-image")


def test_threads_need_a_processor_whose_threads_linux_sees() -> None:
    def cpu(threads: int) -> str:
        words = qemu_command(LabShape(threads=threads), KERNEL, name="x", initramfs=3, output=4, console=5)
        return words[words.index("-cpu") + 1]

    assert "vendor=GenuineIntel" in cpu(2)
    assert "vendor" not in cpu(1)


def test_the_host_is_offered_read_only_and_the_pool_is_isolated_where_asked() -> None:
    words = qemu_command(LabShape(isolate=True), KERNEL, name="x", initramfs=3, output=4, console=5)
    assert "readonly=on" in words[words.index("-fsdev") + 1].split(",")
    assert "isolcpus=2-5" in shlex.split(words[words.index("-append") + 1])


@pytest.mark.parametrize("hidden", ["/run/user/0/project", "/dev/shm", "/proc/self", "/sys"])
@pytest.mark.parametrize("which", ["workdir", "cache"])
def test_a_directory_that_the_lab_would_hide_is_refused(hidden: str, which: str, tmp_path: Path) -> None:
    places = {"workdir": tmp_path, "cache": tmp_path, which: Path(hidden)}
    with pytest.raises(UsageError, match=f"{hidden} is out of sight"):
        run_lab(LabShape(), ["true"], environment={}, output=1, timeout=1.0, **places)
    assert list(tmp_path.iterdir()) == []


def test_no_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="command is missing"):
        run_lab(LabShape(), [], workdir=tmp_path, environment={}, output=1, timeout=1.0, cache=tmp_path)
