"""The payload store of this host, and what definitions want of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.payloads import Payload, fit_trouble
from orchestrator.errors import Fault, InvalidFileError, UsageError

if TYPE_CHECKING:
    from orchestrator.config import ParsedGuest
    from orchestrator.core.policy import Policy
    from orchestrator.core.xml.domain import Domain
    from orchestrator.payloads.service import ServicePayloads
    from orchestrator.payloads.store import PayloadStore
    from orchestrator.service.callers import Peer
    from orchestrator.service.client import Client
    from orchestrator.service.payload_desk import PayloadDesk


def payload_store() -> PayloadStore:
    """Return the store in the state directory."""
    from orchestrator.host.places import state_directory
    from orchestrator.payloads.store import PayloadStore

    return PayloadStore(state_directory(os.environ) / "payloads")


def service_payloads() -> ServicePayloads:
    """Return the store as the engine reaches it: through a process on the service core."""
    from orchestrator.payloads.service import ServicePayloads
    from orchestrator.payloads.store import is_unchanged

    store = payload_store()
    # -P: nothing is imported from where we stand
    command = (sys.executable, "-P", "-m", "orchestrator.payloads", str(store.root))
    return ServicePayloads(store, command, is_unchanged)


def resolved(guest: ParsedGuest, user: str) -> ParsedGuest:
    """Return a definition whose payload's digest is noted, as a user may map it; raises with every fault."""
    wish = guest.spec.payload
    if wish is None:
        return guest
    try:
        found = payload_store().catalogue().find(user, wish.reference)
    except UsageError as error:
        raise InvalidFileError(guest.file, [_fault(guest, str(error))]) from None
    troubles = list(fit_trouble(wish, found, int(guest.spec.memory)))
    if troubles:
        raise InvalidFileError(guest.file, [_fault(guest, trouble) for trouble in troubles])
    return replace(guest, spec=replace(guest.spec, payload=replace(wish, digest=found.digest)))


def _fault(guest: ParsedGuest, message: str) -> Fault:
    wish = guest.spec.payload
    return guest.fault("payload.name" if wish is not None and wish.name is not None else "payload.digest", message)


def mapped_to_print(domain: Domain) -> Domain:
    """Return a domain with its payload's file, which was not looked at."""
    from orchestrator.core.payloads import MappedPayload
    from orchestrator.core.xml.memory import with_payload

    wish = domain.spec.payload
    if wish is None or wish.digest is None:
        return domain
    store = payload_store()
    found: Payload = store.catalogue().find(domain.owner, wish.digest)
    path, length = store.mapped_file(found, domain.spec.hugepages)
    return with_payload(domain, MappedPayload(found.digest, str(path), length, ()))


@dataclass(frozen=True, slots=True)
class PayloadCommands:
    """What the command line asks of the daemon at this socket; without one it is done here, in this user's own store.

    Answers are as in JSON.
    """

    daemon: Path | None
    policy: Policy

    async def listed(self) -> Any:
        """Return what may be mapped, and the quota."""
        return await self._ask(lambda client: client.payloads(), lambda desk, peer: desk.listed(peer))

    async def add(self, path: str, name: str, *, public: bool) -> Any:
        """Add a file by its absolute path."""
        from orchestrator.service.payload_desk import AddRequest

        wanted = AddRequest(path, name, public)
        return await self._ask(lambda client: client.add_payload(wanted), lambda desk, peer: desk.add(peer, wanted))

    async def remove(self, reference: str) -> Any:
        """Take a payload out."""
        return await self._ask(
            lambda client: client.payload_act("remove", reference), lambda desk, peer: desk.remove(peer, reference)
        )

    async def verify(self, reference: str) -> Any:
        """Read a payload anew; raises FailedError if it is not what was added."""
        return await self._ask(
            lambda client: client.payload_act("verify", reference), lambda desk, peer: desk.verify(peer, reference)
        )

    async def collect(self) -> Any:
        """Remove what was left behind."""
        return await self._ask(lambda client: client.collect_payloads(), lambda desk, peer: desk.collect(peer))

    async def shares(self) -> Any:
        """Return who maps what."""
        return await self._ask(lambda client: client.payload_shares(), lambda desk, peer: desk.shares(peer))

    async def _ask(
        self,
        of_daemon: Callable[[Client], Awaitable[Any]],
        here: Callable[[PayloadDesk, Peer], Awaitable[Any]],
    ) -> Any:
        if self.daemon is not None:
            from orchestrator.service.client import Client

            async with Client(self.daemon) as client:
                return await of_daemon(client)
        import msgspec

        from orchestrator.service.callers import Peer

        answer = await here(await _desk(self.policy), Peer(os.getpid(), os.geteuid(), os.getegid()))
        return msgspec.json.decode(msgspec.json.encode(answer))


async def _desk(policy: Policy) -> PayloadDesk:
    from orchestrator.config import decode_guest
    from orchestrator.service.payload_desk import PayloadDesk, Use, use_of
    from orchestrator.wiring.guests import live_domains

    uses: list[Use] = []
    for domain in await live_domains(policy.hypervisor.connect):
        uses += use_of(decode_guest(domain.metadata.specification), domain.metadata.owner, domain.pid)
    return PayloadDesk(service_payloads(), lambda: uses, policy.payload_quota)
