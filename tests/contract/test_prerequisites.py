"""What a host has of what guests need, where it can be tried without changing the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.core.arch import TRAITS
from orchestrator.core.model import Architecture
from orchestrator.host.prerequisites import Finding, Level, efi_firmware, huge_pages

MACHINES = [(architecture, TRAITS[architecture].machine) for architecture in Architecture]


def descriptor(directory: Path, name: str, architecture: str, machine: str, interface: str = "uefi") -> None:
    targets = [{"architecture": architecture, "machines": [machine]}]
    (directory / f"{name}.json").write_text(json.dumps({"interface-types": [interface], "targets": targets}))


def test_firmware_that_is_not_there_is_named_with_the_packages_that_have_it(tmp_path: Path) -> None:
    descriptor(tmp_path, "60-x86_64", "x86_64", "pc-i440fx-*")
    descriptor(tmp_path, "50-i386", "i386", "pc-q35-*")  # another machine than ours
    descriptor(tmp_path, "70-bios", "aarch64", "virt-*", interface="bios")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[1]")
    assert efi_firmware(MACHINES, [tmp_path, tmp_path / "gone"]) == Finding(
        "EFI firmware",
        Level.NOTE,
        "for x86_64; disks of i386, armv7l, aarch64 guests cannot boot with firmware = 'efi'",
        "apt-get install qemu-efi-arm qemu-efi-aarch64",
    )


def test_all_is_well_where_there_is_all_that_debian_has(tmp_path: Path) -> None:
    descriptor(tmp_path, "60-x86_64", "x86_64", "pc-i440fx-*")
    descriptor(tmp_path, "60-arm", "arm", "virt-*")
    descriptor(tmp_path, "60-aarch64", "aarch64", "virt-*")
    assert efi_firmware(MACHINES, [tmp_path]) == Finding("EFI firmware", Level.OK, "for x86_64, armv7l, aarch64")


@pytest.mark.parametrize(
    ("count", "mounts", "level", "said"),
    [
        ("0", {}, Level.NOTE, "guests that ask for them cannot start"),
        ("7", {}, Level.NOTE, "no hugetlbfs of that size is mounted"),
        ("7", {1 << 30: Path("/big")}, Level.NOTE, "no hugetlbfs of that size is mounted"),
        ("7", {2 << 20: Path("/dev/hugepages")}, Level.OK, "7 of 2048kB, for guests and payloads' windows"),
    ],
)
def test_huge_pages_need_a_place_where_files_can_have_them(
    tmp_path: Path, count: str, mounts: dict[int, Path], level: Level, said: str
) -> None:
    pool = tmp_path / "hugepages-2048kB"
    pool.mkdir()
    (pool / "nr_hugepages").write_text(count)
    found = huge_pages(mounts, tmp_path)
    assert found.level is level
    assert said in found.found
    assert (found.mend == "") is (level is Level.OK)
