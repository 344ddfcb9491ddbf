"""A real guest from a user's files, held fast: libvirt and QEMU take them, and no image leads past them unseen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.users import ALICE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users, and mount")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that users may enter, as root's own of pytest they may not; with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="pin-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_qemu_has_what_the_user_opened_and_is_found_out_where_an_image_leads_it_elsewhere(
    base: Path,
) -> None:
    home, secret = base / "alice", base / "secret"
    home.mkdir()
    secret.write_bytes(bytes(1 << 20))
    for name in ("data", "tools"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{name}.qcow2", "1M"], check=True, cwd=home)
    (home / "rest.raw").write_bytes(bytes(1 << 20))
    shutil.copy(ROOT / "domains/build/heartbeat-i386.elf", home / "payload, x.elf")
    for path in (home, *home.iterdir()):
        os.chown(path, ALICE, ALICE)
        path.chmod(0o700)
    command = [sys.executable, "-m", "tests.functional.pinned_side", str(base), str(home), str(ALICE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for what in ("plain", "changed"):
        assert "heartbeat 3\n" in told[what]["printed"]
    assert set(told["plain"]["images"].values()) == {path for path in told["ours"] if "pin.boot" not in path}
    # What is compared with the quota: the image that is written to, and the layer above the other one.
    assert {path.rpartition("/")[2]: size for path, size in told["plain"]["disks"].items()} == {
        "pin.disk.0.path": 1 << 20,
        "vdb.overlay.qcow2": 1 << 20,
    }
    # The launcher ends a guest whose QEMU has any other: here that is the data file, and not the base.
    others = {node: path for node, path in told["changed"]["images"].items() if path not in told["ours"]}
    assert list(others.values()) == [str(secret)]
    assert not next(iter(others)).startswith("libvirt-")
    assert told["left"] == ["serial.log"]
    assert str(base) not in Path("/proc/self/mounts").read_text()
