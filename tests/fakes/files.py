"""Run directories in memory."""

from __future__ import annotations

from collections.abc import Mapping
from posixpath import basename

from orchestrator.core.files import GuestFile
from orchestrator.errors import FailedError
from orchestrator.ports import SerialText
from tests.fakes.host import FakeHost


class FakeFiles:
    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def directory(self, name: str) -> str:
        return f"/run/orchestrator/guests/{name}"

    async def prepare(
        self,
        name: str,
        overlays: Mapping[str, tuple[str, str]],
        pins: Mapping[str, GuestFile],
        owner: str,
        copies: Mapping[str, str],
    ) -> Mapping[str, int]:
        self._host.trace.append(f"prepare {name}")
        self._host.files[name] = {}
        if name in self._host.faults.prepare:
            raise FailedError(f"{name}: no overlay could be made: it was told to fail")
        for pin, file in pins.items():
            why = self._host.closed.get(file.path)
            if why:
                raise FailedError(f"{name}: {file.path} {why}")
            self._host.files[name][basename(pin)] = f"{owner}: {file.path}".encode()
        for overlay, (image, _) in overlays.items():
            self._host.files[name][basename(overlay)] = image.encode()
        for overlay, saved in copies.items():
            if saved not in self._host.disk:
                raise FailedError(f"{overlay}: cannot be a copy of the saved one: it is not there")
            self._host.files[name][basename(overlay)] = self._host.disk[saved]
        return {pin: self._host.sizes.get(file.path, 0) for pin, file in pins.items() if file.format is not None}

    def discard(self, name: str) -> None:
        self._host.trace.append(f"discard {name}")
        files = self._host.files.get(name, {})
        for file in [each for each in files if each != "serial.log"]:
            del files[file]

    def serial_log(self, name: str, start: int = 0, most: int = -1) -> SerialText:
        text = self._host.files.get(name, {}).get("serial.log", b"")[start:]
        text = text if most < 0 else text[:most]
        return SerialText(text, start + len(text))
