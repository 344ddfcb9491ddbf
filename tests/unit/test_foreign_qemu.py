"""Where another user runs QEMU: what it could not read is refused before anything is started."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.payloads import PayloadMap, PayloadWish
from orchestrator.core.placement import Placement
from orchestrator.core.xml.domain import RamFile
from orchestrator.errors import HostError
from orchestrator.wanted import Guest, Origin
from tests.fakes.engine import guest, launcher_on
from tests.fakes.host import FakeHost

WINDOW = PayloadWish(map=PayloadMap.WINDOW, digest="0f" * 32)


def launch(wanted: Guest, host: FakeHost) -> None:
    topology = discover({"cpu/online": "0-3"}, ())
    launcher = replace(launcher_on(host, topology), foreign=True)
    domain = wanted.placed(Placement(pool=topology.pool, vcpus=(2,), emulator=(2,)), "/run/beat")
    asyncio.run(launcher.launch(domain, wanted.origin))


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (guest(payload=WINDOW), "payload"),
        (replace(guest(), origin=Origin(state="/s", machine="pc", ram=RamFile("/t"))), "template"),
    ],
)
def test_a_file_that_it_could_not_open_is_named_with_what_would_work(wanted: Guest, what: str) -> None:
    host = FakeHost()
    with pytest.raises(HostError, match=f"who may not read its {what}; connect = 'embed' can have it"):
        launch(wanted, host)
    assert host.domains == {}
