"""libvirt behind the Hypervisor port: the embedded driver, the system's daemon, or any other URI."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

import libvirt
from lxml import etree

from orchestrator.core.placement import Placement
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.metadata import NAMESPACE, mark_paused, mark_placed, read_metadata
from orchestrator.errors import FailedError, HostError, OutcomeUnknownError
from orchestrator.ports import EVENTS_THREAD, SHUT_OFF, DomainEvent, DomainEventKind, LiveDomain

_T = TypeVar("_T")

Begin = Callable[[str, Callable[[], object]], object]
"""Makes the call that starts a guest by this XML, in which libvirt's embedded driver makes its process."""

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}

_STOPPED_DETAILS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "QEMU failed",
}

_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)


REOPEN_EVERY = 0.5
"""Seconds between two tries to reach libvirt again, after it went away."""

REOPEN_LIMIT = 60.0
"""Seconds for which a call waits for libvirt to come back."""


class LibvirtHypervisor:
    """One open connection. Calls run in worker threads (libvirt blocks), events arrive on the asyncio loop.

    libvirt's own event loop turns in a thread of its own: driver code adds and changes its handles from
    whichever thread makes a call, and asyncio's must not be touched from outside.

    A daemon that goes away takes no guest along: the connection is opened anew as soon as one is there again, and
    calls are made again then; all of them may be made twice. What happened to guests meanwhile is told by nobody here:
    their own monitors know. `tell` is given a line when it goes, and one when it is back; `begin` makes the calls that
    start guests.
    """

    def __init__(
        self,
        connection: Any,
        uri: str,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[str], None] = lambda _: None,
        begin: Begin = lambda _, act: act(),
    ) -> None:
        self._begin = begin
        self._uri = uri
        self._loop = loop
        self._tell = tell
        self._events: asyncio.Queue[DomainEvent] = asyncio.Queue()
        self._whole = asyncio.Event()
        self._reopening: asyncio.Task[None] | None = None
        self._take(connection)

    @classmethod
    async def open(
        cls, uri: str, tell: Callable[[str], None] = lambda _: None, begin: Begin = lambda _, act: act()
    ) -> Self:
        """Connect; HostError says why it cannot be done."""
        _turn_event_loop()
        try:
            return cls(await asyncio.to_thread(libvirt.open, uri), uri, asyncio.get_running_loop(), tell, begin)
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt cannot be reached at {uri}: {error}; `orchestrator doctor` may know why"
            ) from error

    async def close(self) -> None:
        """Leave; what runs goes on running."""
        if self._reopening is not None:
            self._reopening.cancel()
        with contextlib.suppress(libvirt.libvirtError):  # a connection that broke has nothing to leave
            self._connection.domainEventDeregisterAny(self._callback)
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            await asyncio.to_thread(self._connection.close)

    async def start_paused(self, xml: str) -> None:
        """Define the domain and start it with its vCPUs stopped; on failure nothing of it is left."""
        uuid = await self._call(lambda line: line.defineXML(xml).UUIDString(), "libvirt refuses the definition")
        tried = False

        def start(line: Any) -> None:
            """Start it; if it runs when we come for the second time, it was started and the answer got lost."""
            nonlocal tried
            domain = line.lookupByUUIDString(uuid)
            if not (tried and domain.isActive()):
                tried = True
                self._begin(xml, lambda: domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED))

        try:
            await self._call(start, "the guest does not start")
        except BaseException:
            await self._undo(lambda line: _undefine(line.lookupByUUIDString(uuid)))
            raise

    async def remove(self, uuid: str) -> bool:
        """Destroy and undefine the domain; False if there was none. Another one of the same name is left alone."""
        try:
            await self._made(lambda line: line.lookupByUUIDString(uuid))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise FailedError(f"{uuid}: libvirt cannot look this domain up: {error}") from error
        await self._undo(lambda line: line.lookupByUUIDString(uuid).destroy())
        await self._undo(lambda line: _undefine(line.lookupByUUIDString(uuid)))
        return True

    async def mark_paused(self, uuid: str, *, paused: bool) -> None:
        """Note in the metadata, of the live domain and of its definition, whether its user has paused it."""
        await self._mark(uuid, lambda guest: mark_paused(guest, paused=paused))

    async def mark_placed(self, uuid: str, placement: Placement) -> None:
        """Note in the metadata, of the live domain and of its definition, where the guest is to be."""
        await self._mark(uuid, lambda guest: mark_placed(guest, placement))

    async def set_vcpus(self, uuid: str, cores: Sequence[int]) -> None:
        """Have as many vCPUs as there are cores, the thread of a new one from its first moment on its own.

        FailedError if QEMU or the guest refuses; OutcomeUnknownError if the guest has not let go of one within the
        five seconds that libvirt waits. It may still do so later.
        """
        try:
            await self._made(lambda line: _set_vcpus(line, uuid, cores))
        except libvirt.libvirtError as error:
            what = f"its vCPUs cannot be made {len(cores)}: {error}"
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT or "timed out" in str(error):
                raise OutcomeUnknownError(what) from error
            raise FailedError(what) from error

    async def domains(self) -> Sequence[LiveDomain]:
        """Return the domains of ours, by name."""
        return await self._call(_domains, "libvirt cannot list its domains")

    async def events(self) -> AsyncIterator[DomainEvent]:
        """Yield domains that stopped or crashed, from the moment the connection was opened."""
        while True:
            yield await self._events.get()

    async def _call(self, act: Callable[[Any], _T], what: str) -> _T:
        try:
            return await self._made(act)
        except libvirt.libvirtError as error:
            raise FailedError(f"{what}: {error}") from error

    async def _mark(self, uuid: str, change: Callable[[Element], None]) -> None:
        await self._call(lambda line: _change_metadata(line, uuid, change), f"{uuid}: its metadata cannot be changed")

    async def _undo(self, act: Callable[[Any], object]) -> None:
        """Destroy or undefine; a domain that is not there or does not run is what was wanted."""
        try:
            await self._made(act)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _GONE:
                raise FailedError(f"the guest could not be removed: {error}") from error

    async def _made(self, act: Callable[[Any], _T]) -> _T:
        """Make a call, and make it again if libvirt goes away meanwhile; FailedError if it does not come back."""
        while True:
            try:
                await asyncio.wait_for(self._whole.wait(), REOPEN_LIMIT)
            except TimeoutError:
                raise FailedError(
                    f"libvirt has gone away from {self._uri}, and was not back within {REOPEN_LIMIT:g} s; guests go on"
                ) from None
            connection = self._connection
            try:
                return await asyncio.to_thread(act, connection)
            except libvirt.libvirtError:
                if connection.isAlive():
                    raise
                self._gone(connection)

    def _take(self, connection: Any) -> None:
        """Use this connection from now on."""
        self._callback = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
        )
        with contextlib.suppress(libvirt.libvirtError):  # the embedded driver cannot go away without us
            connection.registerCloseCallback(self._on_close, None)
        self._connection = connection
        self._whole.set()

    def _gone(self, connection: Any) -> None:
        """Begin to open a new connection in place of this one, once."""
        if connection is self._connection and self._whole.is_set():
            self._whole.clear()
            self._reopening = asyncio.create_task(self._reopen())

    async def _reopen(self) -> None:
        self._tell(f"libvirt has gone away from {self._uri}: guests go on and take turns, starts and ends wait for it")
        while True:
            try:
                connection = await asyncio.to_thread(libvirt.open, self._uri)
                self._take(connection)
            except libvirt.libvirtError:
                await asyncio.sleep(REOPEN_EVERY)
            else:
                self._tell(f"libvirt is back at {self._uri}")
                return

    def _on_close(self, connection: Any, reason: int, _opaque: object) -> None:
        if reason != libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT:  # else we did it
            self._loop.call_soon_threadsafe(self._gone_from, connection)

    def _gone_from(self, _connection: Any) -> None:
        if not self._connection.isAlive():
            self._gone(self._connection)

    def _on_event(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            word = _STOPPED_DETAILS.get(detail, "stopped")
            kind = DomainEventKind.CRASHED if word in ("crashed", "QEMU failed") else DomainEventKind.STOPPED
        elif event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            kind, word = DomainEventKind.CRASHED, "guest panicked"
        else:
            return
        self._loop.call_soon_threadsafe(self._events.put_nowait, DomainEvent(domain.name(), kind, word))


def _domains(connection: Any) -> list[LiveDomain]:
    found = []
    for domain in connection.listAllDomains():
        try:
            described = _describe(domain)
        except libvirt.libvirtError:
            if not connection.isAlive():
                raise
            continue  # it went away while we looked
        if described is not None:
            found.append(described)
    return sorted(found, key=lambda each: each.name)


def _set_vcpus(connection: Any, uuid: str, cores: Sequence[int]) -> None:
    domain, live = connection.lookupByUUIDString(uuid), libvirt.VIR_DOMAIN_AFFECT_LIVE
    for index in range(domain.vcpusFlags(live), len(cores)):  # before it is there: its thread begins where this says
        domain.pinVcpuFlags(index, tuple(core == cores[index] for core in range(max(cores) + 1)), live)
    domain.setVcpusFlags(len(cores), live)


def _change_metadata(connection: Any, uuid: str, change: Callable[[Element], None]) -> None:
    domain = connection.lookupByUUIDString(uuid)
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    guest = etree.fromstring(domain.metadata(kind, NAMESPACE), etree.XMLParser(resolve_entities=False))
    change(guest)
    where = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
    domain.setMetadata(kind, etree.tostring(guest, encoding="unicode"), "orchestrator", NAMESPACE, where)


def _undefine(domain: Any) -> None:
    """Forget a domain and, with UEFI, the variables it kept; drivers without firmware do not know that flag."""
    try:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.undefine()


def _describe(domain: Any) -> LiveDomain | None:
    tree = etree.fromstring(domain.XMLDesc().encode(), etree.XMLParser(resolve_entities=False))
    guest = tree.find(f"metadata/{{{NAMESPACE}}}guest")
    metadata = None if guest is None else read_metadata(guest)
    if metadata is None:
        return None
    return LiveDomain(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=_STATES.get(domain.state()[0], "unknown"),
        pid=None,  # libvirt does not tell; the caller finds it by uuid
        metadata=metadata,
    )


_turning = threading.Lock()
_threads: list[threading.Thread] = []


def _turn_event_loop() -> None:
    """Register libvirt's event loop, once in a process, and turn it in a thread that never holds up the exit."""
    with _turning:
        if _threads:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised; stderr is the user's

        def turn() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        _threads.append(threading.Thread(target=turn, name=EVENTS_THREAD, daemon=True))
        _threads[0].start()
