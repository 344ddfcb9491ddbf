"""The running daemon, as the command line asks for it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.errors import HostError
from orchestrator.wiring.site import read_file

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    from orchestrator.service.client import Client
    from orchestrator.service.messages import Definition

_T = TypeVar("_T")

_ROOTS_RUNTIME = Path("/run/orchestrator")


def default_socket() -> Path:
    """Return where the daemon of this user listens, if one runs."""
    from orchestrator.host.places import runtime_directory

    return runtime_directory(os.environ) / "api" / "socket"


def find(given: Path | None) -> Path | None:
    """Return the socket of the daemon that runs: the one that is given, else this user's, else root's.

    None if there is no daemon. HostError if one was given, and nobody listens there.
    """
    if given is not None:
        if not _listens(given):
            raise HostError(f"{given}: no daemon listens there; `orchestrator serve --socket {given}` starts one")
        return given
    candidates = [default_socket()]
    if "ORCHESTRATOR_RUNTIME_DIR" not in os.environ:  # which is to be alone with what is in it
        candidates.append(_ROOTS_RUNTIME / "api" / "socket")
    return next((path for path in candidates if _listens(path)), None)


def require(given: Path | None, what: str) -> Path:
    """Return the socket of the daemon that runs; HostError if there is none, which `what` needs."""
    path = find(given)
    if path is None:
        raise HostError(f"{what}: no scheduler runs here, and this needs one; `orchestrator serve` starts it")
    return path


async def with_client(path: Path, ask: Callable[[Client], Coroutine[Any, Any, _T]], user: str | None = None) -> _T:
    """Ask the daemon at this socket for something; for `user`, if the caller may act for him."""
    from orchestrator.service.client import Client

    async with Client(path, user) as client:
        return await ask(client)


async def start(
    path: Path, specs: Sequence[Path], count: int, *, dry_run: bool = False, user: str | None = None
) -> Any:
    """Start guests of these definitions, which are read here and judged by the daemon; or only ask what would come.

    They belong to `user`, or to who calls.
    """
    definitions = [sent_definition(spec) for spec in specs]
    return await with_client(path, lambda client: client.start(definitions, count, dry_run=dry_run), user)


async def act(path: Path, what: str, names: Iterable[str], user: str | None = None) -> None:
    """Do something to several guests at the same time; raises the first failure, after all have been tried."""
    from orchestrator.service.client import Client
    from orchestrator.together import all_or_first_failure

    async with Client(path, user) as client:
        one = client.remove if what == "rm" else lambda name: client.act(what, name)
        await all_or_first_failure([one(name) for name in names])


async def events(path: Path, since: int, *, follow: bool) -> AsyncIterator[Any]:
    """Yield events after number `since`."""
    from orchestrator.service.client import Client

    async with Client(path) as client:
        async for event in client.events(since, follow=follow):
            yield event


def sent_definition(spec: Path) -> Definition:
    """Return a definition as the daemon is sent it; UsageError if it cannot be read."""
    from orchestrator.service.messages import Definition

    return Definition(text=_text(spec), file=str(spec), directory=str(spec.resolve().parent))


async def log(path: Path, guest: str, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield what a guest of the daemon's has printed; with `follow` what comes, too."""
    from orchestrator.service.client import Client

    async with Client(path) as client:
        async for piece in client.log(guest, follow=follow):
            yield piece


async def console(path: Path, guest: str) -> None:
    """Copy between this terminal and a serial port of the daemon's guest until Ctrl-], the end of input, or its end."""
    from orchestrator.host.console import carry
    from orchestrator.service.client import Client

    async with Client(path) as client, client.console(guest) as socket:
        await carry(_printed(socket), socket.send_bytes)


async def _printed(socket: ClientWebSocketResponse) -> AsyncIterator[bytes]:
    async for message in socket:
        if isinstance(message.data, bytes):
            yield message.data


def _text(spec: Path) -> str:
    text = read_file(spec)
    try:
        return text.decode()
    except UnicodeDecodeError:
        from orchestrator.toml_tables import load

        load(text, str(spec))  # raises, and says where
        raise


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
