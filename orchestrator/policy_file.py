"""Policy files: TOML text -> `Policy`. No file is opened here."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.policy import CorePolicy, HypervisorPolicy, Policy
from orchestrator.errors import Fault, UsageError
from orchestrator.toml_tables import Schema, load, read, shown


def parse_policy(text: bytes, file: str) -> Policy:
    """Read a policy; InvalidFileError lists every fault of the file, `file` is what messages call it."""
    return read(Policy, load(text, file), _SCHEMA)


def _check_reserved(reserved: str) -> Iterator[Fault]:
    try:
        CorePolicy(reserved=reserved).reserved_cores()
    except UsageError as error:
        yield Fault(str(error), "reserved")


def _check_connect(connect: str) -> Iterator[Fault]:
    if connect != "embed" and "://" not in connect:
        yield Fault(
            f"{shown(connect)} is not possible; write 'embed' or a libvirt URI like 'qemu:///system'",
            "connect",
        )


_SCHEMA = Schema(
    keys={},
    words={},
    checks={
        CorePolicy: ((("reserved",), _check_reserved),),
        HypervisorPolicy: ((("connect",), _check_connect),),
    },
)
