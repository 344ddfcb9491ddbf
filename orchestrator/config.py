"""Guest definitions: TOML text -> `GuestSpec`, valid by every rule that needs no look at the host.

No file is opened here: `guest_paths` and `ParsedGuest.fault` are for those who ask the host whether the named
ones exist. The same tables as canonical JSON are a guest's specification in its domain's metadata. Everything
is O(length of the text).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core.arch import TRAITS
from orchestrator.core.durations import Duration
from orchestrator.core.files import FOUND_BY_LIBVIRT, boot_paths, guest_files
from orchestrator.core.model import (
    GIB,
    GUEST_NAME,
    GUEST_NAME_IN_WORDS,
    MIB,
    Architecture,
    Boot,
    Disk,
    DiskBoot,
    FirmwareBoot,
    GuestSpec,
    KernelBoot,
    Mode,
    Network,
    OnCrash,
    PayloadBoot,
    RestartRules,
    Serial,
    Share,
    Size,
    Tpm,
    Watchdog,
    disk_target,
)
from orchestrator.core.payloads import PayloadWish, page_faults, reference_faults
from orchestrator.core.policy import NO_DEFAULTS, GuestDefaults
from orchestrator.device_checks import (
    CONTROL,
    check_disk_count,
    check_disk_writes,
    check_network,
    check_panic,
    check_shares,
    check_tag,
    check_tpm,
    check_vhost_user,
    path_check,
)
from orchestrator.errors import Fault, InvalidFileError
from orchestrator.toml_lines import line_of
from orchestrator.toml_tables import Check, Document, Schema, load, plain, read, shown

METADATA = "the domain's metadata"  # what messages call the file behind `decode_guest`


@dataclass(frozen=True, slots=True)
class ParsedGuest:
    """A valid definition, and the line of each dotted key; `disk` is what its disks can grow to, if that is known."""

    spec: GuestSpec
    file: str
    lines: Mapping[str, int]
    disk: int | None = None

    def fault(self, key: str, message: str) -> Fault:
        """Return a fault of `key` with its line, for what only a look at the host can find wrong."""
        return Fault(message, key, line_of(self.lines, key))


def parse_guest(text: bytes, file: str, *, directory: str, defaults: GuestDefaults = NO_DEFAULTS) -> ParsedGuest:
    """Read a definition; relative paths in it start at `directory`, an absolute path.

    What it does not say and the policy has a default for is as the policy says. InvalidFileError lists every fault of
    the file; `file` is what messages call it.
    """
    if CONTROL.search(directory):  # who sends a definition says where its paths start
        raise InvalidFileError(file, [Fault(f"its paths would start at {shown(directory)}, which is no path")])
    document = load(text, file)
    document = replace(document, table={**defaults.said(), **document.table})
    spec = _resolved(read(GuestSpec, document, _SCHEMA), directory)
    return ParsedGuest(spec, file, document.lines)


def encode_guest(spec: GuestSpec) -> str:
    """Return the specification as canonical JSON in ASCII: equal specifications give equal text."""
    return json.dumps(plain(spec, _SPELLING), sort_keys=True, separators=(",", ":"))


def decode_guest(text: str) -> GuestSpec:
    """Undo `encode_guest`; InvalidFileError says why a text is not one of its.

    What runs is the truth: it is read back even if it breaks a rule that definitions must keep today.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        table = text
    if not isinstance(table, dict):
        raise InvalidFileError(METADATA, [Fault(f"{shown(text)} is not a guest's specification in JSON")])
    return read(GuestSpec, Document(METADATA, table), _SPELLING)


def guest_paths(spec: GuestSpec) -> tuple[tuple[str, str], ...]:
    """Return the key and the path of every file, but no folder, that must exist for the guest to start."""
    return tuple((file.key, file.path) for file in guest_files(spec) if not file.folder)


def _resolved(spec: GuestSpec, directory: str) -> GuestSpec:
    def absolute(path: str) -> str:
        return posixpath.normpath(posixpath.join(directory, path))

    changes: dict[str, Any] = {key: absolute(path) for key, path in boot_paths(spec.boot).items()}
    disks = tuple(replace(disk, path=absolute(disk.path)) for disk in spec.disks)
    shares = tuple(replace(share, path=absolute(share.path)) for share in spec.shares)
    tpm = spec.tpm and replace(spec.tpm, state=spec.tpm.state and absolute(spec.tpm.state))
    return replace(spec, boot=replace(spec.boot, **changes), disks=disks, shares=shares, tpm=tpm)


def _within(key: str, least: int, most: int) -> Check:
    def check(value: int) -> Iterator[Fault]:
        if not least <= value <= most:
            yield Fault(f"{shown(value)} is not possible; it is {least} to {most}", key)

    return check


def _check_name(name: str) -> Iterator[Fault]:
    if not GUEST_NAME.fullmatch(name):
        yield Fault(f"{shown(name)} is not possible; it is {GUEST_NAME_IN_WORDS}", "name")


def _check_vcpus(architecture: Architecture, vcpus: int) -> Iterator[Fault]:
    most = TRAITS[architecture].most_vcpus
    if not 1 <= vcpus <= most:
        yield Fault(f"{shown(vcpus)} is not possible; an {architecture} guest has 1 to {most} of them", "vcpus")


def _check_max_vcpus(
    architecture: Architecture, vcpus: int, mode: Mode, boot: Boot, max_vcpus: int | None
) -> Iterator[Fault]:
    if max_vcpus is None:
        return
    traits = TRAITS[architecture]
    if not vcpus <= max_vcpus <= traits.most_vcpus:
        allowed = f"it is at least vcpus, {vcpus}, and at most {traits.most_vcpus}"
        yield Fault(f"{shown(max_vcpus)} is not possible; {allowed}", "max_vcpus")
    if mode is not Mode.EXCLUSIVE:
        yield Fault("does not go with mode = 'shared'; only a guest with cores of its own grows", "max_vcpus")
    if not traits.is_x86:
        yield Fault(f"QEMU's {architecture} machine takes no processor while it runs; x86 ones do", "max_vcpus")
    elif isinstance(boot, PayloadBoot):
        yield Fault("a bare-metal payload does not know what to do with a new processor; leave it out", "max_vcpus")


def _check_memory(architecture: Architecture, memory: Size) -> Iterator[Fault]:
    least, most = TRAITS[architecture].least_memory, TRAITS[architecture].most_memory
    if memory > most:
        yield Fault(f"{memory} is more than an {architecture} machine can address ({most})", "memory")
    elif memory < least:
        yield Fault(f"{memory} is less than an {architecture} machine needs ({least})", "memory")
    elif memory % MIB:
        yield Fault(f"{memory} is not a whole number of MiB; write it in MiB or GiB", "memory")


def _check_hugepages(memory: Size, hugepages: Size | None) -> Iterator[Fault]:
    if hugepages is None:
        return
    if hugepages not in (2 * MIB, GIB):
        yield Fault(f"{hugepages} is not possible; it is '2 MiB' or '1 GiB', or left out", "hugepages")
    elif memory % hugepages:
        yield Fault(f"memory of {memory} is not a multiple of {hugepages}", "hugepages")


def _check_restart(on_crash: OnCrash, restart: RestartRules | None) -> Iterator[Fault]:
    if restart is not None and on_crash is not OnCrash.RESTART:
        yield Fault(f"does not go with on_crash = {on_crash.value!r}; write on_crash = 'restart'", "restart")


def _check_backoff(backoff: Duration, most: Duration) -> Iterator[Fault]:
    if not 0 < backoff <= most:
        yield Fault(f"{backoff} is not possible; it is more than 0 s and at most the longest, {most}", "backoff")


def _check_kept(watchdog: Watchdog, on_crash: OnCrash) -> Iterator[Fault]:
    if watchdog is Watchdog.POWEROFF and on_crash is OnCrash.KEEP:
        yield Fault("nothing is left of a guest that is powered off, to be kept; write 'pause'", "watchdog")


def _check_heartbeat(serial: Serial, heartbeat_limit: Duration | None) -> Iterator[Fault]:
    if heartbeat_limit is not None and not heartbeat_limit:
        yield Fault("no guest speaks all the time; it is more than 0 s, or left out", "heartbeat_limit")
    if heartbeat_limit is not None and serial is Serial.NONE:
        yield Fault("is counted on the serial port, and the guest has none; write serial = 'log'", "heartbeat_limit")


def _check_window(window: Duration) -> Iterator[Fault]:
    if not window:
        yield Fault("nothing happens within 0 s; the default is '10 min'", "window")


def _check_cmdline(cmdline: str) -> Iterator[Fault]:
    if CONTROL.search(cmdline):
        yield Fault("a kernel command line is one line of printable characters", "cmdline")


def _check_cmdline_length(architecture: Architecture, boot: Boot) -> Iterator[Fault]:
    # COMMAND_LINE_SIZE in arch/*/include/**/asm/setup.h; the kernel cuts the rest off without a word
    most = (1024 if architecture is Architecture.ARMV7L else 2048) - 1
    if isinstance(boot, KernelBoot) and (length := len(boot.cmdline.encode())) > most:
        yield Fault(f"{length} bytes are more than an {architecture} kernel reads ({most})", "boot.cmdline")


def _check_disk_boot(architecture: Architecture, boot: Boot, disks: tuple[Disk, ...]) -> Iterator[Fault]:
    if not isinstance(boot, DiskBoot):
        return
    targets = [disk_target(index) for index in range(len(disks))]
    if not targets:
        yield Fault(f"{shown(boot.disk)} is not there: the guest has no [[disk]]", "boot.disk")
    elif boot.disk not in targets:
        yield Fault(f"{shown(boot.disk)} is not one of this guest's disks: {', '.join(targets)}", "boot.disk")
    if boot.firmware is None and not TRAITS[architecture].is_x86:
        needed = "missing; an ARM machine has none of its own: write 'efi' or the path of an image"
        yield Fault(needed, "boot.firmware")


def _check_lone_firmware(firmware: str) -> Iterator[Fault]:
    if ("firmware", firmware) == FOUND_BY_LIBVIRT:
        yield Fault("'efi' goes with a disk; alone, firmware is the path of an image", "firmware")


_SPELLING = Schema(
    keys={(GuestSpec, "disks"): "disk", (GuestSpec, "shares"): "share", (Network, "kind"): "type"},
    words={Size: "a size with its unit, like '512 MiB'", Duration: "a duration with its unit, like '10 s'"},
    checks={},
)
_SCHEMA = replace(
    _SPELLING,
    checks={
        GuestSpec: (
            (("name",), _check_name),
            (("architecture", "vcpus"), _check_vcpus),
            (("architecture", "vcpus", "mode", "boot", "max_vcpus"), _check_max_vcpus),
            (("architecture", "memory"), _check_memory),
            (("memory", "hugepages"), _check_hugepages),
            (("weight",), _within("weight", 1, 10_000)),
            (("iothreads",), _within("iothreads", 0, 16)),
            (("architecture", "panic"), check_panic),
            (("architecture", "tpm"), check_tpm),
            (("shares",), check_shares),
            (("disks", "shares", "payload"), check_vhost_user),
            (("on_crash", "restart"), _check_restart),
            (("watchdog", "on_crash"), _check_kept),
            (("serial", "heartbeat_limit"), _check_heartbeat),
            (("disks",), check_disk_count),
            (("payload", "hugepages"), page_faults),
            (("architecture", "boot"), _check_cmdline_length),
            (("architecture", "boot", "disks"), _check_disk_boot),
        ),
        RestartRules: (
            (("backoff", "most"), _check_backoff),
            (("limit",), _within("limit", 1, 1000)),
            (("window",), _check_window),
        ),
        PayloadBoot: ((("payload",), path_check("payload")),),
        KernelBoot: (
            (("kernel",), path_check("kernel")),
            (("initrd",), path_check("initrd")),
            (("cmdline",), _check_cmdline),
        ),
        DiskBoot: ((("firmware",), path_check("firmware")),),
        FirmwareBoot: ((("firmware",), path_check("firmware")), (("firmware",), _check_lone_firmware)),
        Disk: ((("path",), path_check("path")), (("readonly", "overlay"), check_disk_writes)),
        Share: ((("path",), path_check("path")), (("tag",), check_tag)),
        Tpm: ((("state",), path_check("state")),),
        Network: ((("kind", "name"), check_network),),
        PayloadWish: ((("name", "digest"), reference_faults),),
    },
)
