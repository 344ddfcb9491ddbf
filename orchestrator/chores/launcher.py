"""Starts the chores process, and ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orchestrator.chores.client import ChoresClient
from orchestrator.chores.counters import Counters, make_counters
from orchestrator.chores.messages import Hello
from orchestrator.errors import HostError

_START_LIMIT = 120.0
"""Seconds that the process may take to begin: on a host whose guests are busy an interpreter can take many to start.

One that ends instead is noticed at once.
"""

_HELLO_BYTES = 65536


@dataclass(frozen=True, slots=True)
class ChoresProcess:
    """A chores process that works: `client` implements the port `Chores`, `notes` is what its user has to be told.

    It outlives whoever started it for as long as it takes to make durable what was sent.
    """

    client: ChoresClient
    notes: tuple[str, ...]
    pid: int
    _process: subprocess.Popen[bytes]

    def stop(self, seconds: float = 10.0) -> bool:
        """Send what waits, let the process make it durable, and tell whether all of it is. Blocks, at most so long."""
        self.client.close(seconds)
        try:
            return self._process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False  # it goes on without us


def start_chores(
    directory: Path,
    *,
    queue: int = 10_000,
    log_limit: int = 64 << 20,
    batch_records: int = 1000,
    batch_patience: int = 50_000_000,
    poll: int = 250_000_000,
) -> ChoresProcess:
    """Start the process that keeps logs in `directory`, and return when it works. Blocks, some tenths of a second.

    `queue` is how many records may wait here. A log of more than `log_limit` bytes is set aside for a new one. A batch
    is made durable when it has `batch_records` records, or is `batch_patience` nanoseconds old. Serial logs are looked
    at every `poll` nanoseconds. HostError if it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page = make_counters()
    try:
        numbers = {
            "log-limit": log_limit,
            "batch-records": batch_records,
            "batch-patience": batch_patience,
            "poll": poll,
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "orchestrator.chores"),  # -P: nothing is imported from where we stand
                *(f"--socket={theirs.fileno()}", f"--counters={page}", f"--directory={directory}"),
                *(f"--{name}={number}" for name, number in numbers.items()),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), page),
            start_new_session=True,  # a terminal's Ctrl-C is the scheduler's
        )
        theirs.close()
        notes = _greeted(ours, process)
        return ChoresProcess(ChoresClient(ours, Counters(page), queue), notes, process.pid, process)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(page)


def _greeted(connection: socket.socket, process: subprocess.Popen[bytes]) -> tuple[str, ...]:
    """Wait until the process has begun, and return its notes; HostError if it did not."""
    connection.settimeout(_START_LIMIT)
    late = False
    try:
        answer = connection.recv(_HELLO_BYTES)
    except OSError as error:
        answer, late = b"", isinstance(error, TimeoutError)
    if answer:
        hello = msgspec.msgpack.decode(answer, type=Hello)
        if not hello.failure:
            return hello.notes
        process.wait()
        raise HostError(hello.failure)
    process.kill()
    code = process.wait()
    why = f"it said nothing within {_START_LIMIT:g} s" if late else f"it ended with {code}; its own words are above"
    raise HostError(f"the chores process did not begin: {why}")
