"""The messages that the documentation explains are those that the program prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.host.writer_lock import WriterLock
from tests.documentation.commands import ROOT
from tests.functional.program import Program

TABLE = ROOT / "orchestrator" / "packaging" / "README.md"


def explained() -> list[str]:
    """Return the messages in the first column of the table below its heading."""
    _, _, rest = TABLE.read_text().partition("## What messages mean\n")
    return re.findall(r"^\| `(.*?)` \|", rest, re.MULTILINE)


def fits(message: str, line: str) -> bool:
    return re.fullmatch(".+".join(map(re.escape, message.split("..."))), line) is not None


@pytest.fixture
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what the program says of all kinds of trouble."""
    program = Program(tmp_path_factory.mktemp("told"))
    program.write("none.toml", '[cores]\nreserved = "2-65535"\n')
    program.write("guest.toml", 'name = "x"\nmemory = "64 MiB"\nvcpu = 1\n')
    program.write("policy.toml", '[rotation]\nslice = "5"\n')
    program.write("mapped.toml", Path(ROOT / "domains/payload/window-i386.toml").read_text())
    others = program.directory / "others"
    others.mkdir()
    others.chmod(0o777)
    calls = (
        ("run", str(ROOT / "domains/heartbeat-i386.toml"), "--policy", "none.toml"),
        ("start", "guest.toml"),
        ("inspect", "web", "--registers"),
        ("logs", "web"),
        ("xml", "web.toml"),
        ("xml", "web"),
        ("xml", "guest.toml"),
        ("xml", "mapped.toml"),
        ("policy", "check", "policy.toml"),
        ("ps", "--socket", "nowhere"),
    )
    lines = [line for call in calls for line in program(*call).lines]
    lines += program("ps", ORCHESTRATOR_RUNTIME_DIR=str(others)).lines
    return [*lines, second_scheduler(program.directory / "lock")]


def second_scheduler(path: Path) -> str:
    first = WriterLock(path)
    first.acquire()
    try:
        with pytest.raises(OrchestratorError) as refused:
            WriterLock(path).acquire()
    finally:
        first.release()
    return str(refused.value)


def test_each_message_that_is_explained_is_printed(printed: list[str]) -> None:
    found = explained()
    assert len(found) > 10
    unheard = [message for message in found if not any(fits(message, line) for line in printed)]
    assert unheard == [], "\n".join(printed)


def test_a_message_that_nothing_prints_is_found() -> None:
    assert fits("...: no such guest; ...", "web: no such guest; look again")
    assert not fits("...: no such guest; ...", "web: no such host; look again")
