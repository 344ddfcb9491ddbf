"""What the clocks of a Linux guest do while it stands still, as its definition chooses: real QEMU, our XML's options.

libvirt says how it would start QEMU for the rendered XML; only what needs libvirt itself is left out. The guest is
stopped and continued over our own monitor, as it is between two turns.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pytest

from orchestrator.config import encode_guest, parse_guest
from orchestrator.core.arch import TRAITS
from orchestrator.core.model import GuestClock
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.render import render
from orchestrator.host.embed import prepare_root

DOMAINS = Path(__file__).parents[2] / "domains"
LIMIT = 120.0
"""Seconds after which a guest is given up; on an idle machine it boots in two."""
PAUSE = 3.0
"""Seconds for which guests stand still: hardware clocks count whole seconds, so each reading may be off by one."""


@dataclass(frozen=True)
class Clocks:
    """What a guest read, in seconds: CLOCK_REALTIME, CLOCK_MONOTONIC, the hardware clock."""

    system: float
    up: float
    hardware: float


@dataclass(frozen=True)
class Guest:
    """A guest that runs; its serial port and its monitor, by line."""

    serial: IO[str]
    monitor: IO[str]

    def says(self, start: str) -> str:
        """Read on to the next line on the serial port that starts so."""
        return next(line.rstrip() for line in self.serial if line.startswith(start))

    def type(self, word: str) -> Clocks:
        self.serial.write(f"{word}\n")
        self.serial.flush()
        _, _, system, _, up, _, hardware = self.says("clocks: ").split()
        return Clocks(float(system), float(up), float(hardware))

    def do(self, command: str) -> None:
        """Have the monitor do something; return when QEMU has confirmed it."""
        self.monitor.write(json.dumps({"execute": command}) + "\n")
        self.monitor.flush()
        assert "return" in next(answer for line in self.monitor if "event" not in (answer := json.loads(line)))


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "--silent", "-C", DOMAINS], check=True, timeout=600)


@pytest.fixture(scope="module")
def libvirt_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libvirt keeps what it found out about each emulator, which takes it seconds."""
    root = tmp_path_factory.mktemp("libvirt")
    prepare_root(root, tmp_path_factory.mktemp("cache"))
    return root


def command(domain: Domain, root: Path) -> list[str]:
    """Return how libvirt would start this domain, without the parts that only it can use."""
    xml = Path(domain.directory) / "domain.xml"
    xml.write_text(render(domain))
    uri = f"qemu:///embed?root={root}"
    virsh = ["virsh", "-q", "-c", uri, "domxml-to-native", "qemu-argv", "--xml", str(xml)]
    done = subprocess.run(virsh, capture_output=True, text=True, check=True, timeout=LIMIT)
    _, emulator, options = done.stdout.partition(domain.emulator)
    assert emulator, done.stderr
    words = iter(shlex.split(emulator + options))
    kept = [next(words)]
    for word in words:
        if any(name in word for name in ("masterKey", "charmonitor")):
            kept.pop()  # the option that it belongs to
        else:
            kept.append(word)
    return kept


@contextmanager
def started(architecture: str, clock: GuestClock, directory: Path, root: Path) -> Iterator[Guest]:
    """Boot the shipped Linux of this architecture, with this clock, until it beats."""
    parsed = parse_guest((DOMAINS / f"linux-{architecture}.toml").read_bytes(), "linux", directory=str(DOMAINS))
    spec = replace(parsed.spec, clock=clock)
    domain = Domain(
        spec=spec,
        placement=Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,), held=(2,)),
        accelerator=Accelerator.TCG,
        owner="tester",
        specification=encode_guest(spec),
        emulator=f"/usr/bin/{TRAITS[spec.architecture].emulator}",
        directory=str(directory),
        uuid="3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4a",
    )
    with ExitStack() as stack:
        qemu = stack.enter_context(subprocess.Popen(command(domain, root), stdin=subprocess.DEVNULL))
        stack.callback(qemu.kill)
        monitor = stack.enter_context(connected(domain.monitor_socket, qemu))
        guest = Guest(stack.enter_context(connected(domain.serial_socket, qemu)), monitor)
        assert "QMP" in next(monitor)
        for each in ("qmp_capabilities", "cont"):
            guest.do(each)
        guest.says("heartbeat 1")
        yield guest


@contextmanager
def connected(path: str, qemu: subprocess.Popen[bytes]) -> Iterator[IO[str]]:
    end = time.monotonic() + LIMIT
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(LIMIT)
        while port.connect_ex(path):
            assert qemu.poll() is None, "QEMU ended"
            assert time.monotonic() < end, f"nobody listens at {path}"
            time.sleep(0.01)
        stream: Any = port.makefile("rw", errors="replace")
        with stream:
            yield stream


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_hardware_clock_stops_or_follows_and_the_kernels_own_clocks_stop(
    architecture: str, libvirt_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ExitStack() as stack:
        guests = {
            clock: stack.enter_context(started(architecture, clock, tmp_path_factory.mktemp("g"), libvirt_root))
            for clock in GuestClock
        }
        began = time.monotonic()
        before = {clock: guest.type("clocks") for clock, guest in guests.items()}
        for guest in guests.values():
            guest.do("stop")
        stopped = time.monotonic()
        time.sleep(PAUSE)
        stood = time.monotonic() - stopped
        for guest in guests.values():
            guest.do("cont")
        after = {clock: guest.type("clocks") for clock, guest in guests.items()}
        total = time.monotonic() - began
        for clock, guest in guests.items():
            ran = after[clock].up - before[clock].up
            assert 0 <= ran <= total - stood + 0.05, "CLOCK_MONOTONIC stands still"
            assert abs(after[clock].system - before[clock].system - ran) <= 1, "and so does CLOCK_REALTIME"
            stayed_behind = stood - (after[clock].hardware - before[clock].hardware - ran)
            expected = {GuestClock.STOPS: stood, GuestClock.FOLLOWS: 0.0}[clock]
            assert abs(stayed_behind - expected) <= 1.1, f"the hardware clock {clock}"
            check_setting(clock, guest)


def check_setting(clock: GuestClock, guest: Guest) -> None:
    """A guest that sets its clock by the hardware's is right, if that one followed."""
    asked = time.time()
    clocks = guest.type("settime")
    behind = asked - clocks.system
    if clock is GuestClock.FOLLOWS:
        assert asked - 2 <= clocks.system <= time.time() + 1
    else:
        assert behind > PAUSE - 2
