"""The calling user's crontab, through crontab(1), which alone may write it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from orchestrator.errors import FailedError, HostError

_LIMIT = 30.0  # seconds; it takes milliseconds


def read_crontab() -> str:
    """Return the crontab; empty if the user has none. HostError if there is no crontab(1), or he may not use it."""
    done = _crontab("-l")
    if done.returncode == 0:
        return done.stdout
    if done.stderr.startswith("no crontab for "):
        return ""
    raise HostError(f"crontab -l: {_said(done)}")


def write_crontab(table: str) -> None:
    """Put this in the place of the crontab, wholly or not at all. FailedError if crontab(1) does not take it."""
    done = _crontab("-", table)
    if done.returncode != 0:
        raise FailedError(f"the crontab was not changed: {_said(done)}")


def cron_runs() -> bool:
    """Whether a cron daemon runs on this host, by the name that the kernel knows it by."""
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text().strip() in ("cron", "crond"):
                return True
        except OSError:
            continue
    return False


def _crontab(argument: str, table: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("crontab")
    if program is None:
        raise HostError("crontab: is not installed; `apt-get install cron` does that, or use --systemd DIR")
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            [program, argument],
            input="" if table is None else table,
            env=environment,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"crontab {argument}: has not answered within {_LIMIT:g} s") from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return "; ".join(done.stderr.split("\n")).strip("; ") or f"exit code {done.returncode}"
