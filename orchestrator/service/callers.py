"""Who calls: what the kernel says of the process at the other end of the socket, and nothing else.

What a user is called, and in which groups he is, are the word of the host's databases.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from orchestrator.service.messages import ForbiddenError

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

_NO_USER = 2**32 - 1  # (uid_t)-1

NOBODYS = 65534
"""The group of a user whom no database knows."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end of a socket, as it was when it connected.

    `name` is what its user is called, once that has been looked up; `admin` is set for who may act for everybody, and
    `by` is who acts for this user.
    """

    pid: int
    uid: int
    gid: int
    name: str = ""
    admin: bool = False
    by: str = ""

    @property
    def user(self) -> str:
        """Return the user's name, or the number where there is none."""
        return self.name or user_name(self.uid)

    @property
    def is_trusted(self) -> bool:
        """Whether this is root, or the user as whom the daemon runs: they could do all without the daemon."""
        return self.uid in (0, os.geteuid())

    @property
    def may_do_everything(self) -> bool:
        """Whether this is root, the user as whom the daemon runs, or a member of the admin group."""
        return self.admin or self.is_trusted

    def sees(self, owner: str) -> bool:
        """Whether what belongs to this owner is shown to the peer."""
        return self.may_do_everything or (owner != "" and owner == self.user)

    def require(self, name: str, owner: str) -> None:
        """Raise ForbiddenError unless the peer may touch the guest `name` of this owner."""
        if not self.sees(owner):
            raise ForbiddenError(
                f"{name}: this guest is another user's, and you are {self.user}; "
                "its owner, root, the daemon's own user or a member of the admin group may do this"
            )


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel who connected (SO_PEERCRED, unix(7))."""
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def user_name(uid: int) -> str:
    """Return a user's name, or the number where there is none, or where it reads like another one's number."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return str(uid) if name.isdigit() else name


def user_numbers(name: str) -> tuple[int, int] | None:
    """Return the numbers of the user who is called so and of his group; None if this host has none.

    Digits are always the number, never a name.
    """
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else None
    if number is not None and number >= _NO_USER:
        return None
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except (KeyError, ValueError):
        return None if number is None else (number, NOBODYS)
    return entry.pw_uid, entry.pw_gid


def is_member(uid: int, group: str) -> bool:
    """Whether the user is in a group of this host, by its databases: what the caller says of it is not asked."""
    try:
        entry, wanted = pwd.getpwuid(uid), grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return False
    return wanted in os.getgrouplist(entry.pw_name, entry.pw_gid)
