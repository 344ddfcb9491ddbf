"""What is shipped beside the program: guest definitions and policies, which can be given by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orchestrator
from orchestrator.errors import HostError, UsageError

_MARK = "README.md"
"""A file that is in each of the directories."""


def definition(given: Path) -> Path:
    """Return a definition's file: what is given, if that is a file or looks like one, else the shipped one so called.

    UsageError names those that are shipped.
    """
    return _found(given, "domains", "definition")


def policy(given: Path) -> Path:
    """Return a policy's file, as `definition` does."""
    return _found(given, "policies", "policy")


def names(kind: str) -> list[str]:
    """Return the names of what is shipped in a directory: "domains", which has some deeper down, or "policies"."""
    below = directory(kind)
    found = below.rglob("*.toml") if kind == "domains" else below.glob("*.toml")
    return sorted(str(path.relative_to(below).with_suffix("")) for path in found)


def in_sources() -> bool:
    """Tell whether this program runs from its source tree, where `make guests` builds what guests boot."""
    return (_sources() / "pyproject.toml").is_file()


@cache
def directory(kind: str) -> Path:
    """Return a shipped directory: of the source tree, else as it was installed. HostError if it was not."""
    if in_sources():
        return _sources() / kind
    from importlib.metadata import files

    for file in files("orchestrator") or ():
        if file.parts[-3:] == ("orchestrator", kind, _MARK):
            return Path(str(file.locate())).resolve().parent
    raise HostError(f"{kind}: not installed with this program; give the path of a file")


def _sources() -> Path:
    return Path(orchestrator.__file__).resolve().parents[1]


def _found(given: Path, kind: str, what: str) -> Path:
    if given.suffix or given.is_absolute() or given.exists():
        return given
    try:
        path = directory(kind) / f"{given}.toml"
    except HostError:
        return given
    if not path.is_file():
        listed = ", ".join(names(kind))
        raise UsageError(f"{given}: no such file, and no {what} is shipped by this name; there are {listed}")
    return path
