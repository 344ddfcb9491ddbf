"""What callers may ask of a guest's inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from orchestrator.core.inspection import Inspection, Look
from orchestrator.engine import Engine, RunningGuest
from orchestrator.inside import open_debugger
from orchestrator.service.callers import Peer
from orchestrator.service.inspection import (
    DebuggerView,
    DebugRequest,
    InspectionView,
    InspectRequest,
    view_inspection,
)
from orchestrator.service.messages import ForbiddenError


class InsideDesk:
    """Looks inside guests. `living` gives a caller's guest that has a process, `carry_out` sees an act to its end."""

    def __init__(
        self,
        engine: Engine,
        living: Callable[[Peer, str], RunningGuest],
        carry_out: Callable[[Coroutine[Any, Any, Inspection], str, str], Awaitable[Inspection]],
    ) -> None:
        self._engine = engine
        self._living = living
        self._carry_out = carry_out

    async def inspect(self, peer: Peer, name: str, request: InspectRequest) -> InspectionView:
        """Look inside a guest, which stands still for as long as that takes."""
        self._living(peer, name)
        look = Look(instructions=request.instructions, address=request.address, length=request.length)
        return view_inspection(await self._carry_out(self._engine.inspect(name, look), "inspect", name), look)

    async def debug(self, peer: Peer, name: str, request: DebugRequest) -> DebuggerView:
        """Open a gdb server for a guest, or close it."""
        guest = self._living(peer, name)
        if not peer.may_do_everything:
            raise ForbiddenError(f"{name}: a gdb server's socket is only for root and the daemon's own user")
        path = await open_debugger(guest, close=request.close)
        return DebuggerView(path, guest.domain.spec.architecture)
