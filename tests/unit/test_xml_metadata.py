"""What a domain says of itself comes back as it was written, whatever stands in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.metadata import NAMESPACE, Metadata, metadata_element, read_metadata
from orchestrator.core.xml.render import render
from tests.golden.cases import CASES, domain

xml_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff").filter(
        lambda char: char >= " " or char in "\t\n\r"
    )
)
markup = st.sampled_from(
    ["]]>", "<!--", "&amp;", "&#0;", "</orchestrator:owner>", "\"'", "\r\n", " \n ", "{}", "\x85\u2028"]
)
texts = st.lists(xml_text | markup).map("".join)
core_lists = st.lists(st.integers(2, 5000), min_size=1, max_size=8, unique=True)


def read_back(guest: Domain) -> Metadata | None:
    return read_metadata(etree.fromstring(render(guest)).find(f"metadata/{{{NAMESPACE}}}guest"))


@pytest.mark.parametrize("name", CASES)
def test_every_golden_domain_is_read_back(name: str) -> None:
    guest = CASES[name]
    assert read_back(guest) == Metadata(
        owner=guest.owner,
        specification=guest.specification,
        accelerator=guest.accelerator,
        directory=guest.directory,
        vcpus=guest.placement.vcpus,
        emulator=guest.placement.emulator,
        held=guest.placement.held,
        by_policy=guest.by_policy,
        mould=guest.is_mould,
        staged=guest.staged,
        disk=guest.disk,
        enclosed=guest.enclosed,
        mapped=guest.mapped,
    )


@settings(deadline=None)
@given(texts, texts, texts, st.sampled_from(Accelerator), core_lists, core_lists)
def test_odd_texts_and_cores_are_read_back(
    owner: str, specification: str, directory: str, accelerator: Accelerator, vcpus: list[int], emulator: list[int]
) -> None:
    guest = domain(accelerator=accelerator)
    placement = replace(
        guest.placement,
        pool=Pool(frozenset({*vcpus, *emulator})),
        vcpus=tuple(vcpus),
        emulator=tuple(sorted(emulator)),
        held=(),
    )
    found = read_back(
        replace(guest, owner=owner, specification=specification, directory=directory, placement=placement)
    )
    assert found == Metadata(
        owner=owner,
        specification=specification,
        accelerator=accelerator,
        directory=directory,
        vcpus=tuple(vcpus),
        emulator=tuple(sorted(emulator)),
        held=tuple(sorted({*vcpus, *emulator})),
    )


@pytest.mark.parametrize("tag", ["owner", "specification", "accelerator", "directory", "vcpus", "emulator", "held"])
def test_without_one_of_its_parts_it_is_not_ours(tag: str) -> None:
    guest = metadata_element(domain())[0]
    assert read_metadata(guest) is not None
    guest.remove(guest.find(f"{{{NAMESPACE}}}{tag}"))
    assert read_metadata(guest) is None


@pytest.mark.parametrize(("tag", "text"), [("accelerator", "xen"), ("vcpus", ""), ("held", "2,x"), ("emulator", "2-3")])
def test_with_a_part_that_says_nothing_it_is_not_ours(tag: str, text: str) -> None:
    guest = metadata_element(domain())[0]
    guest.find(f"{{{NAMESPACE}}}{tag}").text = text
    assert read_metadata(guest) is None


@pytest.mark.parametrize("version", ["", "0", "2", None])
def test_another_version_is_not_ours(version: str | None) -> None:
    guest = metadata_element(domain())[0]
    del guest.attrib["version"]
    if version is not None:
        guest.set("version", version)
    assert read_metadata(guest) is None
