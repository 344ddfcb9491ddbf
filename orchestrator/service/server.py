"""The Unix socket on which the daemon listens: anybody may connect, for the kernel says who it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from aiohttp import web

from orchestrator.errors import HostError, RefusedError
from orchestrator.service.callers import Peer, peer_of
from orchestrator.service.limits import Lines
from orchestrator.service.lines import Counted

_BACKLOG = 1024
"""Who comes when it is full is not made to wait but turned away by the kernel, if his socket does not block: a class
that starts guests all at once, on a busy host, is more than the usual 128."""
_NOBODY = logging.getLogger("orchestrator.service.noise")
"""Who is told of what is no HTTP: it is answered, and the daemon's standard error is not everybody's to write to."""
_NOBODY.addHandler(logging.NullHandler())
_NOBODY.propagate = False

_KEEP_ALIVE = 30.0  # seconds for which an idle connection is kept
_LINGER = 2.0  # seconds for which answers may still be sent at the end


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at `path` while in this context; its directory must be there. Who connects waits until he is answered.

    RefusedError if somebody listens there already, HostError if the socket cannot be made.
    """
    listener = _listen(path)
    try:
        yield listener
    finally:
        _forget(path)
        listener.close()


@contextlib.asynccontextmanager
async def answering(
    application: web.Application,
    listener: socket.socket,
    lines: Lines | None = None,
    peer: Callable[[socket.socket], Peer] = peer_of,
) -> AsyncIterator[None]:
    """Answer who connects while in this context, after which nobody can. `lines` counts connections.

    A connection on which no whole request comes for a while is closed, whether it was idle or slow.
    """
    # A handler whose caller has left is cancelled; what it set going goes on.
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=_KEEP_ALIVE,
        shutdown_timeout=_LINGER,
        auto_decompress=False,  # nobody sends a bomb
        logger=_NOBODY,
    )
    answered = None
    try:
        await runner.setup()
        server, counting = runner.server, lines or Lines()
        assert server is not None  # it has been set up
        loop = asyncio.get_running_loop()
        answered = await loop.create_unix_server(
            lambda: Counted(server, counting, peer), sock=listener, backlog=_BACKLOG
        )
        yield
    finally:
        _forget(Path(listener.getsockname()))
        if answered is not None:
            # asyncio leaves a connection open that was accepted in the round of its loop in which the server is closed.
            asyncio.get_running_loop().remove_reader(listener)
            await asyncio.sleep(0)
            answered.close()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serving(
    application: web.Application,
    path: Path,
    lines: Lines | None = None,
    peer: Callable[[socket.socket], Peer] = peer_of,
) -> AsyncIterator[None]:
    """Listen at `path` and answer."""
    with listening(path) as listener:
        async with answering(application, listener, lines, peer):
            yield


def _listen(path: Path) -> socket.socket:
    _clear(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"{path}: no socket can be made there: {error}; name another with --socket") from None
    listener.setblocking(False)
    return listener


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove a socket on which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise RefusedError(f"{path}: is there already, and is no socket; name another with --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{path}: cannot be used: {error.strerror}; name another with --socket") from None
        else:
            raise RefusedError(f"{path}: another daemon listens there; end it, or name another with --socket")
