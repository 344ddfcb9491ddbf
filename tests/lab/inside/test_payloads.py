"""One payload under a daemon: guests of all architectures execute it in place, users share it or do not know of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.looking import ROOT, ask, command, eventually, heartbeats, says
from tests.lab.inside.servers import Servers
from tests.users import ALICE, BOB, Answer, one, starting

SOCKET = Path("/run/orchestrator/api/socket")
SIZE = 64 << 20
ARCHITECTURES = ("aarch64", "armv7l", "i386", "x86_64")
CODE = {"i386": 0x1000000, "x86_64": 0x1400000, "aarch64": 0x1800000, "armv7l": 0x1C00000}
"""Where in the image the code of each architecture is."""

WINDOWS = [f"window-{each}" for each in ARCHITECTURES]
RAMS = [f"ram-{each}" for each in ARCHITECTURES]

BOBS = """
name = "bobs"
architecture = "aarch64"
vcpus = 1
memory = "16 MiB"
[boot]
payload = "enter.elf"
[payload]
name = "{payload}"
map = "window"
"""


HUGE = """
name = "huge"
architecture = "aarch64"
vcpus = 1
memory = "16 MiB"
hugepages = "2 MiB"
[boot]
payload = "{root}/domains/build/payload-window-aarch64.elf"
[payload]
name = "toolbox"
map = "window"
"""
PAGES = 48
"""Huge pages of 2 MiB: 8 are that guest's RAM, 32 the payload."""


@pytest.fixture
def pages() -> Iterator[Path]:
    place = Path("/dev/hugepages")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", str(place)], check=True)
    Path("/proc/sys/vm/nr_hugepages").write_text(str(PAGES))
    assert free_pages() == PAGES
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def free_pages() -> int:
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("HugePages_Free:")]
    return int(line.split()[1])


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path("/tmp/payload-users")
    for name, user in (("alice", ALICE), ("bob", BOB)):
        (path / name).mkdir(parents=True)
        path.chmod(0o755)
        os.chown(path / name, user, user)
        (path / name).chmod(0o700)
    shutil.copy(ROOT / "domains/build/payload-window-aarch64.elf", path / "bob" / "enter.elf")
    shutil.copy(ROOT / "domains/build/payload.img", path / "alice" / "toolbox.img")
    (path / "alice" / "secret.img").write_bytes(os.urandom(1 << 20))
    for each in path.glob("*/*"):
        os.chown(each, each.parent.stat().st_uid, each.parent.stat().st_uid)
    yield path
    shutil.rmtree(path)


def asked(user: int, what: str, body: Any = None) -> Answer:
    return one(user, SOCKET, "GET" if body is None else "POST", f"/v1/payloads{what}", body)


def test_guests_execute_one_payload_in_place_and_users_share_it_or_do_not_know_of_it(
    home: Path, tmp_path: Path, pages: Path
) -> None:
    servers = Servers(tmp_path)
    try:
        servers.start()
        secret = check_who_may_use_what(home)
        for some in (WINDOWS, RAMS):
            assert command("start", *(f"domains/payload/{name}.toml" for name in some)).code == 0
            until_they_beat(some)
            assert command("pause", *some).code == 0  # the lab's cores are two in truth
        started = one(BOB, SOCKET, *starting(BOBS.format(payload=f"{ALICE}/toolbox"), home / "bob"))
        assert started.status == 200, started
        until_they_beat(["bobs"])
        assert command("pause", "bobs").code == 0
        check_shares()
        check_what_bob_sees(secret)
        check_a_look_inside()
        assert command("payload", "verify", f"{ALICE}/toolbox").code == 0, "as it was, whoever tried to write to it"
        check_a_window_of_huge_pages(tmp_path, pages)
    finally:
        servers.clear()


def check_who_may_use_what(home: Path) -> str:
    """Alice shares one payload and keeps another; for bob that is as if it was not there. Return its digest."""
    shared = asked(ALICE, "", {"path": f"{home}/alice/toolbox.img", "name": "toolbox", "public": True})
    assert shared.status == 200, shared
    kept = asked(ALICE, "", {"path": f"{home}/alice/secret.img", "name": "secret"})
    assert kept.status == 200, kept
    refused = asked(BOB, "", {"path": f"{home}/alice/secret.img", "name": "mine"})
    assert "cannot be opened: Permission denied" in str(refused.body)
    assert [each["name"] for each in asked(BOB, "").body["payloads"]] == ["toolbox"]
    digest = str(kept.body["digest"])
    for word, none in (("secret", "nothing"), (f"{ALICE}/secret", f"{ALICE}/nothing"), (digest, "0" * 64)):
        for act in ("verify", "remove"):
            there, absent = (asked(BOB, f"/{act}", {"reference": each}) for each in (word, none))
            assert there.status == absent.status == 400
            assert str(there.body).replace(word, none) == str(absent.body)
        there, absent = (one(BOB, SOCKET, *starting(BOBS.format(payload=each), home / "bob")) for each in (word, none))
        assert there.status == absent.status == 400
        assert str(there.body).replace(word, none) == str(absent.body)
    assert asked(BOB, "/remove", {"reference": "toolbox"}).status == 403
    return digest


def shared() -> dict[str, Any]:
    """Ask who maps what; to read that of ten QEMUs takes longer in the lab than anybody waits who asks."""
    found: list[Any] = []

    def answered() -> bool:
        done = command("payload", "shares", "--json")
        found[:] = json.loads(done.out)["shares"] if done.code == 0 else []
        return done.code == 0

    eventually(answered, "the daemon tells who maps what")
    return {row["guest"]: row for row in found}


def check_shares() -> None:
    rows = shared()
    assert set(rows) == {*WINDOWS, *RAMS, "bobs"}
    assert {row["mapped"] for row in rows.values()} == {SIZE}
    for name in (*WINDOWS, "bobs"):
        row = rows[name]
        assert (row["private_clean"], row["private_dirty"], row["writable"]) == (0, 0, False), row
        assert row["resident"] == SIZE, row
    private = sum(row["private_dirty"] for row in rows.values())
    proportional = sum(row["proportional"] for row in rows.values()) - private
    assert proportional <= 1.05 * SIZE
    says(
        f"one payload of {SIZE >> 20} MiB in {len(rows)} guests: {proportional / (1 << 20):.1f} MiB in memory, and "
        f"{private >> 10} KiB that those whose RAM it is have written"
    )


def check_a_window_of_huge_pages(directory: Path, place: Path) -> None:
    """It is a copy there, which is made once, and stays until nobody maps it and somebody clears up."""
    definition = directory / "huge.toml"
    definition.write_text(HUGE.format(root=ROOT))
    started = command("start", str(definition))
    assert started.code == 0, started.err
    until_they_beat(["huge"])
    assert printed("huge", "sum ") == printed(WINDOWS[0], "sum ")
    assert free_pages() == PAGES - 8 - 32
    row = shared()["huge"]
    assert (row["mapped"], row["resident"], row["private_dirty"], row["writable"]) == (SIZE, SIZE, 0, False)
    assert command("payload", "gc").code == 0
    assert free_pages() == PAGES - 8 - 32, "it is mapped"
    assert command("kill", "huge").code == 0
    eventually(lambda: free_pages() == PAGES - 32, "its RAM is given back")
    assert len(list(place.glob("*/*/*/*"))) == 1


def check_what_bob_sees(secret: str) -> None:
    """His own guest's share, and of others' neither guests nor anything that they map."""
    shares = asked(BOB, "/shares").body["shares"]
    assert [row["guest"] for row in shares] == ["bobs"]
    (seen,) = asked(BOB, "").body["payloads"]
    assert seen["guests"] == ["bobs"]
    refused = one(BOB, SOCKET, "POST", "/v1/guests/window-aarch64/inspect", {})
    assert refused.status == 403
    assert secret not in str(asked(BOB, "").body)


def check_a_look_inside() -> None:
    """Each executes the image where that is mapped: the code there is that of the file, and so is what it beats."""
    image = (ROOT / "domains/build/payload.img").read_bytes()
    for name in (*WINDOWS, *RAMS):
        architecture = name.partition("-")[2]
        base = int(printed(name, "payload at "), 16)
        code = base + CODE[architecture]
        length = (ROOT / f"domains/build/payload-code-{architecture}.bin").stat().st_size
        counters = [int(line.rpartition(" pc ")[2], 16) for line in lines(name) if line.startswith("heartbeat ")]
        assert all(code <= counter < code + length for counter in counters), (name, counters)
        runs = name == WINDOWS[0]
        if runs:
            assert command("resume", name).code == 0
            until_it_beats_on(name)
        seen = ask("inspect", name, "--registers", "--disassemble", "4", "--memory", f"{code:#x}:{length}")
        assert bytes.fromhex(seen["memory"]["bytes"]) == image[code - base : code - base + length], name
        (vcpu,) = seen["vcpus"]
        assert code <= int(vcpu["pc"], 16) < code + length, (name, vcpu["pc"])
        assert len(seen["disassembly"]) == 4
        assert seen["disassembly"][0]["address"] == vcpu["pc"]
        if runs:
            until_it_beats_on(name)
            assert command("pause", name).code == 0
    assert {printed(name, "write ") for name in WINDOWS} == {"ignored"}
    assert {printed(name, "write ") for name in RAMS} == {"taken"}


def until_they_beat(names: Sequence[str]) -> None:
    eventually(lambda: all(heartbeats(name) >= 2 for name in names), f"{', '.join(names)}: beat")


def until_it_beats_on(name: str) -> None:
    before = heartbeats(name)
    eventually(lambda: heartbeats(name) > before, f"{name} beats on")


def lines(name: str) -> list[str]:
    return Path(f"/run/orchestrator/guests/{name}/serial.log").read_text(errors="replace").splitlines()[:-1]


def printed(name: str, word: str) -> str:
    return next(line.removeprefix(word) for line in lines(name) if line.startswith(word))
