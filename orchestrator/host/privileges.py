"""Programs that root starts without privileges: the capabilities that one can have are taken before it is there.

The set from which a program of root's gets its capabilities, the bounding set, belongs to a thread and is inherited by
what that starts (capabilities(7)). So a thread is made for each start, and nobody else is touched: who starts a guest
keeps what he has.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

CAP_DAC_OVERRIDE = 1  # linux/capability.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24  # prctl(2)

_PATHS = re.compile(r"""[="'>,](/[^"'<>,]+)""")


def begin(xml: str, act: Callable[[], object]) -> None:
    """Call `act` such that what it starts, by this XML, has no capability; raises what it raises.

    One is left where a file that the XML names is not root's own, or lies where not even root may look without it:
    then no permission of a file keeps the guest's QEMU from it.
    """
    keep = frozenset() if all(map(_is_roots, _PATHS.findall(xml))) else frozenset({CAP_DAC_OVERRIDE})
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if os.geteuid() == 0:
                drop_all_but(keep)
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="starts-a-guest")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def drop_all_but(keep: frozenset[int]) -> None:
    """Take all other capabilities from what this thread will execute; fine if they are gone, or not ours to take."""
    libc, number = ctypes.CDLL(None, use_errno=True), 0
    while (there := libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:  # beyond the last the kernel says no
        if there and number not in keep:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        number += 1


def _is_roots(name: str) -> bool:
    """Whether root can use this file without a capability; so it is of what does not exist."""
    path = Path(name)
    try:
        if path.stat().st_uid != 0:
            return False
        return all(status.st_uid == 0 or status.st_mode & 1 for status in map(Path.stat, path.resolve().parents))
    except OSError:
        return True
