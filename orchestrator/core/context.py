"""What a saved state is made of, and whether it fits this host: every reason why not. Values only, no file is opened.

A state can be loaded into a guest that is the same in all that QEMU builds of it. So a state names the definition, the
machine type as QEMU versions it, who executed the instructions, and the files that the guest stands on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from orchestrator.core.xml.domain import Accelerator
from orchestrator.errors import UsageError

FORMAT = 1
"""The version of the manifest; what it has may only be added to."""


class Kind(StrEnum):
    """What a state is for: the guest that was ended with it, one it can go back to, or any number of clones."""

    SAVED = "saved"
    SNAPSHOT = "snapshot"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Mark:
    """A file as it was: its size in bytes, and when it was last changed, in nanoseconds since 1970."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The manifest of a state, called `name` among its owner's of this kind.

    `guest` is whose state it is, `specification` its definition as canonical JSON. `machine` is the machine type
    without an alias, `qemu` the version that wrote it, `processor` the host's model where it was KVM's, else empty.
    `windowed`: it has a window into a file, which is not in the state. `disk` is what its writable disks can grow to,
    in bytes, for quotas. `overlays` are the targets of the disks whose overlays are part of it, `marks` the other files
    that the definition names. `process` is the QEMU that was saved, `taken_at` nanoseconds since 1970.
    """

    name: str
    kind: Kind
    guest: str
    owner: str
    specification: str
    architecture: str
    accelerator: Accelerator
    machine: str
    qemu: str
    processor: str
    windowed: bool
    disk: int
    overlays: tuple[str, ...]
    marks: tuple[Mark, ...]
    process: str
    taken_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is here: the emulator's version and machine types, what executes, and files as they are (None: gone)."""

    qemu: str
    machines: frozenset[str]
    accelerator: Accelerator
    processor: str
    files: Mapping[str, Mark | None]


def encode(context: Context) -> str:
    """Return a manifest as JSON."""
    return json.dumps({"format": FORMAT, **asdict(context)}, indent=1, sort_keys=True) + "\n"


def decode(text: str, where: str) -> Context:
    """Read a manifest; UsageError says what is wrong with it. `where` is what messages call it."""
    try:
        content = json.loads(text)
        version = content.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UsageError(f"{where}: is no manifest of a saved state; remove it") from None
    if version != FORMAT:
        raise UsageError(
            f"{where}: has format {version}, this program knows format {FORMAT}; use the one that wrote it"
        )
    try:
        return Context(**_typed(content))
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"{where}: its manifest is damaged ({error}); remove it") from None


def _typed(content: dict[str, Any]) -> dict[str, Any]:
    texts = ("name", "guest", "owner", "specification", "architecture", "machine", "qemu", "processor", "process")
    if content.keys() != {field.name for field in fields(Context)}:
        raise ValueError("fields are missing, or there are others")
    if not all(isinstance(content[key], str) for key in texts):
        raise TypeError("a text is none")
    content["kind"], content["accelerator"] = Kind(content["kind"]), Accelerator(content["accelerator"])
    content["marks"] = tuple(Mark(**mark) for mark in content["marks"])
    content["overlays"] = tuple(content["overlays"])
    return content


def misfits(context: Context, host: Host) -> tuple[str, ...]:
    """Return every reason why a state cannot be loaded here; none if it fits. Growth: linear in its files."""
    return tuple(_misfits(context, host))


def _misfits(context: Context, host: Host) -> Iterator[str]:
    if _numbers(host.qemu) < _numbers(context.qemu):
        yield f"QEMU {context.qemu} wrote it, and {host.qemu} here is older"
    if context.machine not in host.machines:
        yield f"its machine type {context.machine} is not among those of QEMU {host.qemu} here"
    if context.accelerator is not host.accelerator:
        yield f"it ran under {context.accelerator}, and {context.architecture} guests here under {host.accelerator}"
    elif context.processor != (host.processor if context.accelerator is Accelerator.KVM else ""):
        yield f"it ran on {context.processor}, and here is {host.processor}"
    for mark in context.marks:
        now = host.files.get(mark.path)
        if now is None:
            yield f"{mark.path} is gone"
        elif now != mark:
            yield f"{mark.path} has been changed since"


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version for comparison: what is no number in it ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
