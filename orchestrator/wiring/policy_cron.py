"""A policy's runs from cron or a systemd timer: what is printed, installed and taken out again."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core import crontab, timer
from orchestrator.errors import FailedError, HostError, UsageError
from orchestrator.wiring.site import owner

_KEPT = ("ORCHESTRATOR_RUNTIME_DIR", "ORCHESTRATOR_STATE_DIR", "ORCHESTRATOR_SOCKET")
"""What of the environment says where this program keeps things; cron would not pass it on."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was done: the lines of the crontab that are ours, and what the user should know, a line each."""

    lines: str
    changed: bool
    notes: tuple[str, ...] = ()


def fragment(file: Path) -> str:
    """Return the lines for a crontab of the calling user."""
    return crontab.block(_program(), str(file.absolute()), _environment(), owner())


def install(file: Path) -> Written:
    """Put the lines into the calling user's crontab, in place of those that are there; his other lines stay."""
    from orchestrator.host.crontab import cron_runs, read_crontab, write_crontab

    before = read_crontab()
    after = crontab.install(before, fragment(file))
    was = crontab.installed(before)
    if after != before:
        write_crontab(after)
    notes = []
    if was is not None and was != str(file.absolute()):
        notes.append(f"in place of the runs of {was}: one policy is in force at a time")
    if not cron_runs():
        notes.append("no cron daemon runs here, so nothing happens until one does; `apt-get install cron` brings one")
    return Written(fragment(file), after != before, tuple(notes))


def remove(file: Path) -> Written:
    """Take the lines out of the calling user's crontab; fine if it has none."""
    from orchestrator.host.crontab import read_crontab, write_crontab

    before = read_crontab()
    was = crontab.installed(before)
    if was is not None and was != str(file.absolute()):
        raise UsageError(f"{file}: the crontab runs {was} instead; `orchestrator policy cron {was} --remove` ends that")
    after = crontab.remove(before)
    if after != before:
        write_crontab(after)
    return Written("", after != before)


def write_units(file: Path, directory: Path) -> list[Path]:
    """Write the systemd units into a directory; return their paths. UsageError if they cannot be written there."""
    texts = timer.units(_program(), str(file.absolute()), _environment())
    for name, text in texts.items():
        path = directory / name
        beside = path.with_name(f".{name}.{os.getpid()}")
        try:
            beside.write_text(text)
            beside.replace(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return [directory / name for name in texts]


def remove_units(directory: Path) -> list[Path]:
    """Remove the units from a directory; return those that were there."""
    removed = []
    for path in (directory / timer.TIMER, directory / timer.SERVICE):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FailedError(f"{path}: cannot be removed: {error.strerror}") from None
        removed.append(path)
    return removed


def _program() -> str:
    """Return where this program is, for those who do not have it on their path."""
    path = Path(sys.executable).absolute().with_name("orchestrator")
    if not os.access(path, os.X_OK):
        raise HostError(f"{path}: is not there, so cron could not run it; install the package with pip or pipx")
    return str(path)


def _environment() -> dict[str, str]:
    kept = _KEPT if os.geteuid() == 0 else (*_KEPT, "XDG_RUNTIME_DIR")
    return {name: os.environ[name] for name in kept if os.environ.get(name)}
