"""Metrics on a TCP port, if `serve` is asked for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.service.overview import OverviewDesk


def check(address: str | None) -> None:
    """Raise UsageError unless metrics may be told there."""
    from orchestrator.service.metrics_port import parse_address

    if address is not None:
        parse_address(address)


@contextlib.asynccontextmanager
async def metrics_port(address: str | None, overview: OverviewDesk, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Tell metrics at this address, if there is one, while in this context."""
    from orchestrator.service.callers import Peer
    from orchestrator.service.metrics import expose
    from orchestrator.service.metrics_port import parse_address, serving_metrics

    if address is None:
        yield
        return
    everything = Peer(pid=0, uid=0, gid=0)  # who connects is not known, so that all of it is told has been agreed to
    host, number = parse_address(address)
    async with serving_metrics((host, number), lambda: expose(overview.overview(everything))) as port:
        tell(f"metrics on http://{address.rpartition(':')[0]}:{port}/metrics, for every user of this host")
        yield
