"""Does KVM work here? Found out by running something in it, never by the presence of /dev/kvm."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

PROBE_LIMIT = 1.0
"""Seconds in which the probe guest must answer. Real KVM takes a tenth of it; an emulated one several times as long."""

_EXIT_STATUS = 0x55

# A boot sector: mov al, 0x2a; out 0xf4, al; hlt. QEMU's isa-debug-exit device ends with (value << 1) | 1.
_BOOT_SECTOR = bytes((0xB0, _EXIT_STATUS >> 1, 0xE6, 0xF4, 0xF4)).ljust(510, b"\0") + b"\x55\xaa"

_PROBE = (
    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "16"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
)


class Probe(msgspec.Struct, frozen=True):
    """Whether KVM can be used, and how that is known. `boot` is the boot of the host it was found out in."""

    usable: bool
    why: str
    boot: str


def probe_kvm(cache: Path, *, limit: float = PROBE_LIMIT) -> Probe:
    """Return the result for this boot, from `cache` if it is known already."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        known = msgspec.json.decode(cache.read_bytes(), type=Probe)
    except (OSError, msgspec.DecodeError):
        known = None
    if known is not None and known.boot == boot:
        return known
    usable, why = _probe_kvm(limit)
    probe = Probe(usable=usable, why=why, boot=boot)
    cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache.parent, delete=False) as file:
        file.write(msgspec.json.encode(probe))
    Path(file.name).replace(cache)
    return probe


def _probe_kvm(limit: float) -> tuple[bool, str]:
    machine = os.uname().machine
    if machine != "x86_64":
        return False, f"no functional probe is known for {machine} hosts"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "/dev/kvm cannot be opened"
    return boot_probe("kvm", limit)


def boot_probe(accelerator: str, limit: float) -> tuple[bool, str]:
    """Boot a guest of one sector that ends QEMU with a status of its own; say whether it did, and how that went."""
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(_BOOT_SECTOR.ljust(65536, b"\0"))
        disk.flush()
        command = [*_PROBE, "-accel", accelerator, "-drive", f"file={disk.name},format=raw,if=ide"]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
            )
        except FileNotFoundError:
            return False, "qemu-system-x86_64 is missing"
        except subprocess.TimeoutExpired:
            return False, f"{accelerator} opens, but a tiny guest did not answer within {limit:g} s"
        took = time.monotonic() - started
    if done.returncode == _EXIT_STATUS:
        return True, f"a tiny guest answered in {took:.2f} s"
    complaint = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    return False, f"a tiny guest did not answer: {complaint}"
