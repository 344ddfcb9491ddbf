"""Guests of all four architectures execute a payload in place: its pages are in memory once, and stay as they were."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.core.model import Architecture, KernelBoot
from orchestrator.core.payloads import MappedPayload, Payload, PayloadMap, PayloadWish
from orchestrator.errors import FailedError
from orchestrator.payloads.store import PayloadStore, is_unchanged
from tests.functional.mapped_guests import DOMAINS, definition, running, wait_until

MIB = 1 << 20
SIZE = 64 * MIB
LAYOUT = {
    Architecture.I386: 0x1000000,
    Architecture.X86_64: 0x1400000,
    Architecture.AARCH64: 0x1800000,
    Architecture.ARMV7L: 0x1C00000,
}
"""Where in the image the code of each architecture is."""


@dataclass
class Stored:
    """A store with one payload in it."""

    store: PayloadStore
    payload: Payload

    @property
    def mapped(self) -> MappedPayload:
        return self.store.check(self.payload).mapped

    @property
    def blobs(self) -> Path:
        return self.store.root / "blobs"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "--silent", "-C", DOMAINS], check=True, timeout=600)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    store = PayloadStore(tmp_path / "store")
    with (DOMAINS / "build" / "payload.img").open("rb") as image:
        payload = store.add(image.fileno(), "toolbox", "alice", public=True, quota=SIZE)
    yield Stored(store, payload)
    store.remove(payload)


def code_of(architecture: Architecture) -> int:
    return (DOMAINS / "build" / f"payload-code-{architecture}.bin").stat().st_size


def sum_of_pages() -> int:
    image = (DOMAINS / "build" / "payload.img").read_bytes()
    return sum(int.from_bytes(image[at : at + 4], "little") for at in range(0, SIZE, 4096)) % 2**32


def test_sixteen_guests_execute_one_payload_through_windows_and_its_pages_are_there_once(
    stored: Stored, tmp_path: Path
) -> None:
    wanted = [(definition(f"payload/window-{each}"), stored.mapped) for each in Architecture] * 4
    with running(wanted, tmp_path) as guests:
        wait_until(lambda: all(len(guest.counters()) >= 2 for guest in guests), guests)
        maps = [guest.shares(stored.blobs) for guest in guests]
        said = [(guest.spec.architecture, guest.value("payload at"), guest.value("sum")) for guest in guests]
        writes = [guest.value("write") for guest in guests]
        counters = [guest.counters() for guest in guests]
    assert [len(each) for each in maps] == [1] * 16
    shares = [share for each in maps for share in each]
    assert {(share.mapped, share.resident, share.shared) for share in shares} == {(SIZE, SIZE, SIZE)}
    assert sum(share.proportional for share in shares) <= 1.05 * SIZE
    assert {(share.private_clean, share.private_dirty, share.writable) for share in shares} == {(0, 0, False)}
    assert {int(total, 16) for _, _, total in said} == {sum_of_pages()}
    assert writes == ["ignored"] * 16
    for (architecture, base, _), beats in zip(said, counters, strict=True):
        code = int(base, 16) + LAYOUT[architecture]
        assert all(code <= counter < code + code_of(architecture) for counter in beats)
    assert hashlib.sha256(Path(stored.mapped.path).read_bytes()).hexdigest() == stored.payload.digest


def test_guests_whose_ram_is_the_payload_write_to_copies_of_few_of_its_pages(stored: Stored, tmp_path: Path) -> None:
    wanted = [(definition(f"payload/ram-{each}"), stored.mapped) for each in Architecture]
    ram = {each: 0 if each in (Architecture.I386, Architecture.X86_64) else 0x40000000 for each in Architecture}
    with running(wanted, tmp_path) as guests:
        wait_until(lambda: all(len(guest.counters()) >= 2 for guest in guests), guests)
        shares = [share for guest in guests for share in guest.shares(stored.blobs)]
        assert [guest.value("write") for guest in guests] == ["taken"] * 4
        for guest in guests:
            architecture = guest.spec.architecture
            code = ram[architecture] + LAYOUT[architecture]
            assert int(guest.value("payload at"), 16) == ram[architecture]
            assert all(code <= counter < code + code_of(architecture) for counter in guest.counters())
    assert [(share.mapped, share.writable) for share in shares] == [(SIZE, False)] * 4
    dirty = sum(share.private_dirty for share in shares)
    assert 0 < dirty < 8 * MIB
    assert sum(share.proportional for share in shares) - dirty <= 1.05 * SIZE
    stored.store.check(stored.payload)


def test_a_file_that_is_cut_short_ends_the_guests_that_map_it_and_nobody_else(stored: Stored, tmp_path: Path) -> None:
    mapped = stored.mapped
    victims = [(definition(f"payload/window-{each}"), mapped) for each in Architecture]
    with running([*victims, (definition("heartbeat-aarch64"), None)], tmp_path) as guests:
        *hit, other = guests
        wait_until(lambda: all("heartbeat 2" in "\n".join(guest.lines) for guest in guests), guests)
        Path(mapped.path).chmod(0o600)
        with Path(mapped.path).open("r+b") as file:
            file.truncate(4096)
        wait_until(lambda: all(guest.process.poll() is not None for guest in hit), guests)
        assert {guest.process.returncode for guest in hit} == {-signal.SIGBUS}
        before = len(other.lines)
        wait_until(lambda: len(other.lines) > before + 2, guests)
        assert other.process.poll() is None
    assert not is_unchanged(mapped)
    with pytest.raises(FailedError, match="4096 bytes instead of 67108864"):
        stored.store.check(stored.payload)


@pytest.mark.parametrize("architecture", [Architecture.X86_64, Architecture.AARCH64])
def test_linux_reads_a_window_through_its_pci_resource(tmp_path: Path, architecture: Architecture) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(4 * MIB))  # Linux takes ten seconds to hash 64
    store = PayloadStore(tmp_path / "store")
    with image.open("rb") as source:
        payload = store.add(source.fileno(), "toolbox", "alice", public=False, quota=SIZE)
    spec = definition(f"linux-{architecture}")
    assert isinstance(spec.boot, KernelBoot)
    # A kernel in lockdown lets nobody map a device.
    open_kernel = spec.boot.cmdline.replace(" lsm=lockdown lockdown=confidentiality", "")
    wish = PayloadWish(map=PayloadMap.WINDOW, name="toolbox")
    spec = replace(spec, payload=wish, boot=replace(spec.boot, cmdline=open_kernel))
    with running([(spec, store.check(payload).mapped)], tmp_path) as guests:
        (guest,) = guests
        wait_until(lambda: any(line.startswith("heartbeat ") for line in guest.lines), guests)
        guest.says("window\n")
        wait_until(lambda: any(line.startswith("window ") for line in guest.lines), guests)
        assert guest.value("window").split()[0] == payload.digest
