"""What a service manager is told: sd_notify(3), a datagram to the socket that it names in the environment."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """Tells the service manager that started us, if there is one. It is not inherited by what we start.

    It never fails: whether anybody listens is not the daemon's business.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take ``NOTIFY_SOCKET`` out of the environment; os.environ unless given."""
        address = (os.environ if environment is None else environment).pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Tell that requests are taken, again too after `reloading`."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """Tell that the configuration is being read anew."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """Tell in a line how things are."""
        self._send(f"STATUS={_line(status)}")

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
            except OSError:
                return


def _line(text: str) -> str:
    return " ".join(text.split())
