"""libvirt's embedded driver: its root directory, its configuration, and its status files.

One process at a time may open a root; anybody may read the status files in it, which libvirt rewrites
at each change of state. So what runs is known even while another process runs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from lxml import etree

from orchestrator.core.xml.metadata import NAMESPACE, Metadata, read_metadata
from orchestrator.ports import LiveDomain

_CONFIGURATION = """\
# Written by orchestrator; changes are overwritten.
stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
seccomp_sandbox = 1
"""

SYSTEM_STATUS = Path("/run/libvirt/qemu")
"""Where the system's libvirt keeps its status files, which are of the same kind."""

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid

_AS_ROOT = """\
user = "root"
group = "root"
"""


def prepare_root(root: Path, cache: Path) -> None:
    """Make `root` ready to be opened; libvirt's capability cache lives in `cache`, which outlives a tmpfs."""
    for name in ("etc", "log"):
        (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(_CONFIGURATION + (_AS_ROOT if os.geteuid() == 0 else ""))
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = root / "cache"
    if not link.is_symlink():
        shutil.rmtree(link, ignore_errors=True)
        link.symlink_to(cache, target_is_directory=True)


def holder(root: Path) -> int | None:
    """Return the pid of another process that has the root open, or None: libvirt locks its pid file (fcntl).

    The lock is asked about, never taken, so nobody's start is disturbed. A process that holds it must not ask:
    closing the file would give its lock up.
    """
    try:
        with (root / "run" / "qemu" / "driver.pid").open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind, *_, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def domains(root: Path) -> list[LiveDomain]:
    """Return the domains of ours from libvirt's status files, by name; `pid` is None where that process has gone."""
    found = (_domain(path) for path in sorted(status_folder(root).glob("*.xml")))
    return [domain for domain in found if domain is not None]


def status_folder(root: Path) -> Path:
    """Return where the embedded driver of this root keeps its status files."""
    return root / "run" / "qemu"


def owner_of(folders: Iterable[Path], name: str, uuid: str) -> str:
    """Return whose guest this is, as libvirt's status file in one of these folders has it; empty if none says so."""
    for folder in () if "/" in name else folders:
        found = _domain(folder / f"{name}.xml")
        if found is not None and found.uuid == uuid:
            return found.metadata.owner
    return ""


def _domain(path: Path) -> LiveDomain | None:
    """Read one <domstatus>; None if it vanishes meanwhile or is not ours."""
    try:
        status = etree.fromstring(path.read_bytes(), etree.XMLParser(resolve_entities=False))
    except (OSError, etree.XMLSyntaxError):
        return None
    guest = status.find(f"domain/metadata/{{{NAMESPACE}}}guest")
    metadata: Metadata | None = None if guest is None else read_metadata(guest)
    if metadata is None:
        return None
    uuid = str(status.findtext("domain/uuid"))
    pid = int(status.get("pid", "0"))
    return LiveDomain(
        name=str(status.findtext("domain/name")),
        uuid=uuid,
        state=str(status.get("state")),
        pid=pid if _runs(pid, uuid) else None,
        metadata=metadata,
    )


def _runs(pid: int, uuid: str) -> bool:
    try:
        return uuid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
