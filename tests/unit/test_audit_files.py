from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.xml.audit import MOST_BYTES, audit
from orchestrator.core.xml.verdict import Kind, describe

DOMAIN = "<domain type='kvm'><name>vm</name><vcpu cpuset='{}'>1</vcpu></domain>"
PINS = "<vcpu>2</vcpu><iothreads>1</iothreads><cputune>{}</cputune>"


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("<vcpu cpuset='0-'>1</vcpu>", "vcpu/@cpuset: cpuset at '0-'"),
        ("<vcpu cpuset='3,^3'>1</vcpu>", "leaves no core"),
        ("<vcpu cpuset=''>1</vcpu>", "is empty"),
        ("<vcpu>two</vcpu>", "the count in <vcpu> is 'two'"),
        ("<vcpu>2 </vcpu>", "the count in <vcpu>"),
        ("<vcpu/>", "the count in <vcpu> is ''"),
        ("<vcpu>0</vcpu>", "at least 1"),
        ("<vcpu>4294967295</vcpu>", "no machine takes more"),
        ("<vcpu current='3'>2</vcpu>", "more than the 2"),
        ("<vcpu current='x'>2</vcpu>", "vcpu/@current is 'x'"),
        ("<vcpu placement='any'>2</vcpu>", "static or auto"),
        ("<vcpu>2</vcpu><vcpus><vcpu id='2' enabled='yes'/></vcpus>", "ids end below the 2"),
        ("<vcpu>2</vcpu><vcpus><vcpu id='1'/></vcpus>", "'yes' or 'no'"),
        ("<vcpu>2</vcpu><vcpus><vcpu enabled='yes'/></vcpus>", "vcpus/vcpu/@id is missing"),
        (
            "<vcpu>2</vcpu><vcpus><vcpu id='1' enabled='no' hotpluggable='no'/></vcpus>",
            "neither enabled nor hotpluggable",
        ),
        ("<iothreads>-1</iothreads>", "the count in <iothreads> is '-1'"),
        ("<iothreads>99999</iothreads>", "no machine takes more"),
        ("<iothreadids><iothread id='0'/></iothreadids>", "at least 1"),
        ("<iothreadids><iothread id='2'/><iothread id='2'/></iothreadids>", "listed twice"),
        (PINS.format("<vcpupin vcpu='0'/>"), "has no cpuset attribute"),
        (PINS.format("<vcpupin cpuset='2'/>"), "cputune/vcpupin/@vcpu is missing"),
        (PINS.format("<vcpupin vcpu='1' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/>"), "has two vcpupin"),
        (PINS.format("<emulatorpin cpuset='2'/><emulatorpin cpuset='2'/>"), "two emulatorpin"),
        (PINS.format("<iothreadpin iothread='2' cpuset='2'/>"), "names I/O thread 2"),
        (PINS.format("<iothreadpin iothread='1' cpuset='2'/>" * 2), "has two iothreadpin"),
        ("<numatune/><numatune/>", "two numatune"),
        ("<numatune><memory placement='near'/></numatune>", "numatune/memory/@placement is 'near'"),
    ],
)
def test_what_libvirt_would_refuse_is_invalid_and_says_why(inside: str, reason: str) -> None:
    verdict = audit(f"<domain type='kvm'>\n{inside}</domain>".encode())
    assert verdict.kind is Kind.INVALID
    assert reason in verdict.reason
    assert verdict.line in (1, 2)
    assert verdict.could_run_on_reserved is None


def test_what_is_too_large_is_not_even_parsed() -> None:
    verdict = audit(DOMAIN.format("2").encode() + b" " * MOST_BYTES)
    assert (verdict.kind, verdict.reason) == (Kind.INVALID, "larger than 64 MiB, the most that is looked at")


def test_a_pin_for_a_vcpu_that_is_not_there_is_passed_over_unread() -> None:
    pins = "<vcpupin vcpu='9' cpuset='nonsense'/><vcpupin vcpu='9'/>"
    verdict = audit(f"<domain type='kvm'><vcpu cpuset='2'>1</vcpu><cputune>{pins}</cputune></domain>".encode())
    assert verdict.kind is Kind.CONFINED


def test_text_split_by_comments_and_attributes_in_a_namespace_are_read_as_libvirt_does() -> None:
    pins = "<cputune><emulatorpin x:cpuset='1' cpuset='2' xmlns:x='urn:x'/></cputune>"
    verdict = audit(f"<domain type='kvm'><vcpu cpuset='2'>1<!-- - -->2</vcpu>{pins}</domain>".encode())
    assert [(one.thread, one.cores) for one in verdict.exposures] == [("emulator", (1,))]


@pytest.mark.parametrize(
    "text",
    [
        "<network><domain name='example.org'/></network>",
        "<capabilities><guest><arch><domain type='kvm'/></arch></guest></capabilities>",
        "<domainCapabilities><domain>kvm</domain></domainCapabilities>",
        "<domainsnapshot><domain><uuid>0</uuid></domain></domainsnapshot>",
        "<domain xmlns='urn:else' type='kvm'><name>vm</name></domain>",
        "<html/>",
    ],
)
def test_other_documents_are_not_domains(text: str) -> None:
    verdict = audit(text.encode())
    assert (verdict.kind, verdict.could_run_on_reserved) == (Kind.NOT_A_DOMAIN, None)
    assert "root element" in verdict.summary


def test_every_domain_in_a_wrapper_is_judged_and_the_worst_one_decides() -> None:
    inactive = DOMAIN.format("1-2").replace("domain", "inactiveDomain")
    verdict = audit(f"<domainsnapshot>{DOMAIN.format('2')}{inactive}</domainsnapshot>".encode())
    assert verdict.kind is Kind.EXPOSED
    assert {one.element for one in verdict.exposures} == {"inactiveDomain/vcpu/@cpuset"}
    broken = audit(f"<domaincheckpoint>{DOMAIN.format('0')}{DOMAIN.format('')}</domaincheckpoint>".encode())
    assert broken.kind is Kind.INVALID
    assert [one.thread for one in broken.exposures] == ["vCPU 0", "emulator"]
    assert audit(f"<domstatus>{DOMAIN.format('2')}</domstatus>".encode()).kind is Kind.CONFINED


def test_a_domain_in_the_metadata_of_a_domain_is_not_judged() -> None:
    inner = f"<metadata>{DOMAIN.format('0')}</metadata>"
    outer = DOMAIN.format("2").replace("</domain>", inner + "</domain>")
    assert audit(outer.encode()).kind is Kind.CONFINED
    assert audit(f"<domainsnapshot>{outer}</domainsnapshot>".encode()).kind is Kind.CONFINED


BOMB = (
    "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>"
    + "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(12))
    + "]><domain type='kvm'><name>&m;</name><vcpu cpuset='&m;'>1</vcpu></domain>"
)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\0\xff\xfe noise",
        b"\x7fELF",
        b"<domain type='kvm'>",
        b"<domain/><domain/>",
        b"<domain/>",
        b"<domain type=''/>",
        b"\n<?xml version='1.0'?><domain type='kvm'/>",
        b"<?xml version='1.0' encoding='no-such'?><domain type='kvm'/>",
        b"<domain type='kvm'>\xff</domain>",
        b"<domain type='kvm'>&nothing;</domain>",
        b"<a>" * 100_000,
        BOMB.encode(),
        b"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain type='kvm'>&x;</domain>",
        b"<!DOCTYPE domain [<!ATTLIST vcpu cpuset CDATA '0'>]><domain type='kvm'><vcpu>1</vcpu></domain>",
    ],
)
def test_what_is_no_xml_of_libvirts_is_invalid_in_one_line(text: bytes) -> None:
    verdict = audit(text)
    assert verdict.kind is Kind.INVALID
    assert verdict.reason
    assert "\n" not in verdict.summary
    assert verdict.line is not None


WORDS = [
    "cpuset",
    "vcpu",
    "'",
    "<",
    ">",
    "^3",
    "auto",
    "&#0;",
    "&#10;",
    "]]>",
    "-1",
    "<domain",
    "</domain>",
    "",
]
SEED = (
    b"<domain type='kvm'><name>vm</name><vcpu current='1' cpuset='0-7,^3'>2</vcpu><iothreads>2</iothreads>"
    b"<cputune><vcpupin vcpu='0' cpuset='2'/><emulatorpin cpuset='2-3'/>"
    b"<iothreadpin iothread='1' cpuset='3'/></cputune>"
    b"<numatune><memory mode='strict' nodeset='0'/></numatune></domain>"
)
EDITS = st.tuples(
    st.integers(0, len(SEED)),
    st.integers(0, 30),
    st.sampled_from(WORDS).map(str.encode) | st.binary(max_size=4),
)


@settings(deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=5))
def test_broken_files_never_raise(edits: list[tuple[int, int, bytes]]) -> None:
    text = SEED
    for at, length, word in edits:
        text = text[:at] + word + text[at + length :]
    described = describe(audit(text))
    assert "\n" not in str(described["summary"])
    json.dumps(described)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_raises_and_never_passes(noise: bytes) -> None:
    assert audit(noise).could_run_on_reserved is None
    assert audit(b"<domain type='kvm'>" + noise).kind is Kind.INVALID
