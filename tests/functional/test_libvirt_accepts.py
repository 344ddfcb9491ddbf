"""libvirt takes every golden file and gives back what it said; its test driver parses as all do, and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.metadata import NAMESPACE, read_metadata
from orchestrator.core.xml.verdict import Kind

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.xml"))


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised; stderr need not repeat them
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


def test_there_are_golden_files() -> None:
    assert GOLDEN


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_libvirt_defines_it_and_keeps_what_it_says(path: Path, connection: Any) -> None:
    domain = connection.defineXMLFlags(path.read_text(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        kept = domain.XMLDesc()
    finally:
        domain.undefine()
    ours, theirs = etree.parse(path), etree.fromstring(kept)
    element = f"metadata/{{{NAMESPACE}}}guest"
    assert read_metadata(theirs.find(element)) == read_metadata(ours.find(element))
    assert _boots(theirs) == _boots(ours)
    verdict = audit(kept.encode())
    assert (verdict.kind, verdict.name) == (Kind.CONFINED, ours.findtext("name"))


def test_the_test_driver_does_refuse_what_is_wrong(connection: Any) -> None:
    text = GOLDEN[0].read_text()
    for wrong in (text.replace('vcpu="0"', 'vcpu="zero"'), text.replace("<on_crash>destroy", "<on_crash>explode")):
        assert wrong != text
        with pytest.raises(libvirt.libvirtError):
            connection.defineXMLFlags(wrong, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def _boots(domain: Any) -> tuple[object, ...]:
    """Return what the guest starts with, beside the default boot device that libvirt adds to <os>."""
    parts = ("type", "kernel", "initrd", "cmdline", "loader")
    order = [disk.find("target").get("dev") for disk in domain.findall("devices/disk") if disk.find("boot") is not None]
    return (domain.find("os").get("firmware"), *(domain.findtext(f"os/{part}") for part in parts), order)
