"""The other end of the socket: asks, and raises what the daemon raised, as if it had been raised here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from orchestrator.errors import HostError, OrchestratorError, OutcomeUnknownError
from orchestrator.service.inspection import DebugRequest, InspectRequest
from orchestrator.service.messages import (
    ACT_LIMIT,
    PREFIX,
    USER,
    Definition,
    ErrorBody,
    MoveRequest,
    PolicyRequest,
    ResizeRequest,
    StartRequest,
    TooManyError,
    decode_error,
)
from orchestrator.service.payload_desk import AddRequest, Reference

_CONNECT_LIMIT = 10.0
_ANSWER_LIMIT = 30.0
_PATIENCE = 30.0  # seconds for which it is asked again
_MOST_CONNECTIONS = 16
_SLACK = 30.0  # the daemon gives up on an act first, and can say more about it


class Client:
    """A connection to the daemon that listens at `path`; for use with ``async with``.

    Whoever may acts for `user`. A request for which the daemon has no time yet is made again when it says so.
    """

    def __init__(self, path: Path, user: str | None = None) -> None:
        self._path = path
        self._for = {} if user is None else {USER: user}
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=_MOST_CONNECTIONS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def start(self, definitions: Sequence[Definition], count: int, *, dry_run: bool = False) -> Any:
        """Start guests; return them, and the accelerators that were chosen. With `dry_run`: what would come of it."""
        body = msgspec.json.encode(StartRequest(tuple(definitions), count, dry_run))
        return await self._ask("POST", "guests", body)

    async def policy(self, request: PolicyRequest) -> Any:
        """Put a policy in force and have its guests run, or ask what would change; return what has."""
        return await self._ask("POST", "policy", msgspec.json.encode(request))

    async def guests(self) -> Any:
        """Return the caller's guests, by name."""
        return (await self._ask("GET", "guests"))["guests"]

    async def guest(self, name: str) -> Any:
        """Return all there is to know of a guest."""
        return await self._ask("GET", _path(name))

    async def explain(self, name: str) -> Any:
        """Return why a guest waits, or where it runs."""
        return await self._ask("GET", f"{_path(name)}/explain")

    async def cores(self) -> Any:
        """Return the cores of the host."""
        return (await self._ask("GET", "cores"))["cores"]

    async def overview(self) -> Any:
        """Return how cores, guests and users stand, in figures."""
        return await self._ask("GET", "overview")

    async def act(self, what: str, name: str) -> None:
        """Stop, kill, pause, resume or restart a guest."""
        await self._ask("POST", f"{_path(name)}/{what}", b"")

    async def move(self, name: str, cores: Sequence[int]) -> Any:
        """Have an exclusive guest on these cores, or on better ones; return what `guest` does."""
        return await self._ask("POST", f"{_path(name)}/move", msgspec.json.encode(MoveRequest(tuple(cores))))

    async def resize(self, name: str, vcpus: int) -> Any:
        """Have so many vCPUs in an exclusive guest; return what `guest` does."""
        return await self._ask("POST", f"{_path(name)}/resize", msgspec.json.encode(ResizeRequest(vcpus)))

    async def ask_state(self, method: str, path: str, **wanted: Any) -> Any:
        """Ask about a guest's state, or for one; see `service.states`. `path` is quoted already."""
        return await self._ask(method, path, None if method == "GET" else msgspec.json.encode(wanted))

    async def remove(self, name: str) -> None:
        """Forget a guest that has ended."""
        await self._ask("DELETE", _path(name), b"")

    async def inspect(self, name: str, request: InspectRequest) -> Any:
        """Look inside a guest."""
        return await self._ask("POST", f"{_path(name)}/inspect", msgspec.json.encode(request))

    async def debug(self, name: str, *, close: bool) -> Any:
        """Open a gdb server for a guest, or close it."""
        return await self._ask("POST", f"{_path(name)}/debug", msgspec.json.encode(DebugRequest(close)))

    async def payloads(self) -> Any:
        """Return the payloads that the caller may use, and his quota."""
        return await self._ask("GET", "payloads")

    async def payload_shares(self) -> Any:
        """Return what the caller's guests map."""
        return await self._ask("GET", "payloads/shares")

    async def add_payload(self, wanted: AddRequest) -> Any:
        """Add a file."""
        return await self._ask("POST", "payloads", msgspec.json.encode(wanted))

    async def payload_act(self, what: str, reference: str) -> Any:
        """Remove or verify a payload."""
        return await self._ask("POST", f"payloads/{what}", msgspec.json.encode(Reference(reference)))

    async def collect_payloads(self) -> Any:
        """Remove what nobody's payload is."""
        return await self._ask("POST", "payloads/gc", b"")

    async def events(self, since: int, *, follow: bool) -> AsyncIterator[Any]:
        """Yield events after number `since`, with `follow` those that come until the daemon ends."""
        async with self._streaming("events", since=since, follow=int(follow)) as content:
            async for line in content:
                yield json.loads(line)

    async def log(self, name: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield what a guest has printed on its serial port, piece by piece; with `follow` what comes too."""
        async with self._streaming(f"{_path(name)}/log", follow=int(follow)) as content:
            async for piece in content.iter_any():
                yield piece

    @contextlib.asynccontextmanager
    async def console(self, name: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Attach to a guest's serial port."""
        url = f"http://orchestrator{PREFIX}/{_path(name)}/console"
        try:
            # A refusal is no WebSocket: it is asked for as what it is.
            async with self._session.ws_connect(url, params=self._for, max_msg_size=0) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError:
            await self._ask("GET", f"{_path(name)}/console")  # which says why
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._silent(error) from None

    @contextlib.asynccontextmanager
    async def _streaming(self, path: str, **query: int) -> AsyncIterator[aiohttp.StreamReader]:
        url = f"http://orchestrator{PREFIX}/{path}"
        limit = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT)
        try:
            async with self._session.get(url, params={**query, **self._for}, timeout=limit) as response:
                await _require_success(response)
                yield response.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._silent(error) from None

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Ask, and ask again while the daemon says when it will have time, for a while."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return await self._ask_once(method, path, body)
            except TooManyError as error:
                if time.monotonic() + error.retry_after > deadline:
                    raise
                await asyncio.sleep(error.retry_after)

    async def _ask_once(self, method: str, path: str, body: bytes | None) -> Any:
        acts = body is not None
        limit = aiohttp.ClientTimeout(total=ACT_LIMIT + _SLACK if acts else _ANSWER_LIMIT, sock_connect=_CONNECT_LIMIT)
        url = f"http://orchestrator{PREFIX}/{path}"
        try:
            async with self._session.request(method, url, data=body, params=self._for, timeout=limit) as response:
                await _require_success(response)
                return json.loads(await response.read())
        except aiohttp.ClientConnectorError as error:
            raise self._silent(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if acts:
                raise OutcomeUnknownError(
                    f"{self._path}: the daemon went away before it answered ({_why(error)}); "
                    "whether it was done is not known: look with `orchestrator ps`"
                ) from None
            raise self._silent(error) from None

    def _silent(self, error: BaseException) -> HostError:
        return HostError(
            f"{self._path}: the daemon does not answer: {_why(error)}; "
            "look whether it runs, or start it with `orchestrator serve`"
        )


def _why(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__


def _path(name: str) -> str:
    return f"guests/{quote(name, safe='')}"


async def _require_success(response: aiohttp.ClientResponse) -> None:
    """Raise what the daemon raised, if it did."""
    if response.status == 200:
        return
    text = await response.read()
    try:
        body = msgspec.json.decode(text, type=ErrorBody)
    except msgspec.DecodeError:
        raise OrchestratorError(
            f"the daemon answers {response.status} {response.reason}, and not as we know it"
        ) from None
    raise decode_error(body)
