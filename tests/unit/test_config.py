"""Guest definitions that are right: what they mean, where their paths lead, their way to JSON and back."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import ParsedGuest, decode_guest, encode_guest, guest_paths, parse_guest
from orchestrator.core.arch import TRAITS
from orchestrator.core.durations import Duration
from orchestrator.core.model import (
    GIB,
    MIB,
    Architecture,
    Disk,
    DiskBackend,
    DiskBoot,
    DiskFormat,
    EmulatorThreads,
    FirmwareBoot,
    GuestClock,
    GuestSpec,
    KernelBoot,
    Mode,
    Network,
    NetworkKind,
    NumaWish,
    OnCrash,
    PayloadBoot,
    RestartRules,
    Serial,
    Share,
    Size,
    SmtWish,
    Tpm,
    Watchdog,
)
from orchestrator.core.payloads import PayloadMap, PayloadWish
from orchestrator.errors import Fault, InvalidFileError

FULL = b"""\
name = "web"
architecture = "x86_64"
vcpus = 2
max_vcpus = 4
memory = "512 MiB"
mode = "exclusive"
weight = 200
serial = "none"
rng = true
watchdog = "reset"
panic = true
emulator = "isolate"
iothreads = 1
numa = "strict"
smt = "require"
hugepages = "2 MiB"
clock = "stops"
on_crash = "restart"
stop_grace = "1 min"
[boot]
kernel = "build/vmlinux"
initrd = "./build//initrd.cpio"
cmdline = "console=ttyS0"
[[disk]]
path = "data.qcow2"
format = "qcow2"
overlay = true
backend = "vhost-user"
[[disk]]
path = "/srv/tools.img"
format = "raw"
readonly = true
[network]
type = "bridge"
name = "br0"
[restart]
backoff = "500 ms"
most = "2 min"
limit = 3
window = "1 h"
[payload]
name = "tools"
map = "window"
[tpm]
state = "tpm"
[[share]]
path = "files"
tag = "files"
readonly = true
"""
MINIMAL = 'name = "a"\narchitecture = "{}"\nvcpus = 1\nmemory = "16 MiB"\n'


def parsed(text: str) -> GuestSpec:
    return parse_guest(text.encode(), "x.toml", directory="/guests").spec


def test_every_key_means_what_it_says() -> None:
    assert parse_guest(FULL, "web.toml", directory="/guests").spec == GuestSpec(
        name="web",
        architecture=Architecture.X86_64,
        vcpus=2,
        max_vcpus=4,
        memory=Size(512 * MIB),
        boot=KernelBoot(kernel="/guests/build/vmlinux", initrd="/guests/build/initrd.cpio", cmdline="console=ttyS0"),
        mode=Mode.EXCLUSIVE,
        weight=200,
        disks=(
            Disk(path="/guests/data.qcow2", format=DiskFormat.QCOW2, overlay=True, backend=DiskBackend.VHOST_USER),
            Disk(path="/srv/tools.img", format=DiskFormat.RAW, readonly=True),
        ),
        network=Network(kind=NetworkKind.BRIDGE, name="br0"),
        serial=Serial.NONE,
        rng=True,
        watchdog=Watchdog.RESET,
        panic=True,
        emulator=EmulatorThreads.ISOLATE,
        iothreads=1,
        numa=NumaWish.STRICT,
        smt=SmtWish.REQUIRE,
        hugepages=Size(2 * MIB),
        clock=GuestClock.STOPS,
        on_crash=OnCrash.RESTART,
        restart=RestartRules(
            backoff=Duration.parse("0.5 s"), most=Duration.parse("120 s"), limit=3, window=Duration.parse("60 min")
        ),
        stop_grace=Duration.parse("60 s"),
        payload=PayloadWish(map=PayloadMap.WINDOW, name="tools"),
        tpm=Tpm(state="/guests/tpm"),
        shares=(Share(path="/guests/files", tag="files", readonly=True),),
    )


def test_either_line_end_will_do() -> None:
    windows = FULL.replace(b"\n", b"\r\n")
    assert parse_guest(windows, "x", directory="/") == parse_guest(FULL, "x", directory="/")


def test_the_full_example_leaves_no_key_out() -> None:
    spec = parse_guest(FULL, "web.toml", directory="/guests").spec
    elsewhere = {"disks", "network", "heartbeat_limit"}  # the last goes with a serial port, which it is told to lack
    values = {part.name: part.default for part in fields(GuestSpec) if part.name not in elsewhere}
    assert all(getattr(spec, name) != default for name, default in values.items())


@pytest.mark.parametrize("architecture", Architecture)
def test_little_needs_to_be_written(architecture: Architecture) -> None:
    spec = parsed(MINIMAL.format(architecture) + '[boot]\npayload = "p.elf"')
    assert spec == GuestSpec(
        name="a",
        architecture=architecture,
        vcpus=1,
        memory=Size(16 * MIB),
        boot=PayloadBoot(payload="/guests/p.elf"),
    )


@pytest.mark.parametrize(
    ("boot", "expected", "paths"),
    [
        ('payload = "efi"', PayloadBoot(payload="/guests/efi"), {"boot.payload": "/guests/efi"}),
        ('kernel = "k"', KernelBoot(kernel="/guests/k"), {"boot.kernel": "/guests/k"}),
        (
            'kernel = "/k"\ninitrd = "i"',
            KernelBoot(kernel="/k", initrd="/guests/i"),
            {"boot.kernel": "/k", "boot.initrd": "/guests/i"},
        ),
        ('firmware = "f"', FirmwareBoot(firmware="/guests/f"), {"boot.firmware": "/guests/f"}),
        ('disk = "vda"', DiskBoot(disk="vda"), {}),
        ('disk = "vdb"\nfirmware = "efi"', DiskBoot(disk="vdb", firmware="efi"), {}),
        (
            'disk = "vdb"\nfirmware = "./efi"',
            DiskBoot(disk="vdb", firmware="/guests/efi"),
            {"boot.firmware": "/guests/efi"},
        ),
    ],
)
def test_ways_to_boot_and_the_files_they_need(boot: str, expected: Any, paths: dict[str, str]) -> None:
    disks = 2 * '[[disk]]\npath = "d"\nformat = "raw"\n'
    spec = parsed(f"{MINIMAL.format('x86_64')}\n[boot]\n{boot}\n{disks}")
    assert spec.boot == expected
    assert dict(guest_paths(spec)) == {**paths, "disk[0].path": "/guests/d", "disk[1].path": "/guests/d"}


def test_a_missing_file_is_a_fault_on_its_line() -> None:
    guest = parse_guest(FULL, "web.toml", directory="/guests")
    lines = [guest.fault(key, "gone").line for key, _ in guest_paths(guest.spec)]
    assert lines == [21, 22, 25, 30]
    assert guest.fault("disk[1].path", "gone") == Fault("gone", "disk[1].path", 30)
    assert guest.fault("boot.firmware", "wanted").line == 20
    assert isinstance(guest, ParsedGuest)
    assert guest.file == "web.toml"


@pytest.mark.parametrize("architecture", Architecture)
def test_the_limits_of_a_machine_belong_to_it(architecture: Architecture) -> None:
    traits = TRAITS[architecture]
    for memory in (traits.least_memory, traits.most_memory):
        text = f'name = "a"\narchitecture = "{architecture}"\nvcpus = {traits.most_vcpus}\nmemory = "{memory}"\n'
        assert parsed(text + 'boot.payload = "p"').memory == memory


def test_twenty_six_disks_have_names() -> None:
    text = MINIMAL.format("i386") + 'boot.disk = "vdz"\n' + 26 * '[[disk]]\npath = "d"\nformat = "raw"\n'
    assert len(parsed(text).disks) == 26


def definitions() -> st.SearchStrategy[GuestSpec]:
    """Definitions that keep every rule, with absolute paths."""
    line = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=30)
    path = line.map(lambda text: "/" + text.replace(".", "").replace("//", "").strip("/"))
    name = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True)
    kind = st.sampled_from([NetworkKind.NONE, NetworkKind.USER])
    named = st.sampled_from([NetworkKind.BRIDGE, NetworkKind.NETWORK])
    lone = st.builds(Network, kind=kind)
    net = lone | st.builds(
        Network,
        kind=named,
        name=st.from_regex(r"[A-Za-z0-9][\w.-]{0,14}", fullmatch=True).filter(str.isascii),
    )
    disk = st.builds(Disk, path=path, format=..., readonly=...) | st.builds(
        Disk, path=path, format=..., overlay=..., backend=...
    )
    shares = st.lists(st.sampled_from("abc"), unique=True).flatmap(
        lambda tags: st.tuples(*(st.builds(Share, path=path, tag=st.just(tag), readonly=...) for tag in tags))
    )
    boot = st.one_of(
        st.builds(PayloadBoot, payload=path),
        st.builds(FirmwareBoot, firmware=path),
        st.builds(KernelBoot, kernel=path, initrd=st.none() | path, cmdline=line),
        st.builds(DiskBoot, disk=st.just("vda"), firmware=st.just("efi") | path),
    )
    duration = st.integers(1, 10**15).map(Duration)
    rules = st.builds(
        RestartRules,
        backoff=duration,
        most=duration.map(lambda length: Duration(length + 10**15)),
        limit=st.integers(1, 1000),
        window=duration,
    )
    return st.builds(
        GuestSpec,
        name=name,
        vcpus=st.integers(1, 8),
        memory=st.integers(1, 3).map(lambda count: Size(count * GIB)),
        hugepages=st.sampled_from([None, Size(2 * MIB), GIB]),
        boot=boot,
        weight=st.integers(1, 10_000),
        disks=st.lists(disk, min_size=1, max_size=3).map(tuple),
        network=net,
        panic=st.just(False),
        tpm=st.none(),
        shares=shares,
        iothreads=st.integers(0, 16),
        clock=...,
        on_crash=st.just(OnCrash.RESTART),
        restart=st.none() | rules,
        heartbeat_limit=st.none() | duration,
        stop_grace=st.none() | duration,
    )


def as_toml(spec: GuestSpec) -> str:
    """Write a definition as its owner would; JSON's strings, numbers and flags are TOML's too."""
    table = json.loads(encode_guest(spec))
    tables = {f"[{key}]": table.pop(key) for key in ("boot", "network", "restart") if key in table}
    blocks = [("", table), *tables.items()]
    blocks += [(f"[[{key}]]", each) for key in ("disk", "share") for each in table.pop(key)]
    rows = [
        (head, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in block.items()))
        for head, block in blocks
    ]
    return "\n".join("\n".join(row) for row in rows)


@given(definitions())
@settings(deadline=None, max_examples=60)
def test_a_definition_survives_toml_and_json(spec: GuestSpec) -> None:
    assert parsed(as_toml(spec)) == spec
    assert decode_guest(encode_guest(spec)) == spec


@given(definitions(), definitions())
@settings(deadline=None, max_examples=30)
def test_equal_definitions_and_only_they_have_equal_json(one: GuestSpec, other: GuestSpec) -> None:
    assert (encode_guest(one) == encode_guest(other)) == (one == other)
    assert encode_guest(decode_guest(encode_guest(one))) == encode_guest(one)


def test_the_json_is_canonical() -> None:
    spec = parsed(MINIMAL.format("i386") + 'boot.kernel = "k"\nboot.cmdline = "ä <&>"')
    assert encode_guest(spec) == (
        '{"architecture":"i386","boot":{"cmdline":"\\u00e4 <&>","kernel":"/guests/k"},"clock":"follows","disk":[],'
        '"emulator":"share","iothreads":0,"memory":"16 MiB","mode":"shared","name":"a",'
        '"network":{"type":"none"},"numa":"prefer","on_crash":"stop","panic":false,"rng":false,'
        '"serial":"log","share":[],"smt":"prefer","vcpus":1,"watchdog":"none","weight":100}'
    )


def test_what_runs_is_read_back_even_against_todays_rules() -> None:
    spec = replace(parsed(MINIMAL.format("i386") + 'boot.kernel = "k"'), vcpus=10_000, memory=Size(1))
    assert decode_guest(encode_guest(spec)) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not a guest's specification in JSON"),
        ("null", "'null' is not a guest's specification in JSON"),
        ("[1]", "'[1]' is not a guest's specification in JSON"),
        ("[" * 100_000, f"'{'[' * 56}... is not a guest's specification in JSON"),
        ("1" * 5000, f"'{'1' * 56}... is not a guest's specification in JSON"),
        ('{"vcpus": null}', "vcpus: null is not a whole number"),
        (
            '{"version": 2}',
            "version: unknown key; possible are name, architecture, vcpus, memory, boot, mode, weight",
        ),
    ],
)
def test_json_that_is_not_ours_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        decode_guest(text)
    assert any(line.startswith(f"the domain's metadata: {said}") for line in caught.value.lines())
