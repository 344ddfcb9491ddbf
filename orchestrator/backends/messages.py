"""What the process that starts back ends is told, and what it answers: JSON on its standard input and output."""

from __future__ import annotations

import msgspec

from orchestrator.core.backends import BackEnd

SOCKET, NOTE, LOG = ".sock", ".process", ".log"
"""What follows the name of a back end in the run directory: its socket, which process it is, what it writes."""


class Wanted(msgspec.Struct, frozen=True):
    """A back end, and where its program is."""

    program: str
    back_end: BackEnd


class Order(msgspec.Struct, frozen=True):
    """Start these for the guest in this run directory, with the rights of its owner, if that is somebody else.

    Sockets belong to `user`, as whom QEMU runs; None if that is us.
    """

    directory: str
    owner: str | None
    user: int | None
    wanted: tuple[Wanted, ...]


class Answer(msgspec.Struct, frozen=True):
    """What became of it: empty if all of them run."""

    trouble: str = ""
