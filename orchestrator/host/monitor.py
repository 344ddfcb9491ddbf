"""QMP through qemu.qmp: our own monitor of each guest, beside libvirt's.

Commands of a hand-over take a short cut on the same connection: what the library does for each command, with tasks and
queues of its own, takes longer than QEMU needs to stop or continue a guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, cast

from qemu.qmp import QMPClient, QMPError, Runstate

from orchestrator.core.life import TOLD
from orchestrator.errors import FailedError
from orchestrator.ports import Machine, ThreadRoles
from orchestrator.shortcut import ANSWER_LIMIT, Lookout, ShortCut, unknown

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())  # it raises what it also logs; stderr is the user's

CONNECT_LIMIT = 30.0
"""Seconds in which QEMU must greet us; it listens before it runs, so only a very slow host needs many."""

_NO_LIMIT = 1 << 40
"""Bytes a second for a state, where QEMU's own limit is that of a network: 128 MiB."""

_STATE = "orchestrator-state"
_LOOK_EVERY = 0.002
"""Seconds between two looks at how far a state has got: without RAM it takes three milliseconds."""


_FORMATS = ("raw", "qcow2")


class QmpMonitor:
    """One negotiated connection. Closing it leaves the guest as it is."""

    def __init__(self, client: _Client, socket: str, lookout: Lookout) -> None:
        self._client = client
        self._socket = socket
        self._turns = client.short_cut(socket, lookout)

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
        await self.begin_to_resume()

    def begin_to_resume(self) -> Awaitable[None]:
        """Send ``cont`` at once."""
        return self._turns.ask("cont")

    async def suspend(self) -> None:
        """Send ``stop``; QEMU answers once all vCPUs have stopped."""
        await self._turns.ask("stop")

    async def status(self) -> str:
        """Ask ``query-status``."""
        status = cast(dict[str, Any], await self._ask("query-status"))
        return str(status["status"])

    async def images(self) -> Mapping[str, str]:
        """Ask ``query-named-block-nodes`` which files QEMU has opened as disks, those that images name among them.

        Formats are nodes too, above those of their files.
        """
        return {node["node-name"]: node["file"] for node in await self._nodes() if node["drv"] not in _FORMATS}

    async def disks(self) -> Mapping[str, int]:
        """Ask ``query-named-block-nodes`` how large the disks are in the images that are open for writing."""
        writable = [node for node in await self._nodes() if node["drv"] in _FORMATS and not node["ro"]]
        return {node["file"]: node["image"]["virtual-size"] for node in writable}

    async def _nodes(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], await self._ask("query-named-block-nodes"))

    async def machine(self) -> Machine:
        """Ask ``query-version``, and the machine object for its type."""
        version = cast(dict[str, Any], await self._ask("query-version"))["qemu"]
        kind = str(await self._ask("qom-get", path="/machine", property="type"))
        qemu = ".".join(str(version[part]) for part in ("major", "minor", "micro"))
        return Machine(qemu, kind.removesuffix("-machine"))

    async def save(self, path: str, *, skip_shared: bool) -> None:
        """Migrate into a file, whose descriptor is passed: QEMU need not be able to open it."""
        if await self.status() == "postmigrate":
            raise FailedError(
                f"{self._socket}: its state has been written since it last ran; QEMU does so only once: resume it"
            )
        await self._ask("migrate-set-parameters", **{"max-bandwidth": _NO_LIMIT})
        handle = await asyncio.to_thread(_open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            await self._hand_over(handle, skip_shared)
            await self._ask("migrate", uri=f"fd:{_STATE}")
            await self._until_moved("saved")
        except BaseException:
            await asyncio.shield(self.stop_saving())
            raise

    async def load(self, path: str, *, skip_shared: bool) -> None:
        """Migrate from a file, whose descriptor is passed."""
        handle = await asyncio.to_thread(_open, path, os.O_RDONLY)
        await self._hand_over(handle, skip_shared)
        await self._ask("migrate-incoming", uri=f"fd:{_STATE}")
        await self._until_moved("restored")

    async def stop_saving(self) -> None:
        """Send ``migrate_cancel``."""
        with contextlib.suppress(FailedError):  # a guest that has gone saves nothing
            await self._ask("migrate_cancel")

    async def _hand_over(self, handle: int, skip_shared: bool) -> None:
        """Give QEMU a file, under a name, and close it here; say whether memory in shared files is left out."""
        try:
            capability = {"capability": "x-ignore-shared", "state": skip_shared}
            await self._ask("migrate-set-capabilities", capabilities=[capability])
            self._client.send_fd_scm(handle)
            await self._ask("getfd", fdname=_STATE)
        except (QMPError, OSError) as error:
            raise FailedError(f"{self._socket}: a file cannot be passed: {error}") from error
        finally:
            os.close(handle)

    async def _until_moved(self, done: str) -> None:
        """Return when all has been written or read; FailedError if it has failed, or nothing moves any more."""
        moved, since, loop = -1, 0.0, asyncio.get_running_loop()
        while True:
            told = cast(dict[str, Any], await self._ask("query-migrate"))
            status, now = told.get("status"), loop.time()
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                why = told.get("error-desc") or f"the state does not fit it, or could not be written: {status}"
                raise FailedError(f"{self._socket}: the guest could not be {done}: {why}")
            progress = told.get("ram", {}).get("transferred", 0)
            if progress != moved:
                moved, since = progress, now
            elif now - since > ANSWER_LIMIT:
                raise FailedError(
                    f"{self._socket}: the guest could not be {done}: nothing moved for {ANSWER_LIMIT:g} s"
                )
            await asyncio.sleep(_LOOK_EVERY)

    async def human(self, command: str, vcpu: int) -> str:
        """Send ``human-monitor-command``."""
        return cast(str, await self._ask("human-monitor-command", **{"command-line": command, "cpu-index": vcpu}))

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

    async def _ask(self, command: str, **arguments: object) -> object:
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments or None), ANSWER_LIMIT)
        except TimeoutError:
            raise unknown(self._socket, command) from None
        except QMPError as error:
            raise FailedError(f"{self._socket}: {command!r} failed: {error}") from error


class _Client(QMPClient):
    """The library's client, whose connection can be listened in on."""

    def short_cut(self, socket: str, lookout: Lookout) -> ShortCut:
        """Put a listener before the library's own; call it once, when the session is there."""
        assert self._writer is not None
        transport = self._writer.transport
        behind = cast(asyncio.Protocol, transport.get_protocol())
        turns = ShortCut(socket, transport, behind, lookout, TOLD)
        transport.set_protocol(turns)
        return turns


class QmpMonitors:
    """Connects monitors; those of one event loop look out for answers together."""

    def __init__(self) -> None:
        self._lookout: Lookout | None = None

    async def connect(self, socket: str) -> QmpMonitor:
        """Connect and negotiate; FailedError if QEMU does not greet within the limit."""
        client = _Client("orchestrator")
        client.events.names.update(TOLD)  # it keeps what it hears for ever, and STOP and RESUME come with every turn
        try:
            await asyncio.wait_for(client.connect(socket), CONNECT_LIMIT)
        except (TimeoutError, QMPError, OSError) as error:
            reason = f"no greeting within {CONNECT_LIMIT:g} s" if isinstance(error, TimeoutError) else error
            raise FailedError(f"{socket}: cannot talk to the guest's monitor: {reason}") from error
        if self._lookout is None or self._lookout.loop is not asyncio.get_running_loop():
            self._lookout = Lookout()
        return QmpMonitor(client, socket, self._lookout)


def _told(message: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return message["event"], message.get("data", {})


def _open(path: str, flags: int) -> int:
    """Open the file of a state; FailedError if it cannot be, or is there already and should not."""
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FailedError(f"{path}: the file of the state cannot be opened: {error.strerror}") from error
