"""Who calls: what the kernel says of the process at the other end of the socket, and nothing else."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass

from orchestrator.service.messages import ForbiddenError

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end of a socket, as it was when it connected."""

    pid: int
    uid: int
    gid: int

    @property
    def user(self) -> str:
        """Return the user's name, or the number where there is none, or where it reads like another one's number."""
        try:
            name = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)
        return str(self.uid) if name.isdigit() else name

    @property
    def may_do_everything(self) -> bool:
        """Whether this is root, or the user as whom the daemon runs."""
        return self.uid in (0, os.geteuid())

    def sees(self, owner: str) -> bool:
        """Whether what belongs to this owner is shown to the peer."""
        return self.may_do_everything or (owner != "" and owner == self.user)

    def require(self, name: str, owner: str) -> None:
        """Raise ForbiddenError unless the peer may touch the guest `name` of this owner."""
        if not self.sees(owner):
            raise ForbiddenError(
                f"{name}: this guest is another user's, and you are {self.user}; "
                "its owner, root, or the daemon's own user may do this"
            )


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel who connected (SO_PEERCRED, unix(7))."""
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
