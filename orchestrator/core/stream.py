"""QEMU's migration stream, as far as one thing has to be known of it: where it says at which address a window lies.

Of memory that is not in the stream QEMU (7.2, migration/ram.c) compares the address with that of its own; but of a PCI
device the guest sets the address, which is in the stream only behind that. So no guest with a window could be loaded.
"""

from __future__ import annotations

import re

from orchestrator.core.xml.memory import WINDOW

HEAD = 65536
"""So much of a stream has what is looked for, which follows its first section's beginning."""

_WINDOW = f"/{WINDOW}".encode()
_PATH = re.compile(rb"[0-9a-f:./]+")
_LONGEST = 255  # bytes of a name
_LENGTH = _ADDRESS = 8  # bytes of the block's length, behind its name, and of its address


def without_window(head: bytes) -> bytes | None:
    """Return a stream's head with 0 as the address of a window, as a PCI device has it that nobody has set up yet.

    None if it tells of no window. Growth: linear in the head.
    """
    for found in re.finditer(_WINDOW, head):
        at = found.end() + _LENGTH
        if _is_name(head, found.end()) and at + _ADDRESS <= len(head):
            return head[:at] + bytes(_ADDRESS) + head[at + _ADDRESS :]
    return None


def _is_name(head: bytes, end: int) -> bool:
    """Say whether a block's name ends here: its device's path on PCI, and the object; before it is its length."""
    starts = range(end - len(_WINDOW) - 1, max(0, end - _LONGEST - 1), -1)
    return any(head[at - 1] == end - at and _PATH.fullmatch(head, at, end - len(_WINDOW)) for at in starts)
