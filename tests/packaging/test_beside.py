"""What is installed beside the program, judged by those that read it, where these are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("beside")
    program = str(Path(sys.executable).with_name("orchestrator"))
    subprocess.run([sys.executable, "-m", "orchestrator.packaging", str(directory), program], check=True, cwd=ROOT)
    return directory


def judged(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return f"exit code {done.returncode}: {done.stdout}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed: apt-get install groff")
def test_groff_has_nothing_against_the_manual_pages(beside: Path) -> None:
    found = sorted((beside / "share" / "man1").iterdir())
    assert len(found) > 40
    assert judged("groff", "-man", "-Tascii", "-ww", "-z", *found) == "exit code 0: "


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed: apt-get install systemd")
def test_systemd_has_nothing_against_the_units(beside: Path) -> None:
    found = sorted((beside / "lib" / "systemd" / "system").iterdir())
    assert judged("systemd-analyze", "verify", "--man=no", *found) == "exit code 0: "


@pytest.mark.parametrize(("tool", "kind"), [("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")])
def test_systemd_makes_the_group_and_the_directories(tool: str, kind: str, beside: Path, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: apt-get install systemd")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\n")
    create = ["--create"] if kind == "tmpfiles.d" else []
    assert judged(tool, f"--root={tmp_path}", *create, beside / "lib" / kind / "orchestrator.conf").startswith(
        "exit code 0"
    )
    if create:
        modes = {
            name: (tmp_path / name).stat().st_mode & 0o777 for name in ("run/orchestrator", "var/lib/orchestrator")
        }
        assert modes == {"run/orchestrator": 0o711, "var/lib/orchestrator": 0o700}
    else:
        assert "\norchestrator:" in (tmp_path / "etc" / "group").read_text()


@pytest.mark.parametrize(("shell", "name"), [("bash", "orchestrator"), ("zsh", "_orchestrator")])
def test_shells_read_the_completions(shell: str, name: str, beside: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    assert judged(shell, "-n", beside / "share" / shell / name) == "exit code 0: "
