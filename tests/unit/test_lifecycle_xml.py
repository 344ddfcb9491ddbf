"""What libvirt is told to do when a guest ends: never to start it anew, whatever its definition says."""

from __future__ import annotations

import pytest
from lxml import etree

from orchestrator.core.model import Boot, OnCrash, Watchdog
from orchestrator.core.xml.render import render
from tests.golden.cases import KERNEL, PAYLOAD, domain


@pytest.mark.parametrize("on_crash", OnCrash)
@pytest.mark.parametrize(("boot", "on_reboot"), [(KERNEL, "restart"), (PAYLOAD, "destroy")])
def test_libvirt_ends_a_guest_in_trouble_or_leaves_it_and_only_qemu_resets_one(
    on_crash: OnCrash, boot: Boot, on_reboot: str
) -> None:
    root = etree.fromstring(render(domain(boot=boot, on_crash=on_crash, panic=True)))
    assert root.findtext("on_poweroff") == "destroy"
    assert root.findtext("on_crash") == ("preserve" if on_crash is OnCrash.KEEP else "destroy")
    assert root.findtext("on_reboot") == on_reboot  # "restart" is a reset of the machine in the same process


@pytest.mark.parametrize("watchdog", [each for each in Watchdog if each is not Watchdog.NONE])
def test_a_watchdog_does_what_its_definition_says(watchdog: Watchdog) -> None:
    root = etree.fromstring(render(domain(watchdog=watchdog)))
    assert root.find("devices/watchdog").get("action") == watchdog
