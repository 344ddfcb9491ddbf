"""Placement on a host with SMT and two NUMA nodes: siblings of 0 and 1 are nobody's, cores and memory of one node."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lab.inside.looking import ROOT, ask, emulators, eventually, guests, heartbeats
from tests.lab.inside.observer import Observer

DEFINITION = """
name = "strict"
architecture = "aarch64"
vcpus = 2
memory = "64 MiB"
mode = "exclusive"
numa = "strict"
smt = "isolate"

[boot]
payload = "{root}/domains/build/heartbeat-aarch64.elf"
"""


def test_a_strict_guest_gets_cores_and_memory_of_one_node(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    topology = ask("host", "topology")
    siblings = {cpu["id"]: cpu["siblings"] for cpu in topology["cpus"]}
    node_of = {cpu["id"]: cpu["node"] for cpu in topology["cpus"]}
    assert topology["smt"] is True
    assert len(topology["nodes"]) == 2
    assert topology["isolated"] == [2, 3, 4, 5, 6, 7]
    assert not set(topology["pool"]) & {0, 1, *siblings[0], *siblings[1]}
    definition = tmp_path / "strict.toml"
    definition.write_text(DEFINITION.format(root=ROOT))
    with Observer() as observer:
        runner = run(str(definition))
        eventually(lambda: heartbeats("strict") > 0, "the guest runs", runner)
        guest = guests()["strict"]
        memory_policies = Path(f"/proc/{guest['pid']}/numa_maps").read_text()
        runner.send_signal(signal.SIGINT)
        _, err = runner.communicate(timeout=120)
    assert runner.returncode == 0, err
    assert observer.violations == []
    assert emulators() == []
    first, second = guest["vcpus"]
    assert node_of[first] == node_of[second]
    assert f" bind:{node_of[first]} " in memory_policies
    assert second not in siblings[first]
    assert set(guest["cores"]) == {*siblings[first], *siblings[second]}


def memory_bound(pid: int) -> int:
    """Return how much memory the kernel lets a process have, the least of what its cgroup and those around it say."""
    path = Path(f"/proc/{pid}/cgroup").read_text().partition("::")[2].strip()
    folders = [Path(f"/sys/fs/cgroup{path}"), *Path(f"/sys/fs/cgroup{path}").parents]
    said = [(folder / "memory.max").read_text().strip() for folder in folders if (folder / "memory.max").exists()]
    return min(int(text) for text in said if text != "max")


def test_the_systems_daemon_runs_guests_as_its_own_user(run: Callable[..., subprocess.Popen[str]]) -> None:
    for daemon in ("virtlogd", "libvirtd"):
        subprocess.run([daemon, "-d"], check=True)
    eventually(Path("/run/libvirt/libvirt-sock").exists, "libvirtd listens")
    runner = run("domains/heartbeat-aarch64.toml", "--connect", "qemu:///system")
    eventually(lambda: heartbeats("heartbeat-aarch64") > 0, "the guest beats", runner)
    (guest,) = ask("ps", "--connect", "qemu:///system")["guests"]
    assert Path(f"/proc/{guest['pid']}").owner() == "libvirt-qemu"
    assert memory_bound(guest["pid"]) == (64 + 4 + 1536) * 2**20
    runner.send_signal(signal.SIGINT)
    out, err = runner.communicate(timeout=120)
    assert runner.returncode == 0, err
    assert ", 0 threads on reserved cores" in out
    assert emulators() == []
