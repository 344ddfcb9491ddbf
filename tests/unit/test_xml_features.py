"""<features>: what an ARM machine needs beyond its own."""

from __future__ import annotations

import pytest
from lxml import etree

from orchestrator.core.model import Architecture, DiskBoot
from orchestrator.core.xml.domain import Accelerator
from orchestrator.core.xml.render import render
from tests.golden.cases import DISKS, domain


@pytest.mark.parametrize(
    ("accelerator", "vcpus", "version"),
    [(Accelerator.TCG, 8, None), (Accelerator.TCG, 9, "3"), (Accelerator.KVM, 8, None), (Accelerator.KVM, 9, None)],
)
def test_an_emulated_machine_of_more_than_eight_vcpus_has_the_newer_interrupt_controller(
    accelerator: Accelerator, vcpus: int, version: str | None
) -> None:
    root = etree.fromstring(render(domain(Architecture.AARCH64, accelerator=accelerator, vcpus=vcpus)))
    gic = root.find("features/gic")
    assert (None if gic is None else gic.get("version")) == version


@pytest.mark.parametrize(("firmware", "acpi"), [("efi", True), ("/srv/firmware.fd", False)])
def test_on_aarch64_acpi_comes_with_the_uefi_that_libvirt_finds(firmware: str, acpi: bool) -> None:
    boot = DiskBoot(disk="vda", firmware=firmware)
    root = etree.fromstring(render(domain(Architecture.AARCH64, boot, disks=DISKS[:1])))
    assert (root.find("features/acpi") is not None) == acpi
