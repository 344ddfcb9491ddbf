"""``python -m orchestrator.backends``: starts the back ends of one guest, on the service core, and leaves them."""

from __future__ import annotations

import os
import sys

import msgspec

from orchestrator import rooms
from orchestrator.backends.messages import Answer, Order
from orchestrator.backends.starting import start_all
from orchestrator.core.pool import SERVICE_CORE
from orchestrator.errors import OrchestratorError


def main() -> int:
    """Read the order, carry it out, answer."""
    try:
        rooms.settle()
    except OSError as error:
        trouble = f"back ends belong on core {SERVICE_CORE}, and none can be there: {error.strerror}"
    else:
        trouble = _carry_out(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
    sys.stdout.buffer.write(msgspec.json.encode(Answer(trouble)))
    return 0


def _carry_out(order: Order) -> str:
    try:
        start_all(order)
    except OrchestratorError as error:
        return "; ".join(error.lines())
    return ""


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
