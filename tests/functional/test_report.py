"""`report` as its users call it: from what the real chores process has written, on a terminal, as JSON and as a page.

The page is opened in a real browser where there is one.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from lxml import html

from orchestrator.core.policy import Policy
from orchestrator.wiring.records import recording
from tests.functional.program import Program
from tests.unit.report_records import START, tell_story

BROWSER = shutil.which("chromium")
PRESSES = """
<script>
function press(key, on) { (on || document).dispatchEvent(new KeyboardEvent('keydown', {key: key, bubbles: true})); }
press('g');
press('ArrowRight', document.activeElement);
var pressed = document.querySelector('[aria-pressed=true]');
document.body.dataset.pressed = pressed.textContent;
document.body.dataset.dim = document.querySelectorAll('.dim').length;
press('Escape');
document.body.dataset.after = document.querySelectorAll('.dim').length;
press('i');
document.body.dataset.section = document.activeElement.parentElement.id;
</script>
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def written(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Have a daemon's logs of six seconds with eight guests, which have just passed, and its journal."""
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(program.directory / "s"))
    told = tell_story(6, 8)
    shift = time.time_ns() - START - 7 * 10**9

    async def write() -> None:
        async with recording(Policy(), lambda _: None) as recorder:
            await recorder.intend("start", {"guest": "guest-01", "owner": "alice"})

    asyncio.run(write())
    for name, records in (("events", told.events), ("metrics", told.samples)):
        lines = [json.dumps({**record, "at": record["at"] + shift}) for record in records]
        with (program.directory / "s" / "logs" / f"{name}.jsonl").open("a") as log:
            log.write("\n".join([*lines, '{"half a li']))
    return program


def test_without_anything_written_down_it_is_said_what_would_help(program: Program) -> None:
    outcome = program("report")
    assert (outcome.code, outcome.out) == (4, "")
    assert "orchestrator serve" in outcome.err
    assert program("report", "--since", "soon").code == 2
    assert program("report", "--html", "no/such/file").code == 2


def test_it_is_told_on_a_terminal_and_as_json(written: Program) -> None:
    told = written("report", "--since", "5m").out
    assert re.search(r"guest-\d\d waited longest: ", told)
    assert re.search(r"^core 2 +[·A]+$", told, re.MULTILINE), told
    assert re.search(r"^core 3 +[·B-H]+$", told, re.MULTILINE), told
    assert "start begun  guest-01 of alice" in told
    assert "2 could not be read" in told, "the half lines at the ends"
    made = written.json("report", "--since", "5m")
    assert {line["name"] for line in made["guests"]} == {f"guest-{number:02}" for number in range(1, 9)}
    assert [line["core"] for line in made["cores"]] == [2, 3, 4, 5]


def browse(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    # Root has no sandbox; what the page does is said on stderr.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    return subprocess.run([BROWSER, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no browser here: `apt-get install chromium` brings the one that is tested")
def test_the_page_opens_in_a_browser_without_errors_and_obeys_keys(written: Program) -> None:
    page = written.directory / "report.html"
    assert written("report", "--since", "5m", "--html", str(page)).out == ""
    pressed = written.directory / "pressed.html"
    pressed.write_text(page.read_text() + PRESSES)
    done = browse("--dump-dom", f"file://{pressed}")
    assert "CONSOLE" not in done.stderr, done.stderr
    body = html.fromstring(done.stdout).xpath("//body")[0]
    assert (body.get("data-pressed"), body.get("data-after")) == ("guest-04 · alice", "0")
    assert int(body.get("data-dim")) > 10
    assert body.get("data-section") == "incidents"
    picture = written.directory / "page.png"
    browse(f"--screenshot={picture}", "--window-size=1280,1800", f"file://{page}")
    assert picture.stat().st_size > 50_000, "nothing is to be seen"
    blocked = written.directory / "blocked.html"
    blocked.write_text(page.read_text().replace("</h1>", '</h1><img src="file:///none.png">'))
    assert "CONSOLE" in browse("--dump-dom", f"file://{blocked}").stderr, "the check sees what a page may not do"
