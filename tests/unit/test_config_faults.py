"""Guest definitions that are wrong: each fault has its line and a remedy; noise is never a traceback."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import parse_guest
from orchestrator.core.arch import TRAITS
from orchestrator.core.model import Architecture
from orchestrator.errors import InvalidFileError
from orchestrator.toml_tables import MOST_BYTES

GOOD = """\
name = "web"
architecture = "x86_64"
vcpus = 2
memory = "512 MiB"
"""
BOOT = '[boot]\npayload = "p"\n'
DISK = '[[disk]]\npath = "d"\nformat = "raw"\n'


def faults(text: str | bytes) -> list[str]:
    """Return what is said of a definition, without the name of the file."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InvalidFileError) as caught:
        parse_guest(data, "x.toml", directory="/guests")
    assert caught.value.exit_code == 2
    return [line.removeprefix("x.toml:").lstrip() for line in caught.value.lines()]


def test_all_faults_of_a_file_are_listed_by_line() -> None:
    text = """\
name = "Web"
architecture = "x86"
vcpus = true
memory = 512
wieght = 3
mode = "sharde"
hugepages = "4 MiB"
iothreads = 17
[boot]
kernel = "~/vmlinux"
cmdlin = "quiet"
[[disk]]
path = "../x"
format = "vmdk"
[[disk]]
path = "y"
format = "raw"
readonly = true
overlay = true
[network]
type = "bridge"
"""
    assert faults(text) == [
        "1: name: 'Web' is not possible; it is 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last",
        "2: architecture: 'x86' is not one of i386, x86_64, armv7l, aarch64",
        "3: vcpus: true is not a whole number",
        "4: memory: 512 is not a size with its unit, like '512 MiB'",
        "5: wieght: unknown key; did you mean 'weight'?",
        "6: mode: 'sharde' is not one of exclusive, shared",
        "8: iothreads: 17 is not possible; it is 0 to 16",
        "10: boot.kernel: '~/vmlinux' is not expanded; write the absolute path",
        "11: boot.cmdlin: unknown key; did you mean 'cmdline'?",
        "13: disk[0].path: '../x' may not hold '..'; write the absolute path",
        "14: disk[0].format: 'vmdk' is not one of raw, qcow2",
        "19: disk[1].overlay: an overlay is written to, so the disk is not readonly; choose one",
        "20: network.name: missing; write the name of the bridge",
    ]


@pytest.mark.parametrize("name", ["", "a" * 64, "-a", "a.", "a b", "a/b", "ä", "a\\n", "Web"])
def test_a_name_is_fit_for_files_and_commands(name: str) -> None:
    (line,) = faults(GOOD.replace("web", name) + BOOT)
    assert line.endswith(
        "is not possible; it is 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last"
    )


def test_an_empty_file_says_what_a_definition_needs() -> None:
    assert faults("") == [
        "name: missing; write text in quotes",
        "architecture: missing; write one of i386, x86_64, armv7l, aarch64",
        "vcpus: missing; write a whole number",
        "memory: missing; write a size with its unit, like '512 MiB'",
        "boot: missing; write a table with exactly one of payload, kernel, disk, firmware",
    ]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("hugepages = '4 MiB'", "hugepages: 4 MiB is not possible; it is '2 MiB' or '1 GiB', or left out"),
        ("hugepages = '1 GiB'", "hugepages: memory of 512 MiB is not a multiple of 1 GiB"),
        (
            "hugepages = 'big'",
            "hugepages: 'big' is not a size; write a number and a unit, like '64 MiB' or '2 GiB'",
        ),
        ("weight = 0", "weight: 0 is not possible; it is 1 to 10000"),
        ("weight = 10_001", "weight: 10001 is not possible; it is 1 to 10000"),
        ("iothreads = -1", "iothreads: -1 is not possible; it is 0 to 16"),
        ("rng = 1", "rng: 1 is not true or false"),
        ("watchdog = 'bark'", "watchdog: 'bark' is not one of none, reset, poweroff, pause"),
        ("disk = 'd.img'", "disk: 'd.img' is not an array of tables, each under a line [[disk]]"),
        ("tpm = true", "tpm: true is not a table"),
        ("tpm = {state = '~/tpm'}", "tpm.state: '~/tpm' is not expanded; write the absolute path"),
        ("share = [{path = '/srv'}]", "share[0].tag: missing; write text in quotes"),
        (
            "share = [{path = '/srv', tag = '-t'}]",
            "share[0].tag: '-t' is not possible; "
            "it is 1 to 36 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
        ),
        (
            "share = [{path = '/a', tag = 't'}, {path = '/b', tag = 't'}]",
            "share[1].tag: 't' is the tag of another shared folder already",
        ),
        ("network = 'user'", "network: 'user' is not a table"),
        ("network = {type = 'lan'}", "network.type: 'lan' is not one of none, user, bridge, network"),
        ("network = {kind = 'user'}", "network.kind: unknown key; possible are type, name"),
        (
            "network = {type = 'user', name = 'n'}",
            "network.name: does not go with type 'user'; bridge and network have one",
        ),
        ("network.name = 'n'", "network.name: does not go with type 'none'; bridge and network have one"),
        (
            "network = {type = 'bridge', name = 'br0123456789abcd'}",
            "network.name: 'br0123456789abcd' is not the name of a bridge; "
            "that is 1 to 15 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
        ),
        (
            "network = {type = 'network', name = '-n'}",
            "network.name: '-n' is not the name of a network; "
            "that is 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
        ),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed(extra: str, said: str) -> None:
    assert faults(f"{GOOD}{extra}\n{BOOT}") == [f"5: {said}"]


@pytest.mark.parametrize("architecture", Architecture)
def test_each_machine_has_its_own_limits(architecture: Architecture) -> None:
    traits = TRAITS[architecture]

    def said(vcpus: int, memory: str) -> list[str]:
        lines = f'name = "a"\narchitecture = "{architecture}"\nvcpus = {vcpus}\nmemory = "{memory}"\n'
        return faults(lines + BOOT)

    most = traits.most_vcpus
    more = f"{int(traits.most_memory) // 2**20 + 1} MiB"
    assert said(0, more) == [
        f"3: vcpus: 0 is not possible; an {architecture} guest has 1 to {most} of them",
        f"4: memory: {more} is more than an {architecture} machine can address ({traits.most_memory})",
    ]
    assert said(most + 1, "1 KiB") == [
        f"3: vcpus: {most + 1} is not possible; an {architecture} guest has 1 to {most} of them",
        f"4: memory: 1 KiB is less than an {architecture} machine needs ({traits.least_memory})",
    ]
    assert said(1, "16385 KiB") == ["4: memory: 16385 KiB is not a whole number of MiB; write it in MiB or GiB"]


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ('"99999 GiB"', "99999 GiB is more than an x86_64 machine can address"),
        ('"-1 MiB"', "'-1 MiB' is not a size"),
        ('"0.3 B"', "'0.3 B' is not a whole number of bytes"),
        ('"1.1' + " " * 50_000 + 'B"', "'1.1" + " " * 53 + "... is not a size with its unit"),
        ('"' + "9" * 50_000 + ' MiB"', "'" + "9" * 56 + "... is not a size with its unit"),
        ("9" * 60, "9" * 60 + " is not a size with its unit"),
    ],
)
def test_absurd_memory(memory: str, said: str) -> None:
    (line,) = faults(GOOD.replace('"512 MiB"', memory) + BOOT)
    assert line.startswith(f"4: memory: {said}")


@pytest.mark.parametrize(
    ("boot", "said"),
    [
        ("", "5: boot: it takes exactly one of payload, kernel, disk, firmware"),
        ("payload = 'p'\nkernel = 'k'", "5: boot: it takes exactly one of payload, kernel, disk, firmware"),
        ("kernel = 'k'\nfirmware = 'f'", "5: boot: it takes exactly one of payload, kernel, disk, firmware"),
        ("kernal = 'k'", "6: boot.kernal: unknown key; did you mean 'kernel'?"),
        ("payload = 'p'\ncmdline = 'quiet'", "7: boot.cmdline: does not go with payload"),
        (
            "firmware = 'efi'",
            "6: boot.firmware: 'efi' goes with a disk; alone, firmware is the path of an image",
        ),
        ("disk = 'vda'", "6: boot.disk: 'vda' is not there: the guest has no [[disk]]"),
        (f"disk = 'vdb'\n{DISK}", "6: boot.disk: 'vdb' is not one of this guest's disks: vda"),
        (
            "kernel = 'k'\ncmdline = \"a\\nb\"",
            "7: boot.cmdline: a kernel command line is one line of printable characters",
        ),
        (
            f"kernel = 'k'\ncmdline = '{'x' * 2048}'",
            "7: boot.cmdline: 2048 bytes are more than an x86_64 kernel reads (2047)",
        ),
    ],
)
def test_a_guest_boots_in_one_way(boot: str, said: str) -> None:
    assert faults(f"{GOOD}[boot]\n{boot}\n") == [said]


@pytest.mark.parametrize("architecture", ["armv7l", "aarch64"])
def test_what_arm_machines_lack(architecture: str) -> None:
    text = GOOD.replace("x86_64", architecture) + f"panic = true\n[boot]\ndisk = 'vda'\n{DISK}"
    assert faults(text) == [
        f"5: panic: an {architecture} machine has no panic device; x86 ones have",
        "6: boot.firmware: missing; an ARM machine has none of its own: write 'efi' or the path of an image",
    ]


@pytest.mark.parametrize("directory", ["/a\x13b", "/\x97", "/\n", "/\uffff"])
def test_paths_that_would_start_nowhere(directory: str) -> None:
    with pytest.raises(InvalidFileError, match="which is no path"):
        parse_guest((GOOD + BOOT).encode(), "x.toml", directory=directory)


def test_a_machine_without_a_place_for_a_tpm() -> None:
    assert faults(GOOD.replace("x86_64", "armv7l") + f"tpm = {{}}\n{BOOT}") == [
        "5: tpm: an armv7l machine has no place for a TPM; x86 and aarch64 ones have"
    ]


def test_who_works_in_the_guests_memory_must_see_what_the_guest_writes() -> None:
    text = (
        f"{GOOD}{BOOT}{DISK}{DISK}backend = 'vhost-user'\n[[share]]\npath = '/srv'\ntag = 't'\n[payload]\nname = 'p'\n"
    )
    why = (
        "works in the guest's memory from another process, which sees nothing of what the guest writes with "
        "payload.map = 'ram': that is on copies; map = 'window' goes with it"
    )
    assert faults(f"{text}map = 'ram'\n") == [
        f"13: disk[1].backend: 'vhost-user' {why}",
        f"14: share: a shared folder {why}",
    ]
    parse_guest(f"{text}map = 'window'\n".encode(), "x.toml", directory="/guests")


def test_a_32_bit_arm_kernel_reads_less() -> None:
    text = GOOD.replace("x86_64", "armv7l") + f"[boot]\nkernel = 'k'\ncmdline = '{'ä' * 512}'"
    assert faults(text) == ["7: boot.cmdline: 1024 bytes are more than an armv7l kernel reads (1023)"]


def test_more_disks_than_names() -> None:
    assert faults(GOOD + BOOT + 27 * DISK) == ["7: disk: 27 disks are not possible; there are names for 26, vda to vdz"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "'' is no path; write one of printable characters"),
        ("a\\u0000b", "'a\\x00b' is no path; write one of printable characters"),
        ("a\\nb", "'a\\nb' is no path; write one of printable characters"),
        ("a\\uffffb", "'a\\uffffb' is no path; write one of printable characters"),
        ("~root/k", "'~root/k' is not expanded; write the absolute path"),
        ("..", "'..' may not hold '..'; write the absolute path"),
        ("/srv/../etc/shadow", "'/srv/../etc/shadow' may not hold '..'; write the absolute path"),
        ("a" * 4096, f"'{'a' * 56}... is longer than a path may be, 4095 bytes"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('[boot]\n\npayload = "', '"', "boot.payload"),
        ('[boot]\nkernel = "k"\ninitrd = "', '"', "boot.initrd"),
        ('[boot]\n\nfirmware = "', '"', "boot.firmware"),
        ('boot = {payload = "p"}\n[[disk]]\npath = "', '"\nformat = "raw"', "disk[0].path"),
    ],
)
def test_paths_lead_where_they_seem_to(path: str, said: str, before: str, after: str, key: str) -> None:
    assert faults(f"{GOOD}{before}{path}{after}\n") == [f"7: {key}: {said}"]


def hostile() -> list[bytes]:
    """Return texts that have broken parsers: noise, floods, depth, length and half of each."""
    source, size = random.Random(20), MOST_BYTES
    return [
        source.randbytes(2**20),
        bytes(source.choice(b"[]{}\"'=.#\na1, \\") for _ in range(size)),
        b"\x00" * size,
        b"\n" * size,
        b"a = " + b"[" * (size - 4),
        b"[" + b"a." * (size // 2 - 2) + b"a]",
        b"a = " + b"9" * (size - 4),
        b"a = 0x" + b"f" * 58,
        b'name = "' + b"\\n" * (size // 2 - 5) + b'"',
        b'"' + b"k" * (size - 5) + b'"=1',
        b'"\\u202e\\n" = 1',
        b'name = """' + b'"' * 2 + b"\\" * (size - 20),
        b"[[disk]]\n" * 1000,
        b"[[disk]]\nx = 1\n" * 1000,
        b"\n".join(b"[k%d]" % number for number in range(1000)),
        b"vcpus = 1e999\nweight = nan\nname = 1979-05-27T07:32:00Z\nrng = 07:32:00\nnumber = inf",
    ]


@pytest.mark.parametrize("text", hostile(), ids=lambda text: repr(text[:12]))
def test_hostile_texts_get_clear_lines(text: bytes) -> None:
    for line in faults(text):
        assert line.isprintable()
        assert len(line) < 400


@given(st.text(alphabet="[]{}\"'=.#\n\t\r\\ ,au0é", max_size=60) | st.binary(max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_text_is_a_traceback(text: str | bytes) -> None:
    data = GOOD.encode() + (text if isinstance(text, bytes) else text.encode())
    assert all(line.isprintable() and len(line) < 300 for line in faults(data))
