"""QMP through qemu.qmp: our own monitor of each guest, beside libvirt's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from qemu.qmp import QMPClient, QMPError, Runstate

from orchestrator.core.life import TOLD
from orchestrator.errors import FailedError, OutcomeUnknownError
from orchestrator.ports import ThreadRoles

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())  # it raises what it also logs; stderr is the user's

CONNECT_LIMIT = 30.0
"""Seconds in which QEMU must greet us; it listens before it runs, so only a very slow host needs many."""

ANSWER_LIMIT = 30.0
"""Seconds in which QEMU must answer a command."""


_FORMATS = ("raw", "qcow2")


class QmpMonitor:
    """One negotiated connection. Closing it leaves the guest as it is."""

    def __init__(self, client: QMPClient, socket: str) -> None:
        self._client = client
        self._socket = socket

    async def thread_roles(self) -> ThreadRoles:
        """Ask ``query-cpus-fast`` and ``query-iothreads`` which thread is which."""
        cpus = cast(list[dict[str, Any]], await self._ask("query-cpus-fast"))
        iothreads = cast(list[dict[str, Any]], await self._ask("query-iothreads"))
        return ThreadRoles(
            vcpus={cpu["cpu-index"]: cpu["thread-id"] for cpu in cpus},
            iothreads={thread["id"]: thread["thread-id"] for thread in iothreads},
        )

    async def resume(self) -> None:
        """Send ``cont``; QEMU answers once the vCPUs were told to run."""
        await self._ask("cont")

    async def suspend(self) -> None:
        """Send ``stop``; QEMU answers once all vCPUs have stopped."""
        await self._ask("stop")

    async def status(self) -> str:
        """Ask ``query-status``."""
        status = cast(dict[str, Any], await self._ask("query-status"))
        return str(status["status"])

    async def images(self) -> Mapping[str, str]:
        """Ask ``query-named-block-nodes`` which files QEMU has opened as disks, those that images name among them.

        Formats are nodes too, above those of their files.
        """
        nodes = cast(list[dict[str, Any]], await self._ask("query-named-block-nodes"))
        return {node["node-name"]: node["file"] for node in nodes if node["drv"] not in _FORMATS}

    async def powerdown(self) -> None:
        """Send ``system_powerdown``: ACPI's power button, or what the machine has in its place."""
        await self._ask("system_powerdown")

    async def events(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Yield what QEMU tells until it has closed the connection, or we have."""
        heard = self._client.events
        closed, hearing = asyncio.create_task(self._closed()), asyncio.create_task(heard.get())
        try:
            while not closed.done():
                await asyncio.wait({hearing, closed}, return_when=asyncio.FIRST_COMPLETED)
                if hearing.done():
                    told, hearing = hearing.result(), asyncio.create_task(heard.get())
                    yield _told(told)
        finally:
            closed.cancel()
            hearing.cancel()
        while not heard.empty():  # its last words
            yield _told(await heard.get())

    async def close(self) -> None:
        """Hang up; a guest that has gone meanwhile is no error."""
        try:
            await self._client.disconnect()
        except (QMPError, EOFError, OSError):
            return

    async def _closed(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def _ask(self, command: str) -> object:
        try:
            return await asyncio.wait_for(self._client.execute(command), ANSWER_LIMIT)
        except TimeoutError:
            raise OutcomeUnknownError(
                f"{self._socket}: no answer to {command!r} within {ANSWER_LIMIT:g} s; the guest may or may not obey"
            ) from None
        except QMPError as error:
            raise FailedError(f"{self._socket}: {command!r} failed: {error}") from error


class QmpMonitors:
    """Connects monitors."""

    async def connect(self, socket: str) -> QmpMonitor:
        """Connect and negotiate; FailedError if QEMU does not greet within the limit."""
        client = QMPClient("orchestrator")
        client.events.names.update(TOLD)  # it keeps what it hears for ever, and STOP and RESUME come with every turn
        try:
            await asyncio.wait_for(client.connect(socket), CONNECT_LIMIT)
        except (TimeoutError, QMPError, OSError) as error:
            reason = f"no greeting within {CONNECT_LIMIT:g} s" if isinstance(error, TimeoutError) else error
            raise FailedError(f"{socket}: cannot talk to the guest's monitor: {reason}") from error
        return QmpMonitor(client, socket)


def _told(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return message["event"], message.get("data", {})
