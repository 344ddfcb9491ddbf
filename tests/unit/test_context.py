"""Manifests of saved states: what is written is read back, what is damaged is refused, what does not fit is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.cloning import cautions, unclonable, unrepeatable
from orchestrator.core.context import Context, Host, Kind, Mark, decode, encode, misfits
from orchestrator.core.model import Architecture, Disk, DiskFormat, KernelBoot, Network, NetworkKind, Size
from orchestrator.core.payloads import PayloadMap, PayloadWish
from orchestrator.core.placement import Placement
from orchestrator.core.pool import Pool
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.errors import UsageError
from tests.fakes.engine import guest

KERNEL = Mark("/boot/vmlinuz", 10, 20)

SAVED = Context(
    name="beat",
    kind=Kind.SAVED,
    guest="beat",
    owner="alice",
    specification="{}",
    architecture="x86_64",
    accelerator=Accelerator.TCG,
    machine="pc-i440fx-7.2",
    qemu="7.2.22",
    processor="",
    windowed=False,
    disk=0,
    overlays=("vda",),
    marks=(KERNEL,),
    process="1000 7 boot",
    taken_at=1,
)

HERE = Host(
    qemu="7.2.22",
    machines=frozenset({"pc", "pc-i440fx-7.2"}),
    accelerator=Accelerator.TCG,
    processor="EPYC",
    files={KERNEL.path: KERNEL},
)


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert decode(encode(SAVED), "x") == SAVED


def test_it_fits_where_it_was_written_and_under_a_newer_qemu() -> None:
    assert misfits(SAVED, HERE) == ()
    assert misfits(SAVED, replace(HERE, qemu="10.0")) == ()


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (replace(HERE, qemu="7.2.3"), "QEMU 7.2.22 wrote it, and 7.2.3 here is older"),
        (replace(HERE, machines=frozenset({"pc"})), "its machine type pc-i440fx-7.2 is not among those of QEMU 7.2.22"),
        (replace(HERE, accelerator=Accelerator.KVM), "it ran under tcg, and x86_64 guests here under kvm"),
        (replace(HERE, files={}), "/boot/vmlinuz is gone"),
        (replace(HERE, files={KERNEL.path: None}), "/boot/vmlinuz is gone"),
        (replace(HERE, files={KERNEL.path: replace(KERNEL, changed=21)}), "/boot/vmlinuz has been changed since"),
        (replace(HERE, files={KERNEL.path: replace(KERNEL, size=11)}), "/boot/vmlinuz has been changed since"),
    ],
)
def test_what_does_not_fit_is_told(here: Host, reason: str) -> None:
    (told,) = misfits(SAVED, here)
    assert told.startswith(reason)


def test_under_kvm_the_processor_must_be_the_same() -> None:
    kvm = replace(SAVED, accelerator=Accelerator.KVM, processor="EPYC")
    here = replace(HERE, accelerator=Accelerator.KVM)
    assert misfits(kvm, here) == ()
    assert misfits(kvm, replace(here, processor="Xeon")) == ("it ran on EPYC, and here is Xeon",)


def test_all_reasons_are_told_at_once() -> None:
    bad = replace(HERE, qemu="6.0", machines=frozenset(), accelerator=Accelerator.KVM, files={})
    assert len(misfits(SAVED, bad)) == 4


def without(key: str) -> str:
    content = json.loads(encode(SAVED))
    del content[key]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no manifest"),
        ("[]", "is no manifest"),
        ('"text"', "is no manifest"),
        (encode(SAVED)[:100], "is no manifest"),
        (encode(SAVED).replace('"format": 1', '"format": 2'), "has format 2, this program knows format 1"),
        (encode(SAVED).replace('"saved"', '"stolen"'), "its manifest is damaged"),
        (encode(SAVED).replace('"owner": "alice"', '"owner": 7'), "its manifest is damaged"),
        (encode(SAVED).replace('"size"', '"sizes"'), "its manifest is damaged"),
        (without("marks"), "its manifest is damaged"),
        (without("format"), "is no manifest"),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=rf"^/states/beat: {why}"):
        decode(text, "/states/beat")


def placed(**wishes: Any) -> Domain:
    made = guest(**wishes)
    return made.placed(Placement(pool=Pool(frozenset({2})), vcpus=(2,), emulator=(2,), held=(2,)), "/run/beat")


def test_a_plain_guest_can_be_cloned_and_its_owner_is_told_of_its_random_numbers() -> None:
    assert unclonable(placed()) == []
    (note,) = cautions(placed().spec)
    assert note.startswith("clones go on with the template's random numbers")


def test_who_is_told_to_take_fresh_numbers_needs_no_caution() -> None:
    linux = KernelBoot(kernel="/boot/vmlinuz", cmdline="console=ttyS0 noacpi=off")
    assert cautions(replace(placed().spec, boot=linux)) == []
    assert cautions(replace(placed().spec, boot=linux, rng=True)) == []


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"rng": True}, "at first: nothing tells this guest that it is a clone"),
        ({"boot": KernelBoot(kernel="/vmlinuz", cmdline="quiet acpi=off")}, "its kernel is started with acpi=off"),
        ({"boot": KernelBoot(kernel="/vmlinuz", cmdline="acpi=off"), "rng": True}, "at first: nothing tells"),
        ({"boot": KernelBoot(kernel="/Image"), "architecture": Architecture.AARCH64}, "this guest has no device"),
    ],
)
def test_who_is_told_nothing_or_has_no_entropy_is_named_with_the_reason(wishes: dict[str, Any], why: str) -> None:
    (note,) = cautions(replace(placed().spec, **wishes))
    assert note.startswith("clones go on with the template's random numbers")
    assert why in note


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        (placed(hugepages=Size.parse("2 MiB")), "its RAM is of huge pages, or bound to NUMA nodes"),
        (replace(placed(), placement=replace(placed().placement, nodes=(0,))), "its RAM is of huge pages, or bound"),
        (placed(payload=PayloadWish(map=PayloadMap.WINDOW, name="tools")), "it reads a payload through a window"),
        (placed(network=Network(kind=NetworkKind.NETWORK, name="default")), "its network card's address is part of"),
    ],
)
def test_what_clones_could_not_share_is_refused(domain: Domain, why: str) -> None:
    (reason,) = unclonable(domain)
    assert reason.startswith(why)


def test_where_qemu_may_not_read_what_is_ours_there_are_no_clones() -> None:
    (reason,) = unclonable(placed(), foreign=True)
    assert reason.startswith("the system's libvirt runs QEMU as a user of its own")


def test_every_reason_against_clones_is_told() -> None:
    written = Disk(path="/d.raw", format=DiskFormat.RAW)
    assert unrepeatable(placed(disks=(replace(written, overlay=True), replace(written, readonly=True))).spec) == []
    domain = placed(
        disks=(written,), network=Network(kind=NetworkKind.BRIDGE, name="br0"), hugepages=Size.parse("2 MiB")
    )
    reasons = unclonable(domain)
    assert len(reasons) == 3
    assert reasons[0].startswith("its disk vda is written in place")
