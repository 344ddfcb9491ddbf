"""Where things are kept: run-time state on a tmpfs that dies with the host, what must last and caches on a disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import HostError


def runtime_directory(environment: Mapping[str, str]) -> Path:
    """Return (and make) the directory for sockets, logs and libvirt's root; only its owner may enter it.

    ``ORCHESTRATOR_RUNTIME_DIR`` if set, else a directory on the first tmpfs of /run (as root),
    ``XDG_RUNTIME_DIR`` and /dev/shm: libvirt rewrites a status file at every change of state, which on a disk
    costs several times as much. HostError if there is none, or if it is another user's.
    """
    chosen = environment.get("ORCHESTRATOR_RUNTIME_DIR")
    path = Path(chosen) if chosen else _on_tmpfs(environment)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat(follow_symlinks=False)
    except OSError as error:
        raise HostError(
            f"{path}: cannot be the run directory: {error.strerror}; set ORCHESTRATOR_RUNTIME_DIR"
        ) from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(f"{path}: belongs to another user or others may write to it; set ORCHESTRATOR_RUNTIME_DIR")
    return path.resolve()


def state_directory(environment: Mapping[str, str]) -> Path:
    """Return the directory for what must last, made if need be, for its owner alone.

    That is ``ORCHESTRATOR_STATE_DIR``, else /var/lib/orchestrator for root and ``XDG_STATE_HOME/orchestrator`` for
    others. HostError if it cannot be written to.
    """
    named = environment.get("ORCHESTRATOR_STATE_DIR")
    if named:
        path = Path(named)
    elif os.geteuid() == 0:
        path = Path("/var/lib/orchestrator")
    else:
        base = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(base) / "orchestrator"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{path}: cannot be made: {error.strerror}; set ORCHESTRATOR_STATE_DIR") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise HostError(f"{path}: cannot be written to; set ORCHESTRATOR_STATE_DIR to a folder that can")
    return path


def heads_file(environment: Mapping[str, str]) -> Path:
    """Return where heads of the journals are kept: in root's case on another file system than these, as a rule.

    That is /var/log/orchestrator/heads.jsonl for root, unless ``ORCHESTRATOR_STATE_DIR`` is set, else a file in the
    state directory.
    """
    if os.geteuid() == 0 and not environment.get("ORCHESTRATOR_STATE_DIR"):
        return Path("/var/log/orchestrator/heads.jsonl")
    return state_directory(environment) / "heads.jsonl"


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Return the directory for what can be made again: ``XDG_CACHE_HOME/orchestrator``."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "orchestrator"


def _on_tmpfs(environment: Mapping[str, str]) -> Path:
    mounts = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        mounts[where] = kind
    candidates = ["/dev/shm"]
    if environment.get("XDG_RUNTIME_DIR"):
        candidates.insert(0, environment["XDG_RUNTIME_DIR"])
    if os.geteuid() == 0:
        candidates.insert(0, "/run")
    for candidate in candidates:
        if mounts.get(candidate) == "tmpfs" and os.access(candidate, os.W_OK):
            name = "orchestrator" if candidate != "/dev/shm" else f"orchestrator-{os.geteuid()}"
            return Path(candidate) / name
    raise HostError(f"no writable tmpfs among {', '.join(candidates)}; mount one, or set ORCHESTRATOR_RUNTIME_DIR")
