"""A process that runs a guest with a disk, two folders and a TPM served from beside QEMU, and tells what it saw.

It is a process of its own, since one process can open one root of the embedded driver. The guest runs on core 0, since
where guests run is not in question here; its back ends are where they always are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.backends.programs import find
from orchestrator.backends.service import ServiceBackEnds
from orchestrator.core.backends import back_ends
from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.model import (
    MIB,
    Architecture,
    Disk,
    DiskBackend,
    DiskFormat,
    GuestSpec,
    KernelBoot,
    Share,
    Size,
    Tpm,
)
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
from tests.functional.device_guest import CMDLINE
from tests.functional.pinned_side import CACHE, PATIENCE, names, reap_now_and_then


def guest(home: Path, owner: str, directory: str) -> Domain:
    spec = GuestSpec(
        name="own",
        architecture=Architecture.X86_64,
        vcpus=1,
        memory=Size(192 * MIB),
        boot=KernelBoot(kernel=str(home / "device.vmlinux"), initrd=str(home / "device.cpio"), cmdline=CMDLINE),
        disks=(
            Disk(path=str(home / "data.raw"), format=DiskFormat.RAW, backend=DiskBackend.VHOST_USER),
            Disk(path=str(home / "base.qcow2"), format=DiskFormat.QCOW2, overlay=True, backend=DiskBackend.VHOST_USER),
        ),
        shares=(
            Share(path=str(home / "files"), tag="files"),
            Share(path=str(home / "tools"), tag="tools", readonly=True),
        ),
        tpm=Tpm(state=str(home / "tpm")),
    )
    return Domain(
        spec=spec,
        placement=Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,)),
        accelerator=Accelerator.TCG,
        owner=owner,
        specification="{}",
        emulator="/usr/bin/qemu-system-x86_64",
        directory=directory,
        uuid="3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4a",
        pinned=owner != "root",
    )


class Side:
    def __init__(self, base: Path, home: Path, owner: str) -> None:
        self.opener = UserFiles()
        self.files = GuestDirectories(base / "guests", opener=self.opener)
        self.back_ends = ServiceBackEnds(base / "guests", (sys.executable, "-I", "-m", "orchestrator.backends"), find)
        self.domain = guest(home, owner, self.files.directory("own"))
        self.owner = owner
        self.kernel = ProcFs()

    async def prepare(self) -> None:
        domain = self.domain
        await self.files.prepare("own", overlays(domain), domain.pins, self.owner, {})
        await self.back_ends.start(domain.directory, self.owner if domain.pinned else None, back_ends(domain))

    async def run(self, hypervisor: LibvirtHypervisor) -> dict[str, Any]:
        """Let the guest run until it has used all; tell what it said, and where each thread beside it was."""
        await self.prepare()
        await hypervisor.start_paused(render(self.domain).replace('cpuset="2"', 'cpuset="0"'))
        try:
            monitor = await QmpMonitors().connect(self.domain.monitor_socket)
            await monitor.resume()
            for _ in range(PATIENCE * 5):
                text = self.files.serial_log("own").text
                if b"heartbeat 3\r\n" in text or b"panic" in text:
                    break
                await asyncio.sleep(0.2)
            beside = self.beside()
            handed = []
            for _ in range(10):
                begun = time.perf_counter()
                await monitor.suspend()
                await monitor.resume()
                handed.append(time.perf_counter() - begun)
            await monitor.close()
            return {"printed": text.decode(), "beside": beside, "stop_and_go": sorted(handed)[5]}
        finally:
            await hypervisor.remove(str(self.domain.uuid))

    def beside(self) -> dict[str, Any]:
        found = {}
        for name, pid in self.back_ends.processes(self.domain.directory).items():
            threads = self.kernel.threads(pid or 0)
            status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found[name] = {
                "pid": pid,
                "threads": [(format_cpulist(thread.allowed), thread.last_core) for thread in threads],
                "uids": sorted(set(status["Uid"].split())),
                "no_new_privs": status["NoNewPrivs"],
                "capabilities": status["CapEff"],
                "user_namespace": _user_namespace(pid or 0) != _user_namespace(os.getpid()),
            }
        return found


def _user_namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/user").readlink()


def there(beside: dict[str, Any]) -> list[str]:
    return [name for name, each in beside.items() if Path(f"/proc/{each['pid']}/exe").exists()]


async def main(base: Path, home: Path, owner: str) -> None:
    become_subreaper()
    prepare_root(base / "root", CACHE)
    side = Side(base, home, owner)
    hypervisor = await LibvirtHypervisor.open(f"qemu:///embed?root={base / 'root'}", begin=begin)
    reaping = asyncio.create_task(reap_now_and_then())
    try:
        told = await side.run(hypervisor)
        begun = time.perf_counter()
        await side.back_ends.end(side.domain.directory)
        told["end_seconds"] = time.perf_counter() - begun
        side.files.discard("own")
        told["left"] = names(Path(side.domain.directory))
        told["still_there"] = there(told["beside"])
    finally:
        reaping.cancel()
        await hypervisor.close()
        side.opener.close()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
