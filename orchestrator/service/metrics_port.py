"""Metrics on a TCP port of this host alone, for scrapers that know no Unix sockets.

Nobody knows who is at the other end, so every user of the host can read what is told there: all guests and users.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from orchestrator.errors import HostError, UsageError
from orchestrator.service.metrics import CONTENT_TYPE

_FRESH = 1.0
"""Seconds for which the same text is told again, so that no user can keep the scheduler's core busy."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:9464`` or ``[::1]:9464``; UsageError if it is none of the loopback."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        raise UsageError(f"--metrics {text}: is no address and port; write 127.0.0.1:9464 or [::1]:9464") from None
    if not address.is_loopback:
        raise UsageError(
            f"--metrics {text}: is not a loopback address, and metrics tell all guests and users; "
            "use 127.0.0.1 or ::1, and a proxy that knows whom to let in"
        )
    if not 0 <= number < 65536:
        raise UsageError(f"--metrics {text}: there is no port {number}; ports go to 65535")
    return str(address), number


@contextlib.asynccontextmanager
async def serving_metrics(address: tuple[str, int], tell: Callable[[], Awaitable[bytes]]) -> AsyncIterator[int]:
    """Answer GET /metrics there while in this context, and give the port. HostError if it cannot be had."""
    fresh: tuple[float, bytes] = (0.0, b"")

    async def answer(_request: web.Request) -> web.Response:
        nonlocal fresh
        until, text = fresh
        if time.monotonic() >= until:
            text = await tell()
            fresh = (time.monotonic() + _FRESH, text)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.add_routes([web.get("/metrics", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, *address)
        try:
            await site.start()
        except OSError as error:
            raise HostError(f"--metrics {address[0]}:{address[1]}: cannot be had: {error.strerror}") from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
