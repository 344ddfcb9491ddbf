"""The rights of a user, by the host's databases."""

from __future__ import annotations

import os
import pwd

from orchestrator.errors import HostError

_NOBODYS = 65534  # the group of a user whom no database knows


def rights(owner: str) -> tuple[int, int, list[int]]:
    """Return a user's number, group and further groups, by the host's databases; a number may stand for the name."""
    number = int(owner) if owner.isascii() and owner.isdigit() else None  # digits are never a name
    try:
        entry = pwd.getpwnam(owner) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError):
        if number is None:
            raise HostError(f"{owner}: this host has no such user, so nothing can be opened with his rights") from None
        uid, gid, groups = number, _NOBODYS, [_NOBODYS]
    else:
        uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    if os.geteuid() not in (0, uid):
        raise HostError(
            f"only a daemon of root's opens files with the rights of {owner}; this one runs as another user"
        )
    return uid, gid, groups
