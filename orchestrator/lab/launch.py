"""Boots the nested host, passes its output on and ends it.

Nothing is written to a disk of this machine: the initramfs is a memory file, and output and console are
sockets. So whichever way this process ends, nothing is left to be removed.
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
from contextlib import ExitStack, contextmanager
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
_OWN_DIRECTORIES: Final = tuple(map(Path, ("/dev", "/proc", "/run", "/sys")))
"""Where the nested host has file systems of its own, which hide this machine's."""
_BLOCK: Final = 1 << 16
_CONSOLE_TAIL: Final = 1 << 14
_SHOWN_LINES: Final = 12

# The kernel ends the emulator when its parent is gone, however that came about. The shell looks whether
# the parent was gone before the kernel could be asked to.
_BOUND_TO_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


def minimal_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """Return what a command in the lab gets by default: this interpreter's programs first on PATH, HOME, locale."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "HOME": str(Path.home()),
        **{name: outer[name] for name in _KEPT_VARIABLES if name in outer},
    }


def lab_name(launcher: int) -> str:
    """Return the name that the emulator of the process `launcher` carries on its command line."""
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
    """Boot a nested host, run `command` in it as root, and return its exit code (128 + n after signal n).

    The command sees this machine's file system; what it writes stays in the lab's memory. It starts in
    `workdir` with exactly `environment`, its input is empty, and its output arrives at the descriptor
    `output`, byte for byte as it is written. `timeout` is in seconds and includes the boot. `cache` is where
    the lab's kernel is kept.

    Raises `UsageError` for a directory that the lab would hide, `HostError` if this machine lacks what it
    takes, `FailedError` if the time is up, the nested host dies, or `output` takes no more.
    """
    if not command:
        raise UsageError("lab: no command is given; write it after --, as in: orchestrator lab run -- nproc")
    for place in (workdir, cache):
        _check_visible(place)
    for program, package in ((QEMU, "qemu-system-x86"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise HostError(f"the lab needs {program}; on Debian run: sudo apt-get install {package}")
    kernel = obtain_kernel(cache)
    mark = EndMark(b"\x01" + secrets.token_hex(16).encode())
    initramfs = build_initramfs(
        kernel,
        {
            "init": INIT.encode(),
            "start": start_script(kernel.version, kernel.modules).encode(),
            "command": command_script(command, workdir, environment).encode(),
            "mark": mark.mark + b"\n",
        },
    )
    with _booted(shape, kernel, initramfs) as lab:
        try:
            lab.relay(mark, output, time.monotonic() + timeout)
        except TimeoutError:
            raise FailedError(
                f"the lab was ended by its time limit of {timeout:g} s; --timeout gives it more"
            ) from None
        except OSError as error:
            raise FailedError(f"the lab was ended: its output cannot be written: {error.strerror}") from error
        if mark.code is None:
            raise FailedError(f"the nested host went down before the command had ended; {lab.last_words()}")
        return mark.code


def _check_visible(place: Path) -> None:
    for hidden in _OWN_DIRECTORIES:
        if place.is_relative_to(hidden):
            raise UsageError(
                f"lab: {place} cannot be seen from the nested host, which has a {hidden} of its own; use another place"
            )


@dataclass(slots=True)
class _Lab:
    """A running nested host: the near ends of its output and of its console."""

    output: socket.socket
    console: socket.socket
    tail: bytes = b""
    """The last that the kernel, or the emulator itself, had to say."""

    def relay(self, mark: EndMark, output: int, deadline: float) -> None:
        """Pass output on until the command or the host has ended; raise `TimeoutError` at `deadline`."""
        while mark.code is None:
            data = self._next_output(deadline)
            _write(output, mark.feed(data) if data else mark.rest(), deadline)
            if not data:
                return

    def last_words(self) -> str:
        """Return the end of the console, once the emulator is gone."""
        while data := self.console.recv(_BLOCK):
            self._remember(data)
        lines = self.tail.decode(errors="replace").splitlines()
        return "\n".join(("the last of its console:", *lines[-_SHOWN_LINES:])) if lines else "its console is empty"

    def _next_output(self, deadline: float) -> bytes:
        """Wait for output, reading the console meanwhile; nothing means that the emulator is gone."""
        while True:
            readable, _ = _wait([self.output, self.console], [], deadline)
            if self.output in readable:
                return self.output.recv(_BLOCK)
            self._remember(self.console.recv(_BLOCK))

    def _remember(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-_CONSOLE_TAIL:]


@contextmanager
def _booted(shape: LabShape, kernel: LabKernel, initramfs: bytes) -> Iterator[_Lab]:
    """Start the emulator; at the end it is killed and gone."""
    with ExitStack() as stack:
        output, far_output = map(stack.enter_context, socket.socketpair())
        console, far_console = map(stack.enter_context, socket.socketpair())
        image = stack.enter_context(os.fdopen(os.memfd_create("initramfs"), "wb", buffering=0))
        image.write(initramfs)
        fds = {"initramfs": image.fileno(), "output": far_output.fileno(), "console": far_console.fileno()}
        emulator = subprocess.Popen(
            (
                *_BOUND_TO_PARENT,
                str(os.getpid()),
                *qemu_command(shape, kernel, name=lab_name(os.getpid()), **fds),
            ),
            stdin=subprocess.DEVNULL,
            stdout=far_console,
            stderr=far_console,
            pass_fds=tuple(fds.values()),
            # A Ctrl-C is for us; we end the emulator.
            start_new_session=True,
        )
        try:
            # Only the emulator may hold the far ends, so that its end is theirs.
            far_output.close()
            far_console.close()
            yield _Lab(output, console)
        finally:
            emulator.kill()
            emulator.wait()


def _write(output: int, data: bytes, deadline: float) -> None:
    """Write all of `data`, waiting for a slow reader until `deadline`."""
    while data:
        _wait([], [output], deadline)
        data = data[os.write(output, data[: select.PIPE_BUF]) :]


def _wait(
    readers: Sequence[socket.socket], writers: Sequence[int], deadline: float
) -> tuple[list[socket.socket], list[int]]:
    """Return which of them are ready, at least one; raise `TimeoutError` from `deadline` on."""
    while (left := deadline - time.monotonic()) > 0:
        readable, writable, _ = select.select(readers, writers, [], left)
        if readable or writable:
            return readable, writable
    raise TimeoutError
