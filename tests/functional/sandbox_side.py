"""A process that starts guests as the daemon does, has each one's QEMU try things, and tells what came of each.

A debugger makes the calls inside the QEMU that runs the guest: with its user, its capabilities, its filter, its
namespaces. It is a process of its own, since one process can open one root of the embedded driver. Guests are on
core 0 and stay paused: where they run is not in question here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.core.model import MIB, Architecture, GuestSpec, PayloadBoot, Size
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.sandbox import judge
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.render import render
from orchestrator.host.embed import prepare_root
from orchestrator.host.guest_files import GuestDirectories
from orchestrator.host.hypervisor import LibvirtHypervisor
from orchestrator.host.processes import ProcFs, become_subreaper
from orchestrator.host.sandbox import read_facts
from orchestrator.wiring import enclosing
from tests.functional.pinned_side import CACHE

ROOT = Path(__file__).parents[2]
QUIETLY = ("maintenance set internal-error corefile no", "maintenance set internal-error quit yes")
LIMIT = 60  # seconds
UUID, OTHER = "3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4b", "3f0b8c1e-5d0a-5c7e-9a53-0d6f5b1c2e4c"


def guest(name: str, uuid: str, owner: str, directory: str) -> Domain:
    payload = str(ROOT / "domains/build/heartbeat-i386.elf")
    spec = GuestSpec(
        name=name,
        architecture=Architecture.I386,
        vcpus=1,
        memory=Size(32 * MIB),
        boot=PayloadBoot(payload=payload),
    )
    return Domain(
        spec=spec,
        placement=Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,)),
        accelerator=Accelerator.TCG,
        owner=owner,
        specification="{}",
        emulator="/usr/bin/qemu-system-i386",
        directory=directory,
        uuid=uuid,
        enclosed=enclosing.restricts(),
    )


async def started(domain: Domain, files: GuestDirectories, hypervisor: LibvirtHypervisor) -> int:
    await files.prepare(domain.spec.name, {}, {}, domain.owner, {})
    await hypervisor.start_paused(render(domain).replace('cpuset="2"', 'cpuset="0"'))
    pid = ProcFs().find(str(domain.uuid))
    assert pid is not None
    return pid


async def ended(domain: Domain, pid: int, files: GuestDirectories, hypervisor: LibvirtHypervisor) -> None:
    ProcFs().kill(pid, str(domain.uuid))
    ended_by(pid)
    await hypervisor.remove(str(domain.uuid))
    files.discard(domain.spec.name)


def tried(pid: int, attempts: dict[str, str]) -> dict[str, list[int] | str]:
    """Have a process make these calls; return what each gave and its errno, or the signal that ended the process."""
    commands = ["set print thread-events off"]
    for call in attempts.values():
        commands += [f"print (long){call}", "print *(int*)__errno_location()"]
    flags = [word for command in (*QUIETLY, *commands) for word in ("-ex", command)]
    with tempfile.TemporaryFile("w+") as out:
        command = ["gdb", "-nx", "-batch", "-p", str(pid), *flags]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as debugger:
            until = time.monotonic() + LIMIT
            while debugger.poll() is None and not is_dead(pid) and time.monotonic() < until:
                time.sleep(0.05)
            debugger.kill()  # some hang, or fall over, when what they debug is killed by its filter
        out.seek(0)
        said = out.read()
    given = [int(value) for value in re.findall(r"^\$\d+ = (-?\d+)", said, re.MULTILINE)]
    if len(given) == 2 * len(attempts):
        return {name: given[2 * number : 2 * number + 2] for number, name in enumerate(attempts)}
    return dict.fromkeys(attempts, ended_by(pid) or said)


def is_dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def ended_by(pid: int) -> str:
    """Return the name of the signal that has ended a child, within some seconds; empty if none has."""
    for _ in range(50):
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return ""  # it has been taken away already
        if found:
            return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""
        time.sleep(0.1)
    return ""


async def main(base: Path, batches: list[dict[str, str]]) -> None:
    become_subreaper()
    prepare_root(base / "root", CACHE)
    files = GuestDirectories(base / "guests")
    domain = guest("closed", UUID, "root", files.directory("closed"))
    another = guest("other", OTHER, "alice", files.directory("other"))
    hypervisor = await LibvirtHypervisor.open(
        f"qemu:///embed?root={base / 'root'}", begin=enclosing.begin(base / "root", CACHE)
    )
    told: dict[str, object] = {}
    try:
        other = await started(another, files, hypervisor)
        for attempts in batches:
            pid = await started(domain, files, hypervisor)
            facts = read_facts(pid)
            assert facts is not None
            facts = replace(facts, enclosed=domain.enclosed)
            told["judged"] = {each.name: [each.closed, each.found] for each in judge(facts, frozenset({1}))}
            calls = {name: call.replace("@OTHER@", str(other)) for name, call in attempts.items()}
            told |= await asyncio.to_thread(tried, pid, calls)
            await ended(domain, pid, files, hypervisor)
        await ended(another, other, files, hypervisor)
    finally:
        await hypervisor.close()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
