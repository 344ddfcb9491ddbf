"""Several acts at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence


async def all_or_first_failure(acts: Sequence[Awaitable[object]]) -> None:
    """Run acts at the same time to their ends, then raise the first failure among them, if any."""
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
