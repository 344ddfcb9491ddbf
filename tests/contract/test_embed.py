"""The embedded driver's root: what is written into it, who holds it, and which domains its status files tell of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.core.xml.metadata import NAMESPACE
from orchestrator.host.embed import domains, holder, owner_of, prepare_root, status_folder

UUID = "11111111-1111-4111-8111-111111111111"


def status(name: str, pid: int, uuid: str = UUID, version: str = "1") -> str:
    """Return a status file as libvirt writes them, as far as it matters."""
    return f"""\
<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domstatus state='running' reason='unpaused' pid='{pid}'>
  <monitor path='/monitor.sock' type='unix'/>
  <domain type='qemu' id='1'>
    <name>{name}</name>
    <uuid>{uuid}</uuid>
    <metadata>
      <orchestrator:guest xmlns:orchestrator="{NAMESPACE}" version="{version}">
        <orchestrator:owner>alice</orchestrator:owner>
        <orchestrator:accelerator>tcg</orchestrator:accelerator>
        <orchestrator:directory>/run/{name}</orchestrator:directory>
        <orchestrator:vcpus>3,2</orchestrator:vcpus>
        <orchestrator:emulator>4</orchestrator:emulator>
        <orchestrator:held>2,3,4</orchestrator:held>
        <orchestrator:specification>{{"name":"{name}"}}</orchestrator:specification>
      </orchestrator:guest>
    </metadata>
  </domain>
</domstatus>
"""


def write(root: Path, name: str, text: str) -> None:
    directory = root / "run" / "qemu"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.xml").write_text(text)


@contextmanager
def child(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program that prints a byte when it is ready and then lives until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


WAIT = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
LOCK = f"import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX, 1); {WAIT}"


def test_a_root_that_is_not_there_has_no_domains_and_no_holder(tmp_path: Path) -> None:
    assert domains(tmp_path / "nowhere") == []
    assert holder(tmp_path / "nowhere") is None
    (tmp_path / "file").touch()
    assert holder(tmp_path / "file") is None


def test_domains_are_read_from_status_files_in_order(tmp_path: Path) -> None:
    with child(WAIT, "-uuid", UUID) as process:
        write(tmp_path, "zebra", status("zebra", process.pid))
        write(tmp_path, "ant", status("ant", process.pid, UUID.replace("1", "2")))
        ant, zebra = domains(tmp_path)
    assert (ant.name, ant.pid) == ("ant", None)  # there is a process of this number, but it is not that domain's
    assert (zebra.name, zebra.uuid, zebra.state, zebra.pid) == ("zebra", UUID, "running", process.pid)
    assert zebra.metadata.owner == "alice"
    assert (zebra.metadata.vcpus, zebra.metadata.emulator, zebra.metadata.held) == ((3, 2), (4,), (2, 3, 4))
    assert zebra.metadata.specification == '{"name":"zebra"}'
    assert domains(tmp_path)[1].pid is None  # now it has gone


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<domstatus",
        "<domstatus state='running' pid='1'><domain><name>x</name></domain></domstatus>",
        status("x", 1, version="2"),
        status("x", 1).replace(NAMESPACE, "urn:else"),
        status("x", 1).replace("3,2", "three"),
    ],
)
def test_what_is_not_ours_or_half_written_is_left_out(tmp_path: Path, text: str) -> None:
    write(tmp_path, "x", text)
    assert domains(tmp_path) == []


def test_the_holder_is_the_process_with_the_lock(tmp_path: Path) -> None:
    pid_file = tmp_path / "run" / "qemu" / "driver.pid"
    pid_file.parent.mkdir(parents=True)
    pid_file.write_text("1\n")  # what the file says does not matter: it outlives its writer
    assert holder(tmp_path) is None
    with child(LOCK, str(pid_file)) as process:
        assert holder(tmp_path) == process.pid
        assert holder(tmp_path) == process.pid
    assert holder(tmp_path) is None


def test_a_prepared_root_has_its_configuration_and_shares_the_cache(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    (root / "cache").mkdir(parents=True)
    (root / "cache" / "stale").touch()
    for _ in range(2):
        prepare_root(root, cache)
    text = (root / "etc" / "qemu.conf").read_text()
    assert 'stdio_handler = "file"' in text
    assert "seccomp_sandbox = 1" in text
    assert ('user = "root"' in text) is (os.geteuid() == 0)
    assert (root / "cache").readlink() == cache
    assert list(cache.iterdir()) == []
    assert (root / "log").is_dir()


def test_whose_a_guest_is_is_found_in_whichever_folder_has_its_status(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    write(others, "web", status("web", 1))
    write(ours, "web", status("web", 1, uuid="22222222-2222-4222-8222-222222222222"))
    folders = status_folder(ours), status_folder(others)
    assert owner_of(folders, "web", UUID) == "alice"
    assert owner_of(folders[:1], "web", UUID) == "", "that is another guest of this name"
    assert owner_of(folders, "db", UUID) == owner_of(folders, "../qemu/web", UUID) == ""
