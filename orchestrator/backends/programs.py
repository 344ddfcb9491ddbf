"""Where the programs of back ends are on this host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.core.backends import Kind

_DESCRIPTORS = (  # docs/interop/vhost-user.json in QEMU says what is in them
    Path("/etc/qemu/vhost-user"),
    Path("/usr/share/qemu/vhost-user"),
)


def find(kind: Kind, directories: Iterable[Path] = _DESCRIPTORS) -> str | None:
    """Return the path of a back end's program; None if it is not there. virtiofsd is on nobody's search path."""
    if kind is not Kind.SHARE:
        return shutil.which(kind)
    return next((path for path in _described(directories) if os.access(path, os.X_OK)), None)


def _described(directories: Iterable[Path]) -> Iterator[str]:
    for directory in directories:
        for path in sorted(directory.glob("*.json")):
            try:
                descriptor = json.loads(path.read_bytes())
                if descriptor["type"] == "fs":
                    yield descriptor["binary"]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # libvirt passes over what it cannot read, too
