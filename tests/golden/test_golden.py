"""Whole domain XML, compared with the files beside this one; they are also valid, and confined by our own audit.

After a wanted change, ``pytest tests/golden --update-golden`` writes the files anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.render import render
from orchestrator.core.xml.verdict import Kind
from tests.golden.cases import CASES

HERE = Path(__file__).parent
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

each_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="session")
def schema() -> etree.RelaxNG:
    if not SCHEMA.exists():
        pytest.fail(f"{SCHEMA}, libvirt's own schema, is missing; `apt-get install libvirt0` brings it")
    return etree.RelaxNG(etree.parse(SCHEMA))


@each_case
def test_the_xml_is_that_of_the_golden_file(name: str, pytestconfig: pytest.Config) -> None:
    golden, rendered = HERE / f"{name}.xml", render(CASES[name])
    if pytestconfig.getoption("--update-golden", default=False):
        golden.write_text(rendered)
    assert golden.is_file(), "a new case; `pytest tests/golden --update-golden` writes its file"
    assert rendered == golden.read_text()


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in HERE.glob("*.xml")} == set(CASES)


@each_case
def test_libvirts_own_schema_accepts_it(name: str, schema: etree.RelaxNG) -> None:
    schema.assertValid(etree.parse(HERE / f"{name}.xml"))


@each_case
def test_the_audit_finds_it_confined_without_caution(name: str) -> None:
    verdict = audit((HERE / f"{name}.xml").read_bytes())
    assert verdict.kind is Kind.CONFINED, verdict.summary
    assert verdict.cautions == ()
