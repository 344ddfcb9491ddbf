"""A daemon of root's behind a real socket, for real users: their files, their rights and the API are real.

What starts guests is not: no QEMU runs here, and the host has as many cores as a test likes.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lxml import etree

from orchestrator.core.discovery import discover
from orchestrator.core.files import HEADER_BYTES, image_size
from orchestrator.core.model import DiskFormat
from orchestrator.core.orders import Notice
from orchestrator.core.policy import Policy
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.metadata import NAMESPACE
from orchestrator.engine import Engine
from orchestrator.host.guest_files import GuestDirectories
from orchestrator.host.opening import UserFiles
from orchestrator.service.api import Api, Desks
from orchestrator.service.desk import Desk
from orchestrator.service.door import Door
from orchestrator.service.events import Events
from orchestrator.service.overview import OverviewDesk
from orchestrator.service.policies import PolicyDesk
from orchestrator.service.serials import SerialDesk
from orchestrator.service.server import serving
from orchestrator.service.states import StateDesk
from orchestrator.wiring.sent import SentDefinitions
from tests.fakes.contexts import contexts_on
from tests.fakes.engine import going, launcher_on
from tests.fakes.host import FakeHost
from tests.fakes.hypervisor import FakeHypervisor
from tests.unit.service_daemon import FakeKeeper, FakeSerials

Look = Callable[[str, "ReadingHypervisor"], None]


class ReadingHypervisor(FakeHypervisor):
    """Reads, with the rights of root, what a guest's XML names, as QEMU would; `read` has it by guest and path.

    `owners` has whose each live guest is, by the metadata. `look` is called before anything is read and after each
    start and end.
    """

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self.read: dict[str, dict[str, bytes]] = {}
        self.xml: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.look: Look = lambda _what, _self: None

    async def start_paused(self, xml: str) -> None:
        root = etree.fromstring(xml)
        name = str(root.findtext("name"))
        self.look("before", self)
        self.xml[name] = xml
        paths = [str(node.text) for tag in ("kernel", "initrd", "loader") for node in root.iterfind(f"os/{tag}")]
        paths += [source.get("file") for source in root.iterfind("devices/disk//source")]
        self.read[name] = {path: _content(path) for path in paths}
        await super().start_paused(xml)
        self._host.named(name).disks = {path: _size(path, form) for path, form in _writable(root)}  # type: ignore[union-attr]  # it was just started
        self.owners[name] = str(root.findtext(f"metadata/{{{NAMESPACE}}}guest/{{{NAMESPACE}}}owner"))
        self.look("start", self)

    async def remove(self, uuid: str) -> bool:
        name = self._host.domains[uuid].name if uuid in self._host.domains else None
        removed = await super().remove(uuid)
        if removed and name is not None:
            self.owners.pop(name, None)
            self.look("end", self)
        return removed


def _writable(domain: Element) -> Iterator[tuple[str, DiskFormat]]:
    """Yield the image of each disk that may be written to, and its format."""
    for disk in domain.iterfind("devices/disk"):
        if disk.find("readonly") is None:
            yield str(disk.find("source").get("file")), DiskFormat(disk.find("driver").get("type"))


def _size(path: str, form: DiskFormat) -> int:
    """Return the size of the disk in an image, as QEMU has it once it has opened that."""
    with Path(path).open("rb") as image:
        return image_size(image.read(HEADER_BYTES), form, Path(path).stat().st_size)


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


@dataclass
class Served:
    """What a test needs of the daemon. `root` is a directory that everybody may enter; `log` has defects."""

    root: Path
    socket: Path
    host: FakeHost
    engine: Engine
    hypervisor: ReadingHypervisor
    definitions: SentDefinitions
    log: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def served(policy: Policy, cpus: str = "0-63") -> AsyncIterator[Served]:
    """Serve with these rules; nothing is left at the end, mounts included."""
    root = _open_directory()
    host, opener = FakeHost(), UserFiles()
    topology = discover({"cpu/online": cpus}, policy.cores.reserved_cores())
    hypervisor = ReadingHypervisor(host)
    files = GuestDirectories(root / "guests", opener=opener)
    launcher = replace(launcher_on(host, topology), hypervisor=hypervisor, files=files)

    def note(notice: Notice) -> None:
        desk.note(notice)

    engine = Engine(topology, policy, launcher, host.clock, on_notice=note)
    definitions = SentDefinitions(policy, opener)
    desk = Desk(engine, definitions, Events(), host.clock)
    found = Served(root, root / "socket", host, engine, hypervisor, definitions)
    api = Api(
        desk,
        Door(time.monotonic, lambda: policy.users.admin_group),
        found.log.append,
        desks=Desks(
            PolicyDesk(desk, engine, definitions, FakeKeeper(policy)),
            SerialDesk(desk, FakeSerials(host)),
            StateDesk(desk, engine, contexts_on(host, engine)),
            OverviewDesk(desk, engine, launcher.processes.memory),
        ),
    )
    try:
        async with going(engine), serving(api.application(), found.socket):
            yield found
            desk.events.close()
    finally:
        opener.close()
        _clear(root)


def _open_directory() -> Path:
    root = Path(tempfile.mkdtemp(prefix="users-"))
    root.chmod(0o755)
    return root


def _clear(root: Path) -> None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{root}/"):
            subprocess.run(["umount", line.split()[1]], check=True)
    shutil.rmtree(root)
