"""`python -m tests.documentation.daemon SOCKET`: a daemon behind a real socket; its guests and host are in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.core.policy import Policy
from tests.functional.served import Served, served


async def serve(link: Callable[[Served], None]) -> None:
    async with served(Policy(), cpus="0-7") as daemon:
        link(daemon)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(lambda daemon: Path(sys.argv[1]).symlink_to(daemon.socket)))
