"""`orchestrator report`: what was written down goes in, a report comes out, and pages are written to files."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.core.chronicle import Chronicle
from orchestrator.core.report import Report, make_report
from orchestrator.errors import HostError, UsageError
from orchestrator.wiring.journals import GUARD, SCHEDULER

if TYPE_CHECKING:
    from orchestrator.host.history import History

__all__ = ["Report", "check_file", "describe", "make", "page", "write_file"]


def make(since: int) -> Report:
    """Return the report on so many nanoseconds up to now. HostError if no daemon has written anything down."""
    from orchestrator.host.history import History
    from orchestrator.host.places import state_directory

    state = state_directory(os.environ)
    return report_on(History(state), state, time.time_ns(), since)


def report_on(history: History, state: Path, now: int, since: int) -> Report:
    """Return the report on so many nanoseconds until `now`."""
    from orchestrator.host.journal_file import segments

    if not history.exists():
        raise HostError(
            f"{state}: nothing was written down here; `orchestrator serve` does so while it runs, "
            "and ORCHESTRATOR_STATE_DIR says where"
        )
    begin = now - since
    chronicle = Chronicle(since=begin)
    for event in history.events():
        chronicle.event(event)
    for sample in history.samples(begin):
        chronicle.sample(sample)
    for name in (SCHEDULER, GUARD):
        for act in history.acts(segments(state / f"{name}.jsonl"), begin):
            chronicle.act(act)
    chronicle.finish(now)
    return make_report(chronicle, max(begin, min(now, chronicle.first)), now)


def describe(report: Report) -> Any:
    """Return a report as JSON's types; times in nanoseconds since 1970, core time in core-nanoseconds."""
    return msgspec.to_builtins(report)


def page(report: Report) -> bytes:
    """Return a report as a page of HTML, in UTF-8."""
    from orchestrator.page.document import render

    return render(report, platform.node() or "this host").encode()


def check_file(path: Path, what: str) -> None:
    """Raise UsageError if a file can certainly not be written there, before time is spent on `what`."""
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file to write {what} to")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: cannot be written: there is no directory {path.parent}")


def write_file(content: bytes, path: Path) -> None:
    """Write a file, wholly or not at all; one that is there is replaced."""
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe or a terminal is written to, not replaced
            target.write_bytes(content)
            return
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            beside.write_bytes(content)
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
