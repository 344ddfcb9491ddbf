"""What this machine has of what guests need. Each look returns a finding; nothing is changed."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

_DESCRIPTORS = (  # docs/interop/firmware.json in QEMU says what is in them
    Path("/usr/share/qemu/firmware"),
    Path("/etc/qemu/firmware"),
)
_FIRMWARE_PACKAGES = {"x86_64": "ovmf", "armv7l": "qemu-efi-arm", "aarch64": "qemu-efi-aarch64"}
_QEMUS_WORDS = {"armv7l": "arm"}
_LIBVIRTS_MACHINES = {"pc": "pc-i440fx-7.2", "virt": "virt-7.2"}  # with the version, as descriptors match them


class Level(StrEnum):
    """How much a finding matters: all is well, something is lost without it, or nothing works without it."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One prerequisite: what was found, and the command that mends it."""

    name: str
    level: Level
    found: str
    mend: str = ""

    def describe(self) -> dict[str, object]:
        """Return the finding as JSON's types."""
        return asdict(self)


def emulator(architecture: str, program: str, package: str) -> Finding:
    """Look for the QEMU of one architecture and ask for its version."""
    name = f"QEMU for {architecture}"
    if shutil.which(program) is None:
        return Finding(name, Level.MISSING, f"{program} is not there", f"apt-get install {package}")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\S+)", done.stdout)
    if version is None:
        return Finding(
            name,
            Level.MISSING,
            f"{program} does not tell its version",
            f"apt-get install --reinstall {package}",
        )
    return Finding(name, Level.OK, f"{program} {version[1]}")


def program(name: str, package: str, purpose: str) -> Finding:
    """Look for a program by name."""
    path = shutil.which(name)
    if path is None:
        return Finding(name, Level.MISSING, f"not there; {purpose}", f"apt-get install {package}")
    return Finding(name, Level.OK, path)


def extra(name: str, extra: str, purpose: str) -> Finding:
    """Look for a Python package that is not installed with the rest."""
    if importlib.util.find_spec(name) is None:
        return Finding(name, Level.NOTE, f"not there; {purpose}", f"pip install 'orchestrator[{extra}]'")
    return Finding(name, Level.OK, f"version {importlib.metadata.version(name)}")


def libvirt_driver() -> Finding:
    """Load libvirt and look for its QEMU driver, the one that is embedded."""
    try:
        libvirt = importlib.import_module("libvirt")  # here, since that it may be missing is the question
    except ImportError as error:
        return Finding("libvirt", Level.MISSING, str(error), "pip install libvirt-python")
    number = libvirt.getVersion()
    version = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
    drivers = [path for base in ("/usr/lib", "/usr/lib64") for path in Path(base).glob(_DRIVER)]
    drivers += Path("/usr/lib").glob(f"*/{_DRIVER}")
    if not drivers:
        return Finding(
            "libvirt",
            Level.MISSING,
            f"{version} without its QEMU driver",
            "apt-get install libvirt-daemon-driver-qemu",
        )
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:  # the driver looks it up as it starts, whatever user its configuration names
        return Finding("libvirt", Level.MISSING, "no user libvirt-qemu", "apt-get install libvirt-daemon-system")
    return Finding("libvirt", Level.OK, f"{version} with {drivers[0].name}")


_DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"


def efi_firmware(machines: Iterable[tuple[str, str]], directories: Iterable[Path] = _DESCRIPTORS) -> Finding:
    """Say which architectures have firmware for `firmware = "efi"`; each comes with its machine.

    For i386 Debian has none that suits its machine, so nothing mends that.
    """
    targets = [target for directory in directories for target in _targets(directory)]
    found: list[str] = []
    lacking: list[str] = []
    for architecture, machine in machines:
        word, full = _QEMUS_WORDS.get(architecture, architecture), _LIBVIRTS_MACHINES.get(machine, machine)
        there = any(name == word and fnmatch.fnmatchcase(full, pattern) for name, pattern in targets)
        (found if there else lacking).append(architecture)
    packages = [_FIRMWARE_PACKAGES[architecture] for architecture in lacking if architecture in _FIRMWARE_PACKAGES]
    told = f"for {', '.join(found)}" if found else "none"
    if not packages:
        return Finding("EFI firmware", Level.OK, told)
    missing = f"{told}; disks of {', '.join(lacking)} guests cannot boot with firmware = 'efi'"
    return Finding("EFI firmware", Level.NOTE, missing, f"apt-get install {' '.join(packages)}")


def _targets(directory: Path) -> Iterable[tuple[str, str]]:
    """Yield the architecture and the machine pattern of each target of the descriptors in a directory."""
    for path in sorted(directory.glob("*.json")):
        try:
            descriptor = json.loads(path.read_bytes())
            if "uefi" in descriptor["interface-types"]:
                for target in descriptor["targets"]:
                    yield from ((target["architecture"], machine) for machine in target["machines"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # libvirt passes over what it cannot read, too


def cgroups() -> Finding:
    """Say which cgroup version is mounted, and whether it can bound memory and CPU sets."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return Finding("cgroups", Level.OK, f"version 2: {unified.read_text().strip() or 'no controllers'}")
    mounted = sorted(path.name for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir())
    if mounted:
        found = f"version 1: {' '.join(mounted)}"
        return Finding("cgroups", Level.NOTE, found, "boot with systemd.unified_cgroup_hierarchy=1")
    return Finding("cgroups", Level.NOTE, "none mounted", "mount -t cgroup2 none /sys/fs/cgroup")


def isolation(pool: frozenset[int], isolated: Iterable[int], nohz_full: Iterable[int], listed: str) -> Finding:
    """Compare what the kernel keeps off the pool with the pool; `listed` is the pool as a CPU list."""
    missing = [
        word for word, cores in (("isolcpus", isolated), ("nohz_full", nohz_full)) if not pool <= frozenset(cores)
    ]
    if not pool or not missing:
        return Finding(
            "isolation",
            Level.OK,
            "the kernel keeps other work off the pool" if pool else "no pool to isolate",
        )
    mend = "boot with " + " ".join(f"{word}={listed}" for word in (*missing, "rcu_nocbs"))
    return Finding("isolation", Level.NOTE, f"the pool is not covered by {' and '.join(missing)}", mend)


def huge_pages(mounts: Mapping[int, Path], root: Path = Path("/sys/kernel/mm/hugepages")) -> Finding:
    """Count the huge pages of each size, and say where files can have them: `mounts`, by the size in bytes."""
    pools = {path.name.removeprefix("hugepages-"): path / "nr_hugepages" for path in sorted(root.glob("hugepages-*"))}
    counts = {size: int(path.read_text()) for size, path in pools.items()}
    found = ", ".join(f"{count} of {size}" for size, count in counts.items()) or "not supported"
    if any(counts.values()):
        for size, count in counts.items():
            kib = int(size.removesuffix("kB"))
            if count and kib << 10 not in mounts:
                mend = f"mount -t hugetlbfs -o pagesize={kib}K none /dev/hugepages"
                lost = "neither guests nor payloads' windows can have them: no hugetlbfs of that size is mounted"
                return Finding("huge pages", Level.NOTE, f"{found}; {lost}", mend)
        places = ", ".join(str(place) for place in mounts.values())
        return Finding("huge pages", Level.OK, f"{found}, for guests and payloads' windows, at {places}")
    return Finding(
        "huge pages",
        Level.NOTE,
        f"{found}; guests that ask for them cannot start",
        "sysctl vm.nr_hugepages=512",
    )


def memory(needed: int) -> Finding:
    """Compare available memory with `needed` bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    found = f"{available // 2**20} MiB available"
    if available < needed:
        return Finding(
            "memory",
            Level.MISSING,
            f"{found}, {needed // 2**20} wanted",
            "orchestrator stop --all, or a larger host",
        )
    return Finding("memory", Level.OK, found)


def real_root() -> Finding:
    """Say whether the caller is root: others run guests too, but neither bridges nor huge pages."""
    if os.geteuid() == 0:
        return Finding("privileges", Level.OK, "root")
    return Finding(
        "privileges", Level.NOTE, "not root; bridges and huge pages are out of reach", "sudo orchestrator ..."
    )
