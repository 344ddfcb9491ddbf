"""`orchestrator payload` as its users call it, without a daemon: in a store of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.functional.program import Program

CONTENT = b"tools" * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DEFINITION = """\
name = "beat"
architecture = "i386"
vcpus = 1
memory = "64 MiB"
boot = { payload = "payload.elf" }
payload = { name = "tools", map = "%s" }
"""


@pytest.fixture
def tools(program: Program) -> Path:
    """Add a payload; return the file that keeps it."""
    program.write("tools.img", CONTENT)
    added = program.json("payload", "add", "tools.img", "--name", "tools")
    assert (added["size"], added["digest"], added["public"]) == (len(CONTENT), DIGEST, False)
    (kept,) = (program.directory / "s" / "payloads" / "blobs").glob("*/*")
    return kept


def test_what_is_added_is_listed_verified_and_removed(program: Program, tools: Path) -> None:
    listed = program.json("payload", "ls")
    assert [each["name"] for each in listed["payloads"]] == ["tools"]
    assert listed["used"] == len(CONTENT)
    assert program.json("payload", "verify")["verified"][0]["fault"] is None
    assert program.json("payload", "shares") == {"shares": []}
    assert program.json("payload", "gc") == {"files": 0, "bytes": 0}
    program.json("payload", "rm", "tools")
    assert not tools.exists()
    assert program("payload", "rm", "tools").code == 2


def test_a_definition_gets_the_payloads_file_into_its_xml_or_is_told_why_not(program: Program, tools: Path) -> None:
    program.write("window.toml", DEFINITION % "window")
    text = program.json("xml", "window.toml", "--cores", "2")["xml"]
    assert f"mem-path={tools},size=16384,share=on,readonly=on" in text
    assert f'"digest":"{DIGEST}"' in text.replace("&quot;", '"')
    program.write("ram.toml", DEFINITION % "ram")
    outcome = program("xml", "ram.toml")
    assert outcome.code == 2
    assert outcome.lines == [
        "ram.toml:6: payload.name: tools has 10000 bytes, and memory 67108864; a RAM image is as long as the memory: "
        "`truncate --size 67108864 FILE` before it is added, or another 'memory'"
    ]


def test_a_payload_that_was_changed_fails_its_check_with_one_line(program: Program, tools: Path) -> None:
    tools.chmod(0o600)
    with tools.open("r+b") as file:
        file.write(b"T")
    outcome = program("payload", "verify")
    assert outcome.code == 1
    assert "its file is not what was added: its digest is " in outcome.out
    assert len(outcome.out.splitlines()) == 1
