"""What the guard watches: the scheduler's heartbeat, and that no guest may run on a reserved core."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.heartbeat import Beat, Health, Pulse
from orchestrator.errors import HostError
from orchestrator.guard.guests import Guests, cores_of, has_ended

FEEL_EVERY = 0.15
"""Seconds between two looks at the heartbeat: what hangs is told within a second, this and `HUNG_AFTER` together."""

LOOK_EVERY = 1.0
"""Seconds between two looks at which guests there are."""

_AT_ONCE = ("NOTIFY_SOCKET", "INVOCATION_ID")
"""Variables by which systemd is known to have started a process, and to start it anew when it ends."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a process was started, as the kernel tells: enough to start it anew."""

    arguments: Sequence[str]
    directory: str
    environment: dict[str, str]

    @property
    def is_a_service(self) -> bool:
        """Whether a service manager starts it anew when it ends."""
        return any(name in self.environment for name in _AT_ONCE)


class Scheduler:
    """The scheduler's process, held by a pidfd since its first heartbeat."""

    def __init__(self) -> None:
        self._who: tuple[int, int] | None = None
        self._handle: int | None = None
        self.command: Command | None = None

    def is_there(self, beat: Beat | None) -> bool:
        """Tell whether the process that beats, or has, is there."""
        if beat is None:
            return False
        if self._who != (beat.pid, beat.began):
            self._take(beat)
        return self._handle is not None and not has_ended(self._handle)

    def kill(self) -> None:
        """End it at once."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _take(self, beat: Beat) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._who, self._handle, self.command = (beat.pid, beat.began), None, None
        root = Path(f"/proc/{beat.pid}")
        try:
            handle = os.pidfd_open(beat.pid)
        except OSError:
            return
        try:
            began = int((root / "stat").read_bytes().rpartition(b")")[2].split()[19])
            command = Command(_texts(root / "cmdline"), str((root / "cwd").readlink()), _variables(root / "environ"))
        except (OSError, IndexError):
            began, command = 0, None
        if began != beat.began:
            os.close(handle)
            return
        self._handle, self.command = handle, command


class Watch:
    """Looks now and then. `beat` is the heartbeat, `tell` is given a line for what somebody should know.

    A scheduler that hangs for `patience` seconds, if that is given, is ended, and started anew by `start`; before,
    `record` makes that durable. `reserved` are the cores that no guest may have.
    """

    def __init__(
        self,
        guests: Guests,
        beat: Callable[[], Beat | None],
        tell: Callable[[str], None],
        reserved: frozenset[int],
        *,
        record: Callable[[str, dict[str, object]], object],
        start: Callable[[Command], None],
        patience: Callable[[], float | None],
    ) -> None:
        self._guests, self._beat, self._tell, self._reserved = guests, beat, tell, reserved
        self._record, self._start, self._patience = record, start, patience
        self._pulse, self._scheduler = Pulse(), Scheduler()
        self._astray: set[str] = set()
        self._over = threading.Event()
        self._looked = 0.0
        self.heard = "absent"

    def run(self) -> None:
        """Watch until `stop`."""
        while not self._over.wait(FEEL_EVERY):
            try:
                self.feel()
                if time.monotonic() - self._looked >= LOOK_EVERY:
                    self.look()
                    self._looked = time.monotonic()
            except OSError as error:
                self._tell(f"looking went wrong: {error}")

    def stop(self) -> None:
        """Have `run` return."""
        self._over.set()

    def feel(self) -> None:
        """Feel for the heartbeat."""
        beat, now = self._beat(), time.monotonic_ns()
        told = self._pulse.feel(beat, now, there=self._scheduler.is_there(beat))
        silent = 0.0 if beat is None else (now - beat.at) / 1e9
        self.heard = str(self._pulse.health)
        if self._pulse.health is Health.HUNG:
            self.heard += f" for {silent:.1f} s"
        if told:
            self._tell(told)
        patience = self._patience()
        if beat is not None and patience is not None and self._pulse.health is Health.HUNG and silent > patience:
            self._restart(beat, silent)

    def look(self) -> None:
        """Find the guests, and tell of each that may run where none may, once."""
        self._guests.look()
        astray = set()
        for guest in self._guests.all():
            wrong = cores_of(guest.pid) & self._reserved
            if wrong:
                astray.add(guest.uuid)
                if guest.uuid not in self._astray:
                    self._tell(f"{guest.name} (process {guest.pid}) may run on reserved cores {format_cpulist(wrong)}")
        self._astray = astray

    def _restart(self, beat: Beat, silent: float) -> None:
        command = self._scheduler.command
        try:
            self._record("restart", {"pid": beat.pid, "began": beat.began, "silent_ms": int(silent * 1000)})
        except HostError as error:
            self._tell(f"the scheduler is not started anew, since that cannot be recorded: {error}")
            return
        self._scheduler.kill()
        if command is not None and not command.is_a_service:
            self._tell(f"the scheduler (process {beat.pid}) was ended, and is started anew; guests go on")
            self._start(command)
        else:
            self._tell(f"the scheduler (process {beat.pid}) was ended; its service manager starts it anew")


def _texts(path: Path) -> list[str]:
    return [os.fsdecode(part) for part in path.read_bytes().split(b"\0")[:-1]]


def _variables(path: Path) -> dict[str, str]:
    return {name: value for text in _texts(path) for name, _, value in [text.partition("=")] if name}
