"""The processes beside a guest's QEMU that are its devices' other half: which, with which arguments. None is started.

They run on the service core, with the rights of the guest's owner, and end with the guest. Each is given what it needs
by number: descriptor 3 is the socket at which it waits for QEMU, those from 4 on are files, in the order of `files`, or
its folder, which is its working directory, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.files import disk_key
from orchestrator.core.model import Disk, DiskBackend, DiskFormat, GuestSpec, disk_target
from orchestrator.core.xml.domain import Domain

SOCKET, FIRST_FILE = 3, 4
"""Descriptors: of the socket, and of the first file."""

FOLDER = FIRST_FILE
"""The descriptor of a folder, beside which no back end has files."""

LAYER_SUFFIX = ".overlay.qcow2"
"""How the names of layers above images end (`Domain.overlay`)."""

OWN_STATE = "tpm-state"
"""The folder in the guest's run directory in which a TPM keeps what it forgets when the guest ends."""


IMAGE, LAYER = "image", "layer"
"""Block nodes: of the image, and of the layer above it that is thrown away."""

Node = dict[str, object]
"""A block node, or an export, as QEMU describes it."""


class Kind(StrEnum):
    """What a back end is. The word is what messages call it: the name of the program, too."""

    DISK = "qemu-storage-daemon"
    SHARE = "virtiofsd"
    TPM = "swtpm"


PACKAGES = {Kind.DISK: "qemu-system-common", Kind.SHARE: "qemu-system-common", Kind.TPM: "swtpm"}
"""The Debian package of each program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackEnd:
    """One process: `name` is its own among those of the guest, and short: sockets are called so.

    `files` are opened for it, each for writing too if its flag says so. Its `folder` is an absolute path, which it
    opens with its owner's rights, or the name of one in the run directory that is made for it; `readonly` holds for it.
    """

    name: str
    kind: Kind
    arguments: tuple[str, ...]
    files: tuple[tuple[str, bool], ...] = ()
    folder: str = ""
    readonly: bool = False


def kinds(spec: GuestSpec) -> tuple[Kind, ...]:
    """Return what a guest needs of the host, each once."""
    found = [Kind.DISK for disk in spec.disks if disk.backend is DiskBackend.VHOST_USER]
    found += [Kind.SHARE for _ in spec.shares]
    found += [Kind.TPM] if spec.tpm is not None else []
    return tuple(dict.fromkeys(found))


def disk_name(index: int) -> str:
    """Return the name of the back end of the disk at `index`."""
    return disk_target(index)


def share_name(index: int) -> str:
    """Return the name of the back end of the shared folder at `index`."""
    return f"share{index}"


TPM_NAME = "tpm"


def back_ends(domain: Domain) -> tuple[BackEnd, ...]:
    """Return every process that a guest needs beside its QEMU."""
    return (*_disks(domain), *_shares(domain), *_tpm(domain))


def written_outside(domain: Domain) -> Iterator[str]:
    """Yield the path of each image, or of what is below its layer, to which a storage daemon writes."""
    for index, disk in enumerate(domain.spec.disks):
        if disk.backend is DiskBackend.VHOST_USER and not disk.readonly:
            yield domain.file(disk_key(index), disk.path)


def _disks(domain: Domain) -> Iterator[BackEnd]:
    for index, disk in enumerate(domain.spec.disks):
        if disk.backend is DiskBackend.VHOST_USER:
            yield _disk(domain, index, disk)


def _disk(domain: Domain, index: int, disk: Disk) -> BackEnd:
    """Return the storage daemon of a disk.

    The image is given by descriptor where it was opened for its owner, and is based on nothing then, whatever it says;
    else by its path, from which its own base is found.
    """
    image = domain.file(disk_key(index), disk.path)
    files = [(image, not (disk.readonly or disk.overlay))] if domain.pinned else []
    below = _by_number(0) if domain.pinned else image
    nodes = _nodes(below, disk.format, IMAGE, writable=not (disk.readonly or disk.overlay))
    if domain.pinned and disk.format is DiskFormat.QCOW2:
        nodes[-1]["backing"] = None
    if disk.overlay:
        nodes += _nodes(_by_number(len(files)), DiskFormat.QCOW2, LAYER, writable=True)
        nodes[-1]["backing"] = IMAGE
        files.append((domain.overlay(disk_target(index)), True))
    export: Node = {
        "type": "vhost-user-blk",
        "id": "export",
        "node-name": LAYER if disk.overlay else IMAGE,
        "addr": {"type": "fd", "str": str(SOCKET)},
        "writable": not disk.readonly,
        "num-queues": domain.spec.vcpus,
    }
    arguments = (*(part for node in nodes for part in ("--blockdev", _json(node))), "--export", _json(export))
    return BackEnd(name=disk_name(index), kind=Kind.DISK, arguments=arguments, files=tuple(files))


def _by_number(index: int) -> str:
    return f"/proc/self/fd/{FIRST_FILE + index}"


def _nodes(file: str, form: DiskFormat, name: str, *, writable: bool) -> list[Node]:
    """Return the two nodes that open an image: its file, and the format above it."""
    below: Node = {"driver": "file", "node-name": f"{name}-file", "filename": file, "read-only": not writable}
    return [below, {"driver": form, "node-name": name, "file": f"{name}-file", "read-only": not writable}]


def _shares(domain: Domain) -> Iterator[BackEnd]:
    for index, share in enumerate(domain.spec.shares):
        # Not its working directory: it leaves that before it shuts itself in.
        options = (f"source=/proc/self/fd/{FOLDER}/.", "sandbox=chroot")
        arguments = (f"--fd={SOCKET}", "-f", "--rlimit-nofile=0", *(part for each in options for part in ("-o", each)))
        yield BackEnd(
            name=share_name(index),
            kind=Kind.SHARE,
            arguments=arguments,
            folder=share.path,
            readonly=share.readonly,
        )


def _tpm(domain: Domain) -> Iterator[BackEnd]:
    tpm = domain.spec.tpm
    if tpm is not None:
        where = ("--ctrl", f"type=unixio,fd={SOCKET}", "--tpmstate", "dir=.,mode=0600")
        yield BackEnd(
            name=TPM_NAME,
            kind=Kind.TPM,
            arguments=("socket", "--tpm2", *where, "--terminate"),
            folder=tpm.state or OWN_STATE,
        )


def _json(node: Node) -> str:
    return json.dumps(node, sort_keys=True)
