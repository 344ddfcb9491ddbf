"""What guests say on their serial ports: heartbeats counted, the last line kept."""

from __future__ import annotations

from orchestrator.launch import RunningGuest
from orchestrator.ports import GuestFiles

LONGEST_LINE = 4096
"""Bytes kept of a serial line that has not ended yet."""


def read_serial(guest: RunningGuest, files: GuestFiles) -> None:
    """Read on in a guest's serial log. Growth: linear in what is new."""
    fresh, guest.log_size = files.serial_log(guest.name, guest.log_size)
    *lines, rest = (guest.unfinished + fresh).split(b"\n")
    guest.unfinished = rest[:LONGEST_LINE]
    lines = [line for line in map(bytes.strip, lines) if line]
    guest.heartbeats += sum(line.startswith(b"heartbeat ") for line in lines)
    if lines:
        text = lines[-1][:LONGEST_LINE].decode("utf-8", "replace")
        guest.last_line = "".join(character for character in text if character.isprintable())
