"""Policy files: TOML text -> `Policy`. No file is opened here."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.durations import Duration
from orchestrator.core.model import Size
from orchestrator.core.policy import CorePolicy, HypervisorPolicy, LogPolicy, Policy, RotationPolicy
from orchestrator.errors import Fault, UsageError
from orchestrator.toml_tables import Schema, load, read, shown

_LEAST_SERIAL = Size.parse("64 KiB")
_LEAST_SLICE = Duration.parse("1 ms")


def parse_policy(text: bytes, file: str) -> Policy:
    """Read a policy; InvalidFileError lists every fault of the file, `file` is what messages call it."""
    return read(Policy, load(text, file), SCHEMA)


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


def _check_floor(shared_floor: int) -> Iterator[Fault]:
    if shared_floor < 0:
        yield Fault(f"{shown(shared_floor)} is not possible; it is 0 or more cores", "shared_floor")


def _check_minimum(slice_: Duration, minimum_run: Duration) -> Iterator[Fault]:
    if slice_ < _LEAST_SLICE:
        yield Fault(f"{slice_} is too short for a turn; {_LEAST_SLICE} is the least", "slice")
    elif not 0 < minimum_run <= slice_:
        yield Fault(
            f"{minimum_run} is not possible; it is more than 0 s and at most the slice, {slice_}", "minimum_run"
        )


def _check_confirm(confirm: Duration) -> Iterator[Fault]:
    if not confirm:
        yield Fault("no guest confirms within 0 s; the default is '2 s'", "confirm")


def _check_serial_limit(serial_limit: Size) -> Iterator[Fault]:
    if serial_limit < _LEAST_SERIAL:
        yield Fault(f"{serial_limit} is too little to be of use; {_LEAST_SERIAL} is the least", "serial_limit")


SCHEMA = Schema(
    keys={},
    words={Duration: "a duration with its unit, like '100 ms'", Size: "a size with its unit, like '16 MiB'"},
    checks={
        CorePolicy: ((("reserved",), _check_reserved), (("shared_floor",), _check_floor)),
        RotationPolicy: ((("slice", "minimum_run"), _check_minimum), (("confirm",), _check_confirm)),
        HypervisorPolicy: ((("connect",), _check_connect),),
        LogPolicy: ((("serial_limit",), _check_serial_limit),),
    },
)
"""How a policy is spelled and judged, for files of which it is a part."""
