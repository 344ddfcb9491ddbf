"""What a definition says about growing while the guest runs."""

from __future__ import annotations

import pytest

from orchestrator.config import decode_guest, encode_guest, parse_guest
from orchestrator.core.model import GuestSpec
from orchestrator.errors import InvalidFileError

KERNEL, PAYLOAD = '[boot]\nkernel = "k"\n', '[boot]\npayload = "p"\n'


def parsed(keys: str, *, architecture: str = "x86_64", mode: str = "exclusive", boot: str = KERNEL) -> GuestSpec:
    head = f'name = "a"\narchitecture = "{architecture}"\nvcpus = 2\nmemory = "16 MiB"\nmode = "{mode}"\n'
    return parse_guest(f"{head}{keys}\n{boot}".encode(), "x.toml", directory="/").spec


def test_a_guest_grows_to_what_its_definition_says_and_else_not_at_all() -> None:
    assert (parsed("").most_vcpus, parsed("max_vcpus = 4").most_vcpus) == (2, 4)
    assert decode_guest(encode_guest(parsed("max_vcpus = 4"))) == parsed("max_vcpus = 4")


@pytest.mark.parametrize(
    ("keys", "wishes", "said"),
    [
        ("max_vcpus = 1", {}, "1 is not possible; it is at least vcpus, 2, and at most 255"),
        ("max_vcpus = 256", {}, "256 is not possible; it is at least vcpus, 2, and at most 255"),
        (
            "max_vcpus = 4",
            {"mode": "shared"},
            "does not go with mode = 'shared'; only a guest with cores of its own grows",
        ),
        (
            "max_vcpus = 4",
            {"architecture": "aarch64"},
            "QEMU's aarch64 machine takes no processor while it runs; x86 ones do",
        ),
        (
            "max_vcpus = 4",
            {"boot": PAYLOAD},
            "a bare-metal payload does not know what to do with a new processor; leave it out",
        ),
    ],
)
def test_who_cannot_grow_is_told_why(keys: str, wishes: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        parsed(keys, **wishes)
    assert [line.rpartition("max_vcpus: ")[2] for line in caught.value.lines()] == [said]
