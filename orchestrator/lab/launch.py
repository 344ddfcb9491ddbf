"""Boots the nested host, passes its output on and ends it.

Nothing is written to a disk of this machine: the initramfs is a file in memory, output and console are
sockets. So however this process ends, there is nothing to be removed.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import FailedError, HostError, UsageError
from orchestrator.lab.initramfs import build_initramfs
from orchestrator.lab.kernel import LabKernel, obtain_kernel
from orchestrator.lab.machine import QEMU, qemu_command
from orchestrator.lab.script import INIT, command_script, start_script
from orchestrator.lab.shape import LabShape
from orchestrator.lab.stream import EndMark

_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_VARIABLES: Final = ("LANG", "LC_ALL", "TERM", "XDG_CACHE_HOME")
_HIDDEN: Final = ("/dev", "/proc", "/run", "/sys")
"""Where the nested host has file systems of its own."""
_PROGRAMS: Final = {QEMU: "qemu-system-x86", "setpriv": "util-linux"}
"""What a launch runs, and the Debian package of each."""
_BLOCK: Final = 1 << 16
_CONSOLE_KEPT: Final = 1 << 14

_BOUND_TO_US: Final = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
"""Makes the kernel end the emulator when we are gone, even by SIGKILL. The shell, given our process number,
sees whether we went before the kernel could be asked."""


def minimal_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """Return what a command in the lab gets: PATH with this interpreter's programs first, HOME, locale."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": str(Path.home()),
        **{name: outer[name] for name in _KEPT_VARIABLES if name in outer},
    }


def emulator_name(launcher: int) -> str:
    """Return the name that the emulator carries on its command line; `launcher` is our process number."""
    return f"orchestrator-lab-{launcher}"


def run_lab(
    shape: LabShape,
    command: Sequence[str],
    *,
    workdir: Path,
    environment: Mapping[str, str],
    output: int,
    timeout: float,
    cache: Path,
) -> int:
    """Boot a nested host, run `command` in it as root and return its exit code (128 + n after signal n).

    The command sees this machine's files; what it writes stays in the lab's memory. It starts in `workdir`
    with exactly `environment` and an empty input. Its output arrives at the descriptor `output`, byte for
    byte, while it runs. `timeout` is in seconds and includes the boot. `cache` holds the lab's kernel; where
    it does not yet, the kernel is fetched first, outside the time limit.

    Raises `UsageError` for a directory that the lab would hide, `HostError` if this machine lacks what it
    takes, `FailedError` if the time is up, the nested host goes down or `output` takes no more.
    """
    _check(command, workdir, cache)
    kernel = obtain_kernel(cache)
    mark = EndMark(b"\x01" + secrets.token_hex(16).encode())
    files = {
        "init": INIT,
        "start": start_script(kernel.version, kernel.modules),
        "command": command_script(command, workdir, environment),
    }
    initramfs = build_initramfs(
        kernel, {**{name: os.fsencode(text) for name, text in files.items()}, "mark": mark.mark + b"\n"}
    )
    with _booted(shape, kernel, initramfs) as lab:
        try:
            lab.relay(mark, output, time.monotonic() + timeout)
        except TimeoutError:
            limit = f"the lab was ended by its time limit of {timeout:g} s; --timeout gives it more"
            raise FailedError(limit + lab.last_words()) from None
        except OSError as error:
            raise FailedError(f"the lab was ended: its output could not be written: {error.strerror}") from error
        if mark.code is None:
            raise FailedError("the nested host went down before the command had ended" + lab.last_words())
        return mark.code


def _check(command: Sequence[str], workdir: Path, cache: Path) -> None:
    if not command:
        raise UsageError("lab: the command is missing; give it after --, as in: orchestrator lab run -- nproc")
    for place in (workdir, cache):
        for hidden in _HIDDEN:
            if place.is_relative_to(hidden):
                raise UsageError(
                    f"lab: {place} is out of sight in the nested host, which has a {hidden} of its own; "
                    "use a directory elsewhere"
                )
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise HostError(f"the lab needs {program}; on Debian run: sudo apt-get install {package}")


@dataclass(slots=True)
class _Lab:
    """A running nested host: our ends of its output and of its console, and the console's latest bytes."""

    output: socket.socket
    console: socket.socket
    tail: bytes = b""

    def relay(self, mark: EndMark, output: int, deadline: float) -> None:
        """Pass output on until the command or the host has ended; raise `TimeoutError` at `deadline`."""
        while mark.code is None:
            data = self._next_output(deadline)
            _write(output, mark.feed(data) if data else mark.rest(), deadline)
            if not data:
                return

    def last_words(self) -> str:
        """Return what the kernel, or the emulator itself, said last, as the end of a message."""
        with suppress(BlockingIOError):
            while self._read_console():
                pass
        lines = self.tail.decode(errors="replace").splitlines()
        # What follows a panic is a trace; what leads to it is of more use.
        panic = next((at for at, line in enumerate(lines) if "Kernel panic" in line), len(lines))
        return "\n".join(("; the last of its console:", *lines[max(0, panic - 9) : panic + 1])) if lines else ""

    def _next_output(self, deadline: float) -> bytes:
        """Wait for output, taking in the console meanwhile; nothing means that the emulator is gone."""
        while True:
            ready = _wait([self.output, self.console], [], deadline)
            if self.output in ready:
                return self.output.recv(_BLOCK)
            self._read_console()

    def _read_console(self) -> bytes:
        data = self.console.recv(_BLOCK)
        self.tail = (self.tail + data)[-_CONSOLE_KEPT:]
        return data


@contextmanager
def _booted(shape: LabShape, kernel: LabKernel, initramfs: bytes) -> Iterator[_Lab]:
    """Start the emulator; in the end it is killed, and gone."""
    with ExitStack() as stack:
        output, far_output = map(stack.enter_context, socket.socketpair())
        console, far_console = map(stack.enter_context, socket.socketpair())
        console.setblocking(False)
        image = stack.enter_context(os.fdopen(os.memfd_create("initramfs"), "wb"))
        image.write(initramfs)
        image.flush()
        fds = {"initramfs": image.fileno(), "output": far_output.fileno(), "console": far_console.fileno()}
        us = os.getpid()
        emulator = subprocess.Popen(
            (*_BOUND_TO_US, str(us), *qemu_command(shape, kernel, name=emulator_name(us), **fds)),
            stdin=subprocess.DEVNULL,
            stdout=far_console.fileno(),
            stderr=far_console.fileno(),
            pass_fds=tuple(fds.values()),
            # A Ctrl-C reaches only us, and we end the emulator.
            start_new_session=True,
        )
        try:
            # With the far ends held by the emulator alone, its end is the end of the streams.
            far_output.close()
            far_console.close()
            yield _Lab(output, console)
        finally:
            emulator.kill()
            emulator.wait()


def _write(output: int, data: bytes, deadline: float) -> None:
    """Write all of `data`; a reader that is too slow is waited for until `deadline`."""
    while data:
        _wait([], [output], deadline)
        # A pipe that is ready for anything takes this much at once.
        data = data[os.write(output, data[: select.PIPE_BUF]) :]


def _wait(sources: Sequence[socket.socket], sinks: Sequence[int], deadline: float) -> list[socket.socket]:
    """Return the `sources` with something to read, once there are any or a sink is ready.

    Raises `TimeoutError` from `deadline` on, ready or not.
    """
    while (left := deadline - time.monotonic()) > 0:
        readable, writable, _ = select.select(sources, sinks, [], left)
        if readable or writable:
            return readable
    raise TimeoutError
