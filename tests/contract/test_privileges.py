"""Programs that root starts without privileges, as the kernel tells of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.core.sandbox import capabilities, parse_status
from orchestrator.host.privileges import begin
from tests.users import ALICE


def sets() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a program that is started now has, and what it can have."""
    told = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    status = parse_status(told)
    return capabilities(status["CapEff"]), capabilities(status["CapBnd"])


@pytest.mark.skipif(os.geteuid() != 0, reason="others have no privileges to be taken")
def test_what_is_begun_has_none_and_nobody_else_loses_any() -> None:
    found = []
    before = sets()
    begin("<disk><source file='/etc/passwd'/><target file='/nowhere/x'/></disk>", lambda: found.append(sets()))
    assert found == [((), ())]
    assert sets() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of others")
@pytest.mark.parametrize("way", ["a file of hers", "a file in her directory"])
def test_a_users_file_leaves_the_one_that_opens_it(tmp_path: Path, way: str) -> None:
    home = tmp_path / "alice"
    home.mkdir(mode=0o700)
    image = home / "a.qcow2"
    image.touch()
    os.chown(image if way == "a file of hers" else home, ALICE, ALICE)
    found = []
    begin(f'<qemu:arg value="memory-backend-file,id=pay,mem-path={image},share=on"/>', lambda: found.append(sets()))
    assert found == [(("dac_override",), ("dac_override",))]


def test_what_fails_in_it_is_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        begin("<domain/>", fail)
