"""libvirt behind the Hypervisor port: the embedded driver, the system's daemon, or any other URI."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

import libvirt
from lxml import etree

from orchestrator.core.xml.metadata import NAMESPACE, mark_paused, read_metadata
from orchestrator.errors import FailedError, HostError
from orchestrator.ports import SHUT_OFF, DomainEvent, DomainEventKind, LiveDomain

_T = TypeVar("_T")

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


class LibvirtHypervisor:
    """One open connection. Calls run in worker threads (libvirt blocks), events arrive on the asyncio loop.

    libvirt's own event loop turns in a thread of its own: driver code adds and changes its handles from
    whichever thread makes a call, and asyncio's must not be touched from outside.
    """

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._events: asyncio.Queue[DomainEvent] = asyncio.Queue()
        self._callback = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
        )

    @classmethod
    async def open(cls, uri: str) -> Self:
        """Connect; HostError says why it cannot be done."""
        _turn_event_loop()
        try:
            return cls(await asyncio.to_thread(libvirt.open, uri), asyncio.get_running_loop())
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt cannot be reached at {uri}: {error}; `orchestrator doctor` may know why"
            ) from error

    async def close(self) -> None:
        """Leave; what runs goes on running."""
        with contextlib.suppress(libvirt.libvirtError):  # a connection that broke has nothing to leave
            self._connection.domainEventDeregisterAny(self._callback)
        with contextlib.suppress(libvirt.libvirtError):
            await asyncio.to_thread(self._connection.close)

    async def start_paused(self, xml: str) -> None:
        """Define the domain and start it with its vCPUs stopped; on failure nothing of it is left."""
        domain = await self._call(lambda: self._connection.defineXML(xml), "libvirt refuses the definition")
        try:
            await self._call(
                lambda: domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED), "the guest does not start"
            )
        except BaseException:
            await self._undo(lambda: _undefine(domain))
            raise

    async def remove(self, uuid: str) -> bool:
        """Destroy and undefine the domain; False if there was none. Another one of the same name is left alone."""
        try:
            domain = await asyncio.to_thread(self._connection.lookupByUUIDString, uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise FailedError(f"{uuid}: libvirt cannot look this domain up: {error}") from error
        await self._undo(domain.destroy)
        await self._undo(lambda: _undefine(domain))
        return True

    async def mark_paused(self, uuid: str, *, paused: bool) -> None:
        """Note in the metadata, of the live domain and of its definition, whether its user has paused it."""
        await self._call(lambda: self._mark_paused(uuid, paused), f"{uuid}: its metadata cannot be changed")

    async def domains(self) -> Sequence[LiveDomain]:
        """Return the domains of ours, by name."""
        return await self._call(self._domains, "libvirt cannot list its domains")

    async def events(self) -> AsyncIterator[DomainEvent]:
        """Yield domains that stopped or crashed, from the moment the connection was opened."""
        while True:
            yield await self._events.get()

    async def _call(self, act: Callable[[], _T], what: str) -> _T:
        try:
            return await asyncio.to_thread(act)
        except libvirt.libvirtError as error:
            raise FailedError(f"{what}: {error}") from error

    async def _undo(self, act: Callable[[], object]) -> None:
        """Destroy or undefine; a domain that is not there or does not run is what was wanted."""
        try:
            await asyncio.to_thread(act)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _GONE:
                raise FailedError(f"the guest could not be removed: {error}") from error

    def _domains(self) -> list[LiveDomain]:
        found = []
        for domain in self._connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # it may go away while we look
                described = _describe(domain)
                if described is not None:
                    found.append(described)
        return sorted(found, key=lambda each: each.name)

    def _mark_paused(self, uuid: str, paused: bool) -> None:
        domain = self._connection.lookupByUUIDString(uuid)
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        guest = etree.fromstring(domain.metadata(kind, NAMESPACE), etree.XMLParser(resolve_entities=False))
        mark_paused(guest, paused=paused)
        where = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
        domain.setMetadata(kind, etree.tostring(guest, encoding="unicode"), "orchestrator", NAMESPACE, where)

    def _on_event(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            word = _STOPPED_DETAILS.get(detail, "stopped")
            kind = DomainEventKind.CRASHED if word in ("crashed", "QEMU failed") else DomainEventKind.STOPPED
        elif event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            kind, word = DomainEventKind.CRASHED, "guest panicked"
        else:
            return
        self._loop.call_soon_threadsafe(self._events.put_nowait, DomainEvent(domain.name(), kind, word))


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

        _threads.append(threading.Thread(target=turn, name="libvirt-events", daemon=True))
        _threads[0].start()
