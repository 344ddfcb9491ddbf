"""The Vagrantfile, as Vagrant judges it; to bring it up takes a host with KVM, or a long time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("vagrant") is None, reason="Vagrant is not installed: apt-get install vagrant vagrant-libvirt"
)


def vagrant(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "VAGRANT_HOME": str(directory / "home"),
        "VAGRANT_DOTFILE_PATH": str(directory / "dot"),
        **variables,
    }
    command = ["vagrant", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_vagrant_has_nothing_against_it(tmp_path: Path) -> None:
    done = vagrant(tmp_path, "validate", ORCHESTRATOR_CPUS="12", ORCHESTRATOR_MEMORY="16384")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "validated successfully" in done.stdout


def test_cpus_that_do_not_make_two_nodes_are_refused(tmp_path: Path) -> None:
    done = vagrant(tmp_path, "validate", ORCHESTRATOR_CPUS="5")
    assert done.returncode != 0
    assert "ORCHESTRATOR_CPUS=5: two NUMA nodes of at least two CPUs need an even number" in done.stderr
