"""What a daemon writes down, through the real journal, store and chores process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.core.discovery import discover
from orchestrator.core.placement import assign
from orchestrator.core.policy import Policy
from orchestrator.wiring.records import recording
from tests.fakes.engine import guest


def test_intents_outcomes_and_serial_output_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path / "state"))
    topology = discover({"cpu/online": "0-3"})
    domain = guest().placed(assign(guest().spec, [2], topology), str(tmp_path))
    (tmp_path / "serial.log").write_bytes(b"heartbeat 1\n")
    told: list[str] = []

    async def story() -> None:
        async with recording(Policy(), told.append) as recorder:
            await recorder.intend("start", {"guest": "beat"})
            recorder.began(domain)
            recorder.ended(domain, "shut down", "stopped")

    asyncio.run(story())
    state = tmp_path / "state"
    assert json.loads((state / "journal.jsonl").read_text())["kind"] == "start"
    assert (state / "logs" / "serial" / "beat.log").read_bytes() == b"heartbeat 1\n"
    assert "refused" not in (state / "logs" / "events.jsonl").read_text()
    assert not [line for line in told if "could not be kept" in line]
