"""Opening a file that somebody wants to have added, with his rights and not with ours."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator

from orchestrator.errors import UsageError


@contextlib.contextmanager
def opened(path: str, user: tuple[int, int] | None) -> Iterator[int]:
    """Open a file to be added, by the rights of a user (uid, gid) if one is given, who may be anybody to root.

    UsageError if it cannot be opened, or is no regular file. The whole process has these rights meanwhile: it must be
    a process of its own.
    """
    try:
        with _rights_of(user):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError(f"{path}: is no regular file")
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _rights_of(user: tuple[int, int] | None) -> Iterator[None]:
    if user is None or os.geteuid() != 0 or user[0] == 0:
        yield
        return
    uid, gid = user
    before = os.getgroups(), os.getegid(), os.geteuid()
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        groups = [gid]
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(before[2])
        os.setegid(before[1])
        os.setgroups(before[0])
