"""``python -m orchestrator.payloads ROOT``: does one order for `service`, on the service core."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator import rooms
from orchestrator.core.smaps import Share, divided, shares
from orchestrator.errors import OrchestratorError
from orchestrator.payloads.service import Add, Answer, Check, Collect, Load, Look, Order, Remove, failure
from orchestrator.payloads.source import opened
from orchestrator.payloads.store import PayloadStore


def main() -> int:
    """Read the order, carry it out, answer."""
    _settle()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        value = carry_out(PayloadStore(Path(sys.argv[1])), order)
    except OrchestratorError as error:
        answer = failure(error)
    else:
        answer = Answer(value=msgspec.Raw(msgspec.json.encode(value)))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


def _settle() -> None:
    """Move to the service core, where there is one that may be used."""
    with contextlib.suppress(OSError):
        rooms.settle()


def carry_out(store: PayloadStore, order: Order) -> Any:
    """Return what is to be answered."""
    match order:
        case Add(wanted):
            with opened(wanted.path, wanted.user) as source:
                return store.add(source, wanted.name, wanted.owner, public=wanted.public, quota=wanted.quota)
        case Remove(payload):
            return store.remove(payload)
        case Check(payload):
            return store.check(payload)
        case Load(payload, pages):
            return store.load(payload, pages)
        case Collect(used):
            return store.collect(used)
        case Look(processes):
            return divided(list(_look(store.folders, processes)))


def _look(folders: Sequence[str], processes: Mapping[str, int]) -> Iterator[tuple[str, Share]]:
    for guest, pid in sorted(processes.items()):
        try:
            text = Path(f"/proc/{pid}/smaps").read_text(errors="surrogateescape")
        except OSError:
            continue  # it has gone
        yield from ((guest, share) for folder in folders for share in shares(text, folder))


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
