"""Exclusive guests that are moved to other cores, and resized, while they run: read from /proc after each."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.looking import allowed_cores, command, eventually, heartbeats
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Servers

GROWS = """\
name = "grows"
architecture = "x86_64"
vcpus = 1
max_vcpus = 2
memory = "192 MiB"
mode = "exclusive"
[boot]
kernel = "{build}/linux-x86_64.vmlinux"
initrd = "{build}/linux-x86_64.cpio"
cmdline = "console=ttyS0 quiet no_timer_check noreplace-smp tsc=reliable nokaslr mitigations=off cryptomgr.notests"
"""
SERVER = """\
name = "server"
architecture = "i386"
vcpus = 1
memory = "16 MiB"
mode = "exclusive"
[boot]
payload = "{build}/heartbeat-i386.elf"
"""
BUILD = Path(__file__).parents[3] / "domains" / "build"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.clear()


def threads(name: str) -> dict[str, set[int]]:
    """The cores of each thread of a guest, as /proc has them: of its vCPUs by name, of all others together."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"guest={name},".encode() in (entry / "cmdline").read_bytes():
                return threads_of(entry)
    raise AssertionError(f"no process of {name}")


def threads_of(entry: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"others": set()}
    for task in (entry / "task").iterdir():
        comm = (task / "comm").read_text().strip()
        found.setdefault(comm if comm.startswith("CPU ") else "others", set()).update(allowed_cores(task))
    return found


def says(name: str, text: bytes) -> bool:
    return text in Path(f"/run/orchestrator/guests/{name}/serial.log").read_bytes()


def moved(*arguments: str) -> Any:
    done = command(*arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_server_moves_and_a_linux_grows_and_shrinks_while_they_run(servers: Servers, tmp_path: Path) -> None:
    serve = servers.start()
    specs = []
    for name, text in (("grows", GROWS), ("server", SERVER)):
        specs.append(tmp_path / f"{name}.toml")
        specs[-1].write_text(text.format(build=BUILD))
    started = command("start", *map(str, specs), "domains/heartbeat-aarch64.toml")
    assert started.code == 0, started.err
    with Observer() as observer:
        eventually(lambda: heartbeats("server") > 0, "the server beats")
        (before,) = threads("server")["CPU 0/TCG"]
        grows = threads("grows")["CPU 0/TCG"]
        target = max({2, 3, 4, 5} - {before} - grows)
        assert moved("move", "server", "--cores", str(target))["vcpus"] == [target]
        assert threads("server") == {"CPU 0/TCG": {target}, "others": {target}}
        beats = heartbeats("server")
        eventually(lambda: heartbeats("server") > beats, "it goes on")
        refused = command("move", "server", "--cores", str(*grows))
        assert refused.code == 3
        assert f"free pool cores: wanted {grows.pop()}, available grows keeps" in refused.err
        # A scheduler that is killed: the next one finds it where it was moved to.
        serve.process.send_signal(signal.SIGKILL)
        serve.process.wait()
        place = threads("server")
        servers.start()
        assert threads("server") == place
        eventually(lambda: says("grows", b"processors 0\r\n"), "Linux is up")
        grown = moved("resize", "grows", "--vcpus", "2")["vcpus"]
        assert threads("grows") == {"CPU 0/TCG": {grown[0]}, "CPU 1/TCG": {grown[1]}, "others": set(grown)}
        eventually(lambda: says("grows", b"processors 0-1\r\n"), "Linux has brought its second processor up")
        shrunk = command("resize", "grows", "--vcpus", "1")
        assert shrunk.code in (0, 5), shrunk.err
        if shrunk.code == 5:  # it took longer than anybody waits; its cores were kept meanwhile
            eventually(lambda: "CPU 1/TCG" not in threads("grows"), "it has let go")
            assert moved("resize", "grows", "--vcpus", "1")["vcpus"] == grown[:1]
        assert threads("grows") == {"CPU 0/TCG": {grown[0]}, "others": {grown[0]}}
        assert command("audit", "pins").code == 0
        assert command("stop", "--all").code == 0
    assert observer.violations == []
