"""Twenty guests of four architectures and three widths, on six pool cores of which two are somebody's own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.inside.looking import ROOT, eventually, heartbeats, request, says
from tests.lab.inside.observer import Observer
from tests.lab.inside.servers import Serve, Servers

DEFINITION = """
name = "{name}"
architecture = "{architecture}"
vcpus = {vcpus}
memory = "64 MiB"
mode = "{mode}"
weight = {weight}

[boot]
payload = "{root}/domains/build/heartbeat-{architecture}.elf"
"""


@dataclass(frozen=True)
class Member:
    """One of them; `number` makes its name."""

    number: int
    architecture: str
    vcpus: int = 1
    weight: int = 100
    mode: str = "shared"

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.number}"

    def write(self, directory: Path) -> str:
        path = directory / f"{self.name}.toml"
        path.write_text(
            DEFINITION.format(
                name=self.name,
                architecture=self.architecture,
                vcpus=self.vcpus,
                weight=self.weight,
                mode=self.mode,
                root=ROOT,
            )
        )
        return str(path)


# A PC takes several times as long to start in the lab as an ARM board, so there are fewer of them.
MEMBERS = (
    Member(1, "aarch64", mode="exclusive"),
    Member(2, "armv7l", mode="exclusive"),
    Member(3, "aarch64", vcpus=3),
    Member(4, "armv7l", vcpus=2),
    Member(5, "aarch64", vcpus=2),
    Member(6, "i386", vcpus=2),
    Member(7, "x86_64"),
    Member(8, "i386"),
    *(Member(number, "aarch64") for number in range(9, 14)),
    *(Member(number, "armv7l") for number in range(14, 19)),
    Member(19, "aarch64", weight=200),
    Member(20, "armv7l", weight=200),
)


@dataclass
class Crowd:
    """The twenty under a daemon.

    From `began` on (in seconds since 1970) `observer` has watched them; `beats` are their heartbeats at that moment.
    """

    servers: Servers
    observer: Observer
    members: Mapping[str, Member] = field(default_factory=lambda: {member.name: member for member in MEMBERS})
    began: float = field(default_factory=time.time)
    beats: Mapping[str, int] = field(
        default_factory=lambda: {member.name: heartbeats(member.name) for member in MEMBERS}
    )

    @property
    def serve(self) -> Serve:
        """The daemon that runs now; one is started if none does."""
        return self.servers.running()

    @property
    def shared(self) -> list[Member]:
        return [member for member in self.members.values() if member.mode == "shared"]

    def one(self, architecture: str) -> str:
        """Return the name of a shared guest with one vCPU of this architecture."""
        return next(member.name for member in self.shared if (member.architecture, member.vcpus) == (architecture, 1))


AT_ONCE = 4
"""How many guests start at the same time."""


def batched(members: Sequence[Member], size: int) -> Iterator[Sequence[Member]]:
    return (members[first : first + size] for first in range(0, len(members), size))


@contextlib.contextmanager
def started(servers: Servers, directory: Path) -> Iterator[Crowd]:
    """Start them some at a time, and watch them from when all of them take turns.

    Who has started is paused until all have: the lab emulates eight cores on two, so each guest that runs would take
    its time from those that start.
    """
    serve = servers.running()
    began = time.monotonic()
    for some in batched(MEMBERS, AT_ONCE):
        request("start", *(member.write(directory) for member in some))
        request("pause", *(member.name for member in some))
    request("resume", *(member.name for member in MEMBERS))
    eventually(lambda: all(heartbeats(member.name) for member in MEMBERS), "all twenty beat", serve.process)
    says(f"20 guests of four architectures started in {time.monotonic() - began:.0f} s")
    with Observer() as observer:
        yield Crowd(servers, observer)
