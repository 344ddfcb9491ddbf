"""Bare QEMUs with the arguments that a definition's XML has for its payload: guests without libvirt, engine or pool."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lxml import etree

from orchestrator.config import encode_guest, parse_guest
from orchestrator.core.arch import TRAITS
from orchestrator.core.model import GuestSpec, KernelBoot, PayloadBoot
from orchestrator.core.payloads import MappedPayload
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.smaps import Share, shares
from orchestrator.core.xml.domain import Accelerator
from orchestrator.core.xml.memory import with_payload
from orchestrator.core.xml.render import render
from orchestrator.launch import Guest

DOMAINS = Path(__file__).parents[2] / "domains"
LIMIT = 240.0
"""Seconds after which a guest is given up; on an idle machine the slowest takes one, and a Linux ten."""

_ARGUMENT = "{http://libvirt.org/schemas/domain/qemu/1.0}commandline/{http://libvirt.org/schemas/domain/qemu/1.0}arg"


@dataclass
class Running:
    """A guest that runs. Its serial port prints to a file, and reads from `said`."""

    spec: GuestSpec
    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def lines(self) -> list[str]:
        return (self.directory / "serial.log").read_bytes().decode(errors="replace").splitlines()[:-1]

    @property
    def monitor(self) -> str:
        return str(self.directory / "monitor.sock")

    def says(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def value(self, key: str) -> str:
        """Return what it said after a word."""
        return next(line.removeprefix(f"{key} ") for line in self.lines if line.startswith(f"{key} "))

    def counters(self) -> list[int]:
        """Return the program counters that came with its heartbeats."""
        return [int(line.rpartition(" pc ")[2], 16) for line in self.lines if line.startswith("heartbeat ")]

    def shares(self, below: Path) -> list[Share]:
        return shares(Path(f"/proc/{self.process.pid}/smaps").read_text(), str(below))


def definition(name: str) -> GuestSpec:
    """Return a definition of domains/, by its path without the end."""
    path = DOMAINS / f"{name}.toml"
    return parse_guest(path.read_bytes(), str(path), directory=str(path.parent)).spec


def command(spec: GuestSpec, mapped: MappedPayload | None, directory: Path) -> list[str]:
    """Return how QEMU is started for a guest: the machine as libvirt would make it, and what our XML adds to it."""
    traits = TRAITS[spec.architecture]
    guest = Guest(spec=spec, specification=encode_guest(spec), owner="alice", emulator="", accelerator=Accelerator.TCG)
    domain = guest.placed(Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,)), str(directory))
    if mapped is not None:
        domain = with_payload(domain, mapped)
    xml = etree.fromstring(render(domain))
    match spec.boot:
        case PayloadBoot(payload=payload):
            boot = ["-kernel", payload]
        case KernelBoot(kernel=kernel, initrd=initrd, cmdline=cmdline):
            boot = ["-kernel", kernel, "-initrd", str(initrd), "-append", cmdline]
        case _:
            raise AssertionError(spec.boot)
    return [
        *(traits.emulator, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"),
        *("-machine", traits.machine, "-cpu", traits.tcg_cpu, "-m", f"{spec.memory // 2**20}M", *boot),
        *("-chardev", f"stdio,id=serial,logfile={directory}/serial.log,signal=off", "-serial", "chardev:serial"),
        *(argument.get("value") for argument in xml.findall(_ARGUMENT)),
    ]


@contextlib.contextmanager
def running(wanted: Sequence[tuple[GuestSpec, MappedPayload | None]], directory: Path) -> Iterator[list[Running]]:
    """Run guests at the same time."""
    guests: list[Running] = []
    try:
        for number, (spec, mapped) in enumerate(wanted):
            home = directory / f"{number}"
            home.mkdir()
            with (home / "stderr").open("wb") as errors:
                process = subprocess.Popen(
                    command(replace(spec, name=f"{spec.name}-{number}"), mapped, home),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            (home / "serial.log").touch()
            guests.append(Running(spec, process, home))
        yield guests
    finally:
        for guest in guests:
            guest.process.kill()
            guest.process.communicate()


def wait_until(condition: Callable[[], bool], guests: Sequence[Running]) -> None:
    """Return when it holds; fail if it does not within the limit, with what guests and QEMUs have said."""
    until = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > until:
            said = [(guest.spec.name, guest.lines[-3:], (guest.directory / "stderr").read_text()) for guest in guests]
            raise AssertionError(f"not within {LIMIT:g} s: {said}")
        time.sleep(0.1)
