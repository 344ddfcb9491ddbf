"""Users under a daemon of root's, with real guests: what is theirs is run from their own files, and is theirs alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.inside.looking import ROOT, command, emulators, eventually, guests
from tests.lab.inside.servers import Servers
from tests.users import ALICE, BOB, one, starting

SOCKET = Path("/run/orchestrator/api/socket")

GUEST = """
name = "{name}"
architecture = "i386"
vcpus = 1
memory = "32 MiB"
[boot]
payload = "{payload}"
"""
DISKS = """
[[disk]]
path = "data.qcow2"
format = "qcow2"
[[disk]]
path = "tools.qcow2"
format = "qcow2"
overlay = true
[[disk]]
path = "rest.raw"
format = "raw"
readonly = true
"""


@pytest.fixture
def home() -> Path:
    path = Path("/tmp/users")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o755)
    alices = path / "alice"
    alices.mkdir(mode=0o700)
    for name in ("data", "tools"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{name}.qcow2", "1M"], check=True, cwd=alices)
    (alices / "rest.raw").write_bytes(bytes(1 << 20))
    shutil.copy(ROOT / "domains/build/heartbeat-i386.elf", alices / "payload, x.elf")
    for each in (alices, *alices.iterdir()):
        os.chown(each, ALICE, ALICE)
    return path


def test_a_users_guest_is_run_from_his_own_files_and_is_his_alone(home: Path, tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    try:
        serve = servers.start()
        own = GUEST.format(name="own", payload="payload, x.elf") + DISKS
        started = one(ALICE, SOCKET, *starting(own, home / "alice"))
        assert started.status == 200, (started, serve.lines)
        (guest,) = started.body["guests"]
        assert guest["owner"] == str(ALICE)
        eventually(lambda: "heartbeat" in str(one(ALICE, SOCKET, "GET", "/v1/guests/own/log").body), "it beats")
        check_files(guest["pid"], home / "alice")
        check_others(home)
        assert one(ALICE, SOCKET, "POST", "/v1/guests/own/restart").status == 200
        assert one(ALICE, SOCKET, "POST", "/v1/guests/own/stop").status == 200
        assert not Path("/run/orchestrator/guests/own/pin.boot.payload").exists()
        assert "/guests/own/" not in Path("/proc/self/mounts").read_text()
        check_an_image_that_leads_elsewhere(home / "alice")
        assert guests()["own"]["state"] == "stopped"
        assert command("start", "domains/heartbeat-i386.toml").code == 0  # root's own go on as ever
    finally:
        servers.clear()


def check_files(pid: int, home: Path) -> None:
    """QEMU has opened the user's very files, and those that it must not write to can be written to by nobody."""
    held = {(status.st_dev, status.st_ino) for fd in Path(f"/proc/{pid}/fd").iterdir() if (status := looked(fd))}
    for name in ("data.qcow2", "tools.qcow2", "rest.raw"):
        status = (home / name).stat()
        assert (status.st_dev, status.st_ino) in held, name
    options = {
        line.split()[1].rpartition("/")[2]: line.split()[3].split(",")
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if "/guests/own/pin." in line
    }
    assert {name: "ro" in found for name, found in options.items()} == {
        "pin.boot.payload": True,
        "pin.disk.0.path": False,
        "pin.disk.1.path": True,
        "pin.disk.2.path": True,
    }


def looked(descriptor: Path) -> os.stat_result | None:
    try:
        return descriptor.stat()
    except OSError:
        return None


def check_others(home: Path) -> None:
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/console"), ("POST", "/stop"), ("POST", "/kill")):
        refused = one(BOB, SOCKET, method, f"/v1/guests/own{path}")
        assert (refused.status, refused.body["error"]) == (403, "forbidden"), path
    theirs = GUEST.format(name="theirs", payload=home / "alice" / "payload, x.elf")
    refused = one(BOB, SOCKET, *starting(theirs, home))
    assert refused.status == 400
    assert "cannot be read by 4000002: Permission denied" in refused.body["lines"][0]
    inside = Path("/run/orchestrator/guests/own")
    looked_at = subprocess.run(
        ["/bin/sh", "-c", f"cat {inside}/serial.log; ls {inside.parent}"],
        capture_output=True,
        text=True,
        user=BOB,
        group=BOB,
        extra_groups=[],
        check=False,
    )
    assert looked_at.stdout == ""
    assert looked_at.stderr.count("Permission denied") == 2


def check_an_image_that_leads_elsewhere(home: Path) -> None:
    """The header says so when it is looked at; one that is changed after that is found out by QEMU's own word."""
    secret, image = Path("/root/secret"), home / "data.qcow2"
    secret.write_bytes(b"secret".ljust(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", str(secret), str(image), "1M"]
    subprocess.run(make, check=True)
    own = GUEST.format(name="own", payload="payload, x.elf") + DISKS
    refused = one(ALICE, SOCKET, *starting(own, home))
    assert refused.status == 400
    assert "is based on another image" in refused.body["lines"][0]
    assert not emulators()
