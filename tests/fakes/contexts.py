"""Guests' states on a host in memory."""

from __future__ import annotations

from orchestrator.config import decode_guest, encode_guest, guest_paths
from orchestrator.contexts import Contexts
from orchestrator.engine import Engine
from orchestrator.recorder import Unrecorded
from orchestrator.shelf import Codec, Shelf
from tests.fakes.engine import launcher_on
from tests.fakes.host import FakeHost
from tests.fakes.states import FakeEmulators, FakeStates


def contexts_on(
    host: FakeHost, engine: Engine, states: FakeStates | None = None, emulators: FakeEmulators | None = None
) -> Contexts:
    """Return what saves and restores an engine's guests on this host."""
    codec = Codec(decode_guest, encode_guest, lambda spec: [path for _, path in guest_paths(spec)], lambda _: False)
    shelf = Shelf(states or FakeStates(host), emulators or FakeEmulators(), codec)
    return Contexts(engine, launcher_on(host, engine.topology), shelf, Unrecorded(), lambda: 1)
