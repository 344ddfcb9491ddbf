"""The rivals of `bench handover`: QMP with nothing around it, and libvirt.

Both block the thread that calls, as whoever writes such a loop would have it; the engine stands still meanwhile.
A QMP socket talks to one client at a time and the engine has ours, so guests of the benchmark have another one.

Import this module only once the environment says where libvirt's warnings go: it reads that as it is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Self

import libvirt
from lxml import etree

from orchestrator.bench.handover import BARE, LIBVIRT
from orchestrator.core.xml.monitor import QEMU_NAMESPACE
from orchestrator.errors import FailedError

_LIMIT = 60.0  # seconds; no QEMU that answers at all takes so long


class BareLoop:
    """Hand-overs by two raw Unix sockets and blocking I/O: a command, then lines until its answer."""

    def __init__(self, sockets: Mapping[str, str]) -> None:
        """Connect to each guest's spare monitor: its name to the path of the socket."""
        self._monitors: dict[str, _Bare] = {}
        try:
            for guest, path in sockets.items():
                self._monitors[guest] = _Bare(path)
        except BaseException:
            self.close()
            raise

    async def hand_over(self, old: str, new: str) -> dict[str, float]:
        """Stop one guest, let the other run, and return the seconds from the first command to the last answer."""
        leaving, coming = self._monitors[old], self._monitors[new]
        leaving.forget()
        coming.forget()
        start = perf_counter()
        leaving.ask(b"stop")
        coming.ask(b"cont")
        return {BARE: perf_counter() - start}

    def close(self) -> None:
        """Hang up; guests stay as they are."""
        for monitor in self._monitors.values():
            monitor.close()


class LibvirtLoop:
    """Hand-overs by libvirt, on a connection of its own beside the engine's."""

    def __init__(self, connection: Any, domains: Mapping[str, Any]) -> None:
        self._connection = connection
        self._domains = domains

    @classmethod
    def open(cls, uri: str, uuids: Mapping[str, str]) -> Self:
        """Connect, and look the guests up: each name to its uuid. libvirt's event loop must turn already."""
        try:
            connection = libvirt.open(uri)
            return cls(connection, {name: connection.lookupByUUIDString(uuid) for name, uuid in uuids.items()})
        except libvirt.libvirtError as error:
            raise FailedError(f"{uri}: libvirt does not show the guests to measure: {error}") from error

    async def hand_over(self, old: str, new: str) -> dict[str, float]:
        """Stop one guest, let the other run, and return the seconds that both calls took."""
        leaving, coming = self._domains[old], self._domains[new]
        await _until_seen(leaving, libvirt.VIR_DOMAIN_RUNNING)
        await _until_seen(coming, libvirt.VIR_DOMAIN_PAUSED)
        start = perf_counter()
        leaving.suspend()
        coming.resume()
        return {LIBVIRT: perf_counter() - start}

    def close(self) -> None:
        """Hang up; guests stay as they are."""
        self._connection.close()


async def _until_seen(domain: Any, state: int) -> None:
    """Return when libvirt has taken in what another monitor did to a guest, of which it is told by an event."""
    limit = perf_counter() + _LIMIT
    while domain.state()[0] != state:
        if perf_counter() > limit:
            raise FailedError(f"{domain.name()}: libvirt does not see within {_LIMIT:g} s what its monitor was told")
        await asyncio.sleep(0.001)


def libvirt_version() -> str:
    """Return the version of the libvirt library."""
    number = libvirt.getVersion()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def with_spare_monitor(xml: str, sockets: Mapping[str, str]) -> str:
    """Return a domain's XML with one more QMP socket in it, at the path that its name stands for."""
    domain = etree.fromstring(xml.encode())
    (commandline,) = domain.findall(f"{{{QEMU_NAMESPACE}}}commandline")
    escaped = sockets[domain.findtext("name")].replace(",", ",,")  # QEMU option syntax: a doubled comma is a comma
    for value in (
        "-chardev",
        f"socket,id=spare-monitor,path={escaped},server=on,wait=off",
        "-mon",
        "chardev=spare-monitor,id=spare,mode=control",
    ):
        etree.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", value=value)
    return str(etree.tostring(domain, encoding="unicode"))


class _Bare:
    """One QMP socket, negotiated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._unread = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT)
        try:
            self._socket.connect(path)
            self._line()  # the greeting
            self.ask(b"qmp_capabilities")
        except OSError as error:
            self.close()
            raise FailedError(f"{path}: cannot talk to the guest's spare monitor: {error}") from error

    def ask(self, command: bytes) -> None:
        """Have a command done; return at its answer, over events that come before it."""
        self._socket.sendall(b'{"execute": "%b"}\n' % command)
        while not (line := self._line()).startswith(b'{"return"'):
            if line.startswith(b'{"error"'):
                raise FailedError(f"{self._path}: {command!r} failed: {line.decode('utf-8', 'replace').strip()}")

    def forget(self) -> None:
        """Read away the events of what others did."""
        self._unread = b""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(65536):
                pass
        self._socket.settimeout(_LIMIT)

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            received = self._socket.recv(65536)
            if not received:
                raise FailedError(f"{self._path}: QEMU hung up while it was being measured")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line
