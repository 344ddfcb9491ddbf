"""What the devices of a guest definition may be: disks, shared folders, network cards, a TPM; and its paths.

Each check yields the faults of some values; their keys are relative to the table that these are in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.core.arch import TRAITS
from orchestrator.core.model import Architecture, Disk, DiskBackend, NetworkKind, Share, Tpm
from orchestrator.core.payloads import PayloadMap, PayloadWish
from orchestrator.errors import Fault
from orchestrator.toml_tables import Check, shown

MOST_DISKS = 26  # vda to vdz
MOST_SHARES = 10

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")  # what XML, logs and terminals do not survive

_MOST_PATH = 4095  # bytes: PATH_MAX without its terminator
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with its terminator
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,35}")  # the device has room for 36 bytes (virtio 1.2, 5.11.4)


def path_check(key: str) -> Check:
    """Return the check of the path at `key`."""

    def check(path: str | None) -> Iterator[Fault]:
        if path is not None and (reason := _path_trouble(path)):
            yield Fault(f"{shown(path)} {reason}", key)

    return check


def _path_trouble(path: str) -> str:
    if not path or CONTROL.search(path):
        return "is no path; write one of printable characters"
    if path.startswith("~"):
        return "is not expanded; write the absolute path"
    if ".." in path.split("/"):
        return "may not hold '..'; write the absolute path"
    too_long = len(path.encode()) > _MOST_PATH
    return f"is longer than a path may be, {_MOST_PATH} bytes" if too_long else ""


def check_panic(architecture: Architecture, panic: bool) -> Iterator[Fault]:
    """Yield what is wrong with a panic device."""
    if panic and TRAITS[architecture].panic_model is None:
        yield Fault(f"an {architecture} machine has no panic device; x86 ones have", "panic")


def check_disk_count(disks: tuple[Disk, ...]) -> Iterator[Fault]:
    """Yield that there are too many disks."""
    if len(disks) > MOST_DISKS:
        yield Fault(f"{len(disks)} disks are not possible; there are names for {MOST_DISKS}, vda to vdz", "disk")


def check_disk_writes(readonly: bool, overlay: bool) -> Iterator[Fault]:
    """Yield that a disk is to be written to and not."""
    if readonly and overlay:
        yield Fault("an overlay is written to, so the disk is not readonly; choose one", "overlay")


def check_network(kind: NetworkKind, name: str | None) -> Iterator[Fault]:
    """Yield what is wrong with a network card."""
    pattern = {NetworkKind.BRIDGE: _BRIDGE, NetworkKind.NETWORK: _NETWORK}.get(kind)
    if pattern is None:
        if name is not None:
            yield Fault(f"does not go with type {kind.value!r}; bridge and network have one", "name")
    elif name is None:
        yield Fault(f"missing; write the name of the {kind}", "name")
    elif not pattern.fullmatch(name):
        most = 15 if kind is NetworkKind.BRIDGE else 63
        allowed = f"1 to {most} of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first"
        yield Fault(f"{shown(name)} is not the name of a {kind}; that is {allowed}", "name")


def check_tpm(architecture: Architecture, tpm: Tpm | None) -> Iterator[Fault]:
    """Yield that the machine has no place for a TPM."""
    if tpm is not None and TRAITS[architecture].tpm_model is None:
        yield Fault(f"an {architecture} machine has no place for a TPM; x86 and aarch64 ones have", "tpm")


def check_shares(shares: tuple[Share, ...]) -> Iterator[Fault]:
    """Yield that there are too many folders, or two of one tag."""
    if len(shares) > MOST_SHARES:
        yield Fault(f"{len(shares)} shared folders are not possible; a guest has at most {MOST_SHARES}", "share")
    seen: set[str] = set()
    for index, share in enumerate(shares):
        if share.tag in seen:
            yield Fault(f"{shown(share.tag)} is the tag of another shared folder already", f"share[{index}].tag")
        seen.add(share.tag)


def check_tag(tag: str) -> Iterator[Fault]:
    """Yield that nothing can be mounted by this tag."""
    if not _TAG.fullmatch(tag):
        allowed = "1 to 36 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first"
        yield Fault(f"{shown(tag)} is not possible; it is {allowed}", "tag")


def check_vhost_user(
    disks: tuple[Disk, ...], shares: tuple[Share, ...], payload: PayloadWish | None
) -> Iterator[Fault]:
    """Yield each device that works in the guest's memory from outside, where it could not see what the guest writes."""
    if payload is None or payload.map is not PayloadMap.RAM:
        return
    why = (
        "works in the guest's memory from another process, which sees nothing of what the guest writes with "
        "payload.map = 'ram': that is on copies; map = 'window' goes with it"
    )
    for index, disk in enumerate(disks):
        if disk.backend is DiskBackend.VHOST_USER:
            yield Fault(f"'vhost-user' {why}", f"disk[{index}].backend")
    if shares:
        yield Fault(f"a shared folder {why}", "share")
