"""States of real guests, in a process of its own that can be killed: states_side.py STEP, prints JSON.

The engine, libvirt and QEMU are real; where this host has no pool, core 1 is borrowed, as the benchmarks do.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from orchestrator.bench.borrowed import Host, lend, may_lend
from orchestrator.config import decode_guest
from orchestrator.contexts import Contexts
from orchestrator.core.context import Kind
from orchestrator.core.model import KernelBoot
from orchestrator.core.policy import HypervisorPolicy, Policy
from orchestrator.core.smaps import Share, shares
from orchestrator.engine import Engine
from orchestrator.host.clock import MonotonicClock
from orchestrator.host.emulators import QemuPrograms
from orchestrator.host.monitor import QmpMonitors
from orchestrator.host.state_files import StateDirectories
from orchestrator.lab.kernel import default_cache, obtain_kernel
from orchestrator.monitor_ports import Monitor
from orchestrator.payloads.store import PayloadStore
from orchestrator.recorder import Unrecorded
from orchestrator.service.callers import user_name
from orchestrator.shelf import Shelf
from orchestrator.state_ports import Draft
from orchestrator.wiring.definitions import accelerator_for, emulator_path, load_guests, to_run
from orchestrator.wiring.guests import EMBED, build_launcher, open_hypervisor
from orchestrator.wiring.payloads import payload_store, resolved
from orchestrator.wiring.site import load_topology
from orchestrator.wiring.states import codec

DOMAINS = Path(__file__).parents[2] / "domains"
NAMES = tuple(f"heartbeat-{architecture}" for architecture in ("i386", "x86_64", "armv7l", "aarch64"))
WINDOWS = ("window-i386", "window-aarch64")
MAPPING = ("window-aarch64", "ram-armv7l")
PATIENCE = 120.0


class Cutting(StateDirectories):
    """Kills this process at a step of what is being written, or loaded."""

    step = ""

    async def begin(self, owner: str, kind: str, name: str) -> Draft:
        draft = await super().begin(owner, kind, name)
        self.at("begun")
        return draft

    async def publish(self, draft: Draft, manifest: str) -> str:
        self.at("written")
        path = await super().publish(draft, manifest)
        self.at("published")
        return path

    def at(self, step: str) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class CuttingMonitor:
    """A real monitor, but for what is at a step of a guest that is given a state."""

    real: Monitor
    files: Cutting

    async def load(self, path: str, *, skip_shared: bool) -> None:
        self.files.at("loading")
        await self.real.load(path, skip_shared=skip_shared)
        self.files.at("loaded")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@dataclass(frozen=True)
class CuttingMonitors:
    files: Cutting

    async def connect(self, socket: str) -> Monitor:
        return cast(Monitor, CuttingMonitor(await QmpMonitors().connect(socket), self.files))


@dataclass
class World:
    engine: Engine
    contexts: Contexts
    files: Cutting
    log: Callable[[str], bytes]

    def beats(self, name: str) -> list[int]:
        lines = self.log(name).split(b"\n")[:-1]
        return [int(line.split()[1]) for line in lines if line.startswith(b"heartbeat ")]

    async def beaten(self, names: Sequence[str], count: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while not all(len(self.beats(name)) >= count for name in names):
            assert time.monotonic() < end, {name: self.log(name)[-200:] for name in names}
            await asyncio.sleep(0.02)

    async def start(self, names: Sequence[str]) -> None:
        for name in names:
            parsed = load_guests([DOMAINS / f"{name}.toml"])
            architecture = parsed[0].spec.architecture
            await self.engine.start(to_run(parsed, 1, {architecture: accelerator_for(architecture, Policy())}))
        await self.beaten(names, 3)


@asynccontextmanager
async def world(*, merges: bool = False) -> AsyncIterator[World]:
    policy = Policy()
    topology = load_topology(policy)
    async with open_hypervisor(EMBED) as hypervisor:
        launcher = build_launcher(topology, hypervisor, EMBED, HypervisorPolicy(merge_memory=merges))
        if may_lend(topology):
            host = lend(Host(topology, hypervisor, launcher.processes))
            launcher = replace(launcher, topology=host.topology, hypervisor=host.hypervisor, processes=host.processes)
        files = Cutting(Path(os.environ["ORCHESTRATOR_STATE_DIR"]) / "states")
        launcher = replace(launcher, monitors=CuttingMonitors(files))
        engine = Engine(launcher.topology, policy, launcher, MonotonicClock())
        emulators = QemuPrograms(emulator_path, lambda which: accelerator_for(which, policy).accelerator)
        shelf = Shelf(files, emulators, codec(lambda _: False))
        contexts = Contexts(engine, launcher, shelf, Unrecorded(), time.time_ns)
        running = asyncio.create_task(engine.run())
        try:
            yield World(engine, contexts, files, lambda name: launcher.files.serial_log(name).text)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def save(here: World) -> Any:
    """Start a guest of each architecture, save them all, and return their last beats."""
    await here.start(NAMES)
    for name in NAMES:
        await here.contexts.save(name, f"saved-{name}")
    return {name: here.beats(name)[-1] for name in NAMES}


async def restore(here: World) -> Any:
    """Restore all; return their first beats, those from a snapshot to which each is reverted, and those of clones."""
    found: dict[str, Any] = {}
    for name in NAMES:
        await here.contexts.restore(f"saved-{name}")
        await here.beaten([name])
        first = here.beats(name)[0]
        await here.contexts.snapshot(name, "here")
        before = here.beats(name)[-1]
        await here.beaten([name], len(here.beats(name)) + 2)
        await here.contexts.revert(name, "here")
        await here.beaten([name])
        reverted = here.beats(name)[0]
        last = here.beats(name)[-1]
        await here.contexts.template(name, f"warm-{name}")
        later = here.beats(name)[-1]
        clones = await here.contexts.clone(f"warm-{name}", 2)
        await here.beaten(clones.names)
        guests = [here.engine.guests[each] for each in (name, *clones.names)]
        rams = [ram_mapping(guest.pid) for guest in guests]
        found[name] = {
            "first": first,
            "snapshot": [before, reverted],
            "clones": [last, later, *(here.beats(each)[0] for each in clones.names)],
            "uuids": [guest.domain.uuid for guest in guests],
            "rams": rams,
            "notes": list(clones.notes),
        }
        for each in (name, *clones.names):
            await here.engine.kill(each)
    found["strays"] = list(await here.contexts.gc())
    return found


def toolbox() -> PayloadStore:
    """Have the payload in the store that the guests of domains/payload map."""
    store = payload_store()
    with (DOMAINS / "build" / "payload.img").open("rb") as image:
        store.add(image.fileno(), "toolbox", user_name(os.geteuid()), public=True, quota=1 << 30)
    return store


async def start_on_payload(here: World, name: str) -> None:
    (parsed,) = load_guests([DOMAINS / "payload" / f"{name}.toml"])
    parsed = resolved(parsed, user_name(os.geteuid()))
    architecture = parsed.spec.architecture
    await here.engine.start(to_run([parsed], 1, {architecture: accelerator_for(architecture, Policy())}))


async def mapping(here: World) -> Any:
    """Start two guests that map a payload, in either way, and one that does not; then the process is killed."""
    toolbox()
    for name in MAPPING:
        await start_on_payload(here, name)
    await here.start(NAMES[-1:])
    await here.beaten(MAPPING, 2)


async def cut_short(here: World) -> Any:
    """Come back as the next daemon does, and cut the payload's file short; return how guests have ended."""
    notes = await here.engine.adopt(decode_guest)
    store = payload_store()
    (payload,) = store.catalogue().payloads
    file = str(store.path(payload))
    os.truncate(file, 4096)
    end = time.monotonic() + PATIENCE
    while not all(here.engine.guests[name].ended for name in MAPPING):
        assert time.monotonic() < end, {name: here.log(name)[-200:] for name in MAPPING}
        await asyncio.sleep(0.05)
    other = NAMES[-1]
    await here.beaten([other], len(here.beats(other)) + 2)
    ended = {name: guest.ended for name, guest in here.engine.guests.items()}
    await here.engine.kill(other)
    store.remove(payload)
    return {"notes": notes, "ended": ended, "file": file}


async def windows(here: World) -> Any:
    """Have guests that execute a payload through a window go back to a snapshot, and again to one of what came of it.

    Return for each the beats from which and with which they went on, and how they map it at last.
    """
    store = toolbox()
    found: dict[str, Any] = {}
    for name in WINDOWS:
        await start_on_payload(here, name)
        await here.beaten([name], 2)
        went_on = []
        for each in ("first", "second"):
            await here.contexts.snapshot(name, each)
            last = here.beats(name)[-1]
            await here.contexts.revert(name, each)
            await here.beaten([name], 2)
            went_on.append([last, here.beats(name)[0]])
        (share,) = mapped(here.engine.guests[name].pid, store.root)
        found[name] = {"beats": went_on, "written": share.private_dirty, "mapped": share.mapped}
        await here.engine.kill(name)
    return found


async def merging(here: World) -> Any:
    """Say whether the kernel may merge the pages of a guest's RAM with others."""
    name = NAMES[-1]
    await here.start([name])
    guest = here.engine.guests[name]
    may_be = mergeable(guest.pid, guest.domain.spec.memory)
    await here.engine.kill(name)
    return may_be


def mergeable(pid: int | None, size: int) -> list[bool]:
    """Read of each mapping of this size, that a file is not behind, whether it was advised MADV_MERGEABLE (proc(5))."""
    found, wanted = [], False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            first, last = (int(end, 16) for end in words[0].split("-"))
            wanted = last - first == size and len(words) == 5
        elif wanted and words[0] == "VmFlags:":
            found.append("mg" in words)
    return found


def mapped(pid: int | None, root: Path) -> list[Share]:
    return shares(Path(f"/proc/{pid}/smaps").read_text(), str(root))


def ram_mapping(pid: int | None) -> str:
    """Return how a template's RAM is mapped in a process, if it is."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("/ram"):
            return line.split()[1]
    return ""


async def draw(here: World, name: str) -> None:
    """Have a Linux guest print random bytes, and return when it has."""
    _, writer = await asyncio.open_unix_connection(here.engine.guests[name].domain.serial_socket)
    writer.write(b"random\n")
    await writer.drain()
    end = time.monotonic() + PATIENCE
    while b"\nrandom " not in here.log(name).rpartition(b"\n")[0]:
        assert time.monotonic() < end, here.log(name)
        await asyncio.sleep(0.05)
    writer.close()


async def random(here: World) -> Any:
    """Clone a Linux twice; return each clone's log with the random bytes that it prints when it is told to."""
    kernel = obtain_kernel(default_cache(os.environ))
    (parsed,) = load_guests([DOMAINS / "linux-x86_64.toml"])
    boot = KernelBoot(
        kernel=str(kernel.vmlinux),
        initrd=str(DOMAINS / "build" / "linux-x86_64.cpio"),
        cmdline="console=ttyS0 loglevel=6 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check",
    )
    guest = replace(parsed, spec=replace(parsed.spec, name="linux", boot=boot))
    choice = accelerator_for(guest.spec.architecture, Policy())
    await here.engine.start(to_run([guest], 1, {guest.spec.architecture: choice}))
    await here.beaten(["linux"], 2)
    await draw(here, "linux")  # its generator is ready then
    await here.contexts.template("linux", "warm")
    await here.engine.kill("linux")
    clones = await here.contexts.clone("warm", 2)
    await here.beaten(clones.names, 2)
    logs = []
    for name in clones.names:
        await draw(here, name)
        logs.append(here.log(name).decode(errors="replace"))
        await here.engine.kill(name)
    return {"logs": logs, "notes": list(clones.notes)}


def cut(what: str, step: str) -> Callable[[World], Awaitable[Any]]:
    async def act(here: World) -> Any:
        await here.start(NAMES[:1])
        if what == "clone":
            await here.contexts.template(NAMES[0], "cut")
        here.files.step = step
        await (here.contexts.clone("cut", 1) if what == "clone" else getattr(here.contexts, what)(NAMES[0], "cut"))
        return None

    return act


async def after(here: World) -> Any:
    """Come back as the next daemon does; return what is there, and end it."""
    notes = await here.engine.adopt(decode_guest) + await here.contexts.finish()
    held = [each for kind in Kind for each in await here.contexts.shelf.held(kind) if each.context.name.endswith("cut")]
    living = {each: here.engine.state(each) for each in here.engine.guests if here.engine.state(each) != "stopped"}
    for guest, state in living.items():
        if state == "paused":
            await here.engine.resume(guest)
        await here.beaten([guest], len(here.beats(guest)) + 2)
    for guest in living:
        await here.engine.kill(guest)
    aside = Path(os.environ["ORCHESTRATOR_STATE_DIR"]) / "states" / ".unfinished"
    for each in held:
        await here.contexts.remove(each.context.kind, each.context.name)
    strays = [entry.name for entry in aside.iterdir()] if aside.exists() else []
    return {"kept": [each.context.kind for each in held], "living": living, "strays": strays, "notes": notes}


async def main(step: str) -> None:
    known: dict[str, Callable[[World], Awaitable[Any]]] = {
        "save": save,
        "restore": restore,
        "random": random,
        "after": after,
        "windows": windows,
        "mapping": mapping,
        "cut_short": cut_short,
        "unmerged": merging,
        "merged": merging,
    }
    async with world(merges=step == "merged") as here:
        act = known.get(step) or cut(*step.split("-"))
        sys.stdout.write(json.dumps(await act(here)))
        sys.stdout.flush()
        if step in ("save", "mapping"):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
