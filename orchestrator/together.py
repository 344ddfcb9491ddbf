"""Several acts at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any


async def all_or_first_failure(acts: Sequence[Awaitable[object]]) -> None:
    """Run acts at the same time to their ends, then raise the first failure among them, if any."""
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def first_of(*acts: Coroutine[Any, Any, object]) -> None:
    """Return when the first of these has ended, and let go of the others."""
    tasks = {asyncio.create_task(act) for act in acts}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
