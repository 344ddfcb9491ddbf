"""A process that starts a user's guest from files that were held fast, as the launcher does, and tells what QEMU has.

It is a process of its own, since one process can open one root of the embedded driver. The guest runs on core 0, since
where guests run is not in question here, and this host may have no other core for it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.core.model import MIB, Architecture, Disk, DiskFormat, GuestSpec, PayloadBoot, Size
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.render import render
from orchestrator.host.embed import prepare_root
from orchestrator.host.guest_files import GuestDirectories
from orchestrator.host.hypervisor import LibvirtHypervisor
from orchestrator.host.monitor import QmpMonitors
from orchestrator.host.opening import UserFiles
from orchestrator.host.privileges import begin
from orchestrator.host.processes import ProcFs, become_subreaper
from orchestrator.image_proof import overlays

CACHE = Path("~/.cache/orchestrator/libvirt").expanduser()
PATIENCE = 120  # seconds


def guest(home: Path, owner: str, directory: str) -> Domain:
    disks = (
        Disk(path=str(home / "data.qcow2"), format=DiskFormat.QCOW2),
        Disk(path=str(home / "tools.qcow2"), format=DiskFormat.QCOW2, overlay=True),
        Disk(path=str(home / "rest.raw"), format=DiskFormat.RAW, readonly=True),
    )
    spec = GuestSpec(
        name="own",
        architecture=Architecture.I386,
        vcpus=1,
        memory=Size(32 * MIB),
        boot=PayloadBoot(payload=str(home / "payload, x.elf")),
        disks=disks,
    )
    return Domain(
        spec=spec,
        placement=Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,)),
        accelerator=Accelerator.TCG,
        owner=owner,
        specification="{}",
        emulator="/usr/bin/qemu-system-i386",
        directory=directory,
        uuid="3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4a",
        pinned=True,
    )


async def started(hypervisor: LibvirtHypervisor, files: GuestDirectories, domain: Domain) -> dict[str, Any]:
    """Start the guest, and return its disks and what it has printed; then end it."""
    await hypervisor.start_paused(render(domain).replace('cpuset="2"', 'cpuset="0"'))
    try:
        monitor = await QmpMonitors().connect(domain.monitor_socket)
        images, disks = dict(await monitor.images()), dict(await monitor.disks())
        await monitor.resume()
        for _ in range(PATIENCE * 10):
            text = files.serial_log("own").text
            if b"heartbeat 3\n" in text:
                break
            await asyncio.sleep(0.1)
        await monitor.close()
        return {"images": images, "disks": disks, "printed": text.decode()}
    finally:
        await hypervisor.remove(str(domain.uuid))


async def main(base: Path, home: Path, owner: str) -> None:
    become_subreaper()
    prepare_root(base / "root", CACHE)
    opener = UserFiles()
    files = GuestDirectories(base / "guests", opener=opener)
    domain = guest(home, owner, files.directory("own"))
    hypervisor = await LibvirtHypervisor.open(f"qemu:///embed?root={base / 'root'}", begin=begin)
    reaping = asyncio.create_task(reap_now_and_then())
    try:
        told = {"ours": [*domain.pins, *overlays(domain)], "mounts": {}}
        for what in ("plain", "changed"):
            await files.prepare("own", overlays(domain), domain.pins, owner, {})
            if what == "changed":  # by its owner, between the check and QEMU's opening
                lead_elsewhere(home, home.parent / "secret")
            told[what] = await started(hypervisor, files, domain)
            files.discard("own")
        told["left"] = names(Path(domain.directory))
    finally:
        reaping.cancel()
        await hypervisor.close()
        opener.close()
    sys.stdout.write(json.dumps(told))


async def reap_now_and_then() -> None:
    """Take away QEMUs that have ended: libvirt waits for that, a minute and more."""
    kernel = ProcFs()
    while True:
        kernel.reap()
        await asyncio.sleep(0.1)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def lead_elsewhere(home: Path, secret: Path) -> None:
    """Write headers into the two images, in place, that name another file: as data and as base."""
    made = home.parent / "made"
    for image, options in (
        ("data.qcow2", ("-o", f"data_file={secret}")),
        ("tools.qcow2", ("-u", "-F", "raw", "-b", str(secret))),
    ):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(made), "1M"], check=True)
        with (home / image).open("r+b") as file:
            file.write(made.read_bytes())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
