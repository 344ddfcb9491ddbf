"""The wheel, installed where its sources are not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.packaging.conftest import ROOT, in_suites

SHIPPED = "share/orchestrator"

MASKED = " && ".join(f"mount -t tmpfs none {ROOT / name}" for name in ("orchestrator", "domains", "policies", "tests"))
"""Hides the sources, in the lab; .venv stays, which has the dependencies."""


def called(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(installed),
        "ORCHESTRATOR_RUNTIME_DIR": str(installed / "r"),
        "ORCHESTRATOR_STATE_DIR": str(installed / "s"),
    }
    program = [str(installed / "bin" / "orchestrator"), *arguments]
    return subprocess.run(program, cwd="/", env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_has_all_that_is_shipped(installed: Path) -> None:
    for kind in ("domains", "policies"):
        wanted = {path.relative_to(ROOT) for path in (ROOT / kind).rglob("*") if path.is_file()}
        wanted = {path for path in wanted if path.parts[1] != "build" and "__pycache__" not in path.parts}
        found = {path.relative_to(installed / SHIPPED) for path in (installed / SHIPPED / kind).rglob("*")}
        assert wanted <= found, wanted - found
    assert os.access(installed / SHIPPED / "domains/linux/fetch", os.X_OK)
    assert (installed / "share/man/man1/orchestrator-run.1").is_file()
    assert (installed / "share/bash-completion/completions/orchestrator").is_file()


def test_what_is_shipped_is_found_by_name(installed: Path) -> None:
    assert called(installed, "--version").stdout.startswith("orchestrator ")
    xml = called(installed, "xml", "heartbeat-aarch64", "--cores", "2")
    kernel = re.search("<kernel>(.*)</kernel>", xml.stdout)
    assert kernel is not None, xml.stderr
    assert Path(kernel[1]).is_relative_to(installed.resolve() / SHIPPED)
    assert called(installed, "policy", "check", "nightly").returncode == 0
    unknown = called(installed, "xml", "web")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith(
        "web: no such file, and no definition is shipped by this name; there are bootsector, "
    )


def test_what_is_not_built_is_said_with_what_builds_it(installed: Path) -> None:
    refused = called(installed, "xml", "linux-aarch64", "--cores", "2")
    assert refused.returncode == 2
    directory = installed.resolve() / SHIPPED / "domains"
    assert f"`make -C {directory}` builds the shipped ones" in refused.stderr


@in_suites
def test_a_shipped_guest_runs_from_the_wheel(installed: Path) -> None:
    program = str(installed / "bin" / "orchestrator")
    run = f"{program} run heartbeat-i386 --heartbeats 3 --for 4m"
    script = f"{MASKED} && cd / && ! test -e {ROOT}/domains/heartbeat-i386.toml && {run}"
    command = [program, "lab", "run", "--cpus", "3", "--timeout", "6m", "--", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert re.search(r"heartbeat-i386: i386, tcg, cores 2, \d+ heartbeats, 0 threads on reserved cores", done.stdout)
