"""Whose payloads are, who may use them, what they are kept by, and what an owner may keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import parse_guest
from orchestrator.core.payloads import Catalogue, Payload, PayloadMap, PayloadWish, fit_trouble
from orchestrator.errors import InvalidFileError, RefusedError, UsageError

QUOTA = 10_000


def payload(name: str = "tools", owner: str = "alice", content: str = "a", *, public: bool = False) -> Payload:
    return Payload(name=name, owner=owner, digest=content * 64, size=3000, public=public, added_at=1)


def catalogue(*payloads: Payload) -> Catalogue:
    known = Catalogue()
    for each in payloads:
        known = known.admit(each, QUOTA)
    return known


def test_ones_own_comes_before_what_is_public() -> None:
    known = catalogue(payload(), payload(owner="bob", content="b", public=True))
    assert known.find("alice", "tools").owner == "alice"
    assert known.find("carol", "tools").owner == "bob"
    assert known.find("alice", "bob/tools").owner == "bob"
    assert known.find("carol", "b" * 64).owner == "bob"


def test_a_name_that_several_have_publicly_has_to_be_told_with_its_owner() -> None:
    known = catalogue(payload(public=True), payload(owner="bob", content="b", public=True))
    with pytest.raises(UsageError, match="write one of alice/tools, bob/tools"):
        known.find("carol", "tools")


@pytest.mark.parametrize("reference", ["tools", "alice/tools", "a" * 64])
def test_what_is_private_is_for_others_as_if_it_were_not(reference: str) -> None:
    def told(known: Catalogue) -> tuple[str, int, object]:
        with pytest.raises(UsageError) as error:
            known.find("bob", reference)
        return str(error.value), known.used("bob"), known.visible("bob")

    assert told(catalogue(payload())) == told(catalogue())
    assert catalogue(payload()).find_any("bob", reference) == payload()


@pytest.mark.parametrize("reference", ["", "/", "a/", "/a", "a/b/c", "..", "-a", "a b", "A" * 64, "é"])
def test_what_can_be_nobodys_payload_is_told_what_would_be_one(reference: str) -> None:
    with pytest.raises(UsageError, match="it is a name, OWNER/NAME, or a SHA-256"):
        catalogue(payload()).find("alice", reference)


def test_a_name_keeps_its_content() -> None:
    with pytest.raises(RefusedError, match="`orchestrator payload rm tools` first"):
        catalogue(payload(), payload(content="b"))


def test_the_same_again_only_says_who_may_use_it() -> None:
    known = catalogue(payload(), replace(payload(public=True), added_at=2))
    assert known.payloads == (payload(public=True),)


def test_a_quota_counts_each_content_once_and_only_ones_own() -> None:
    others = [payload(name, "bob", content) for name, content in (("a", "1"), ("b", "2"), ("c", "3"))]
    known = catalogue(*others, payload("x", content="1"), payload("y", content="1"))
    assert known.used("alice") == 3000
    with pytest.raises(RefusedError, match="payloads of bob: wanted 3000 bytes, available 1000 of 10000"):
        known.admit(payload("d", "bob", "4"), QUOTA)
    assert known.admit(payload("d", "bob", "1"), QUOTA).used("bob") == 9000


OWNERS = st.sampled_from(["alice", "bob", "carol"])
ADDED = st.builds(
    payload,
    name=st.sampled_from(["p", "q", "r"]),
    owner=OWNERS,
    content=st.sampled_from(["a", "b"]),
    public=st.booleans(),
)


@given(st.lists(ADDED, max_size=12), OWNERS)
@settings(max_examples=200, deadline=None)
def test_no_file_of_what_is_private_is_shared_and_no_content_is_kept_twice_for_one_owner(
    added: list[Payload], user: str
) -> None:
    known = Catalogue()
    for each in added:
        try:
            known = known.admit(each, QUOTA)
        except RefusedError:
            continue
    for each in known.payloads:
        owner, digest = known.place(each)
        assert digest == each.digest
        public = any(other.public for other in known.payloads if other.digest == digest)
        assert owner == (None if public else each.owner)
    assert known.places() == {known.place(each) for each in known.payloads}
    for each in known.visible(user):
        assert known.find(user, f"{each.owner}/{each.name}") == each
    alone = Catalogue(known.visible(user))
    assert alone.used(user) == known.used(user)
    assert {alone.place(each) for each in alone.payloads} == {known.place(each) for each in alone.payloads}


def test_a_file_is_as_long_as_a_pci_device_needs_it() -> None:
    sizes = {1: 4096, 4096: 4096, 4097: 8192, 64 << 20: 64 << 20, (64 << 20) + 1: 128 << 20}
    assert {size: replace(payload(), size=size).length for size in sizes} == sizes


def test_a_ram_image_is_as_long_as_the_memory() -> None:
    image = replace(payload(), size=3 << 20)
    ram, window = (PayloadWish(map=way, name="tools") for way in PayloadMap)
    assert list(fit_trouble(ram, image, 4 << 20)) == []
    assert list(fit_trouble(window, image, 1 << 20)) == []
    for memory in (2 << 20, 8 << 20):
        (trouble,) = fit_trouble(ram, image, memory)
        assert f"`truncate --size {memory} FILE`" in trouble


def test_a_digest_that_is_written_down_is_held_to() -> None:
    wish = PayloadWish(map=PayloadMap.WINDOW, name="tools", digest="b" * 64)
    (trouble,) = fit_trouble(wish, payload(), 1)
    assert trouble.startswith(f"tools has the digest {'a' * 64} now")


DEFINITION = """\
name = "a"
architecture = "x86_64"
vcpus = 1
memory = "16 MiB"
boot = { payload = "p.elf" }
"""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("payload = { map = 'ram' }", "payload.name: missing; write the payload's name, or its 'digest'"),
        ("payload = { name = 'a b', map = 'ram' }", "payload.name: 'a b' is no payload"),
        ("payload = { name = 'a', map = 'rom' }", "payload.map: 'rom' is not one of ram, window"),
        ("payload = { digest = '12', map = 'ram' }", "payload.digest: '12' is no SHA-256"),
        ("payload = { name = 'a', map = 'ram' }\nhugepages = '2 MiB'", "hugepages: the guest's RAM is the payload's"),
    ],
)
def test_a_definition_is_told_how_to_name_its_payload(line: str, fault: str) -> None:
    with pytest.raises(InvalidFileError) as error:
        parse_guest((DEFINITION + line).encode(), "a.toml", directory="/")
    assert fault in str(error.value)
