"""Metrics: true to the overview, of everybody his own, on the socket and the loopback; and what refers to them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

import orchestrator
from orchestrator.core.orders import Happening, Notice
from orchestrator.errors import UsageError
from orchestrator.service.metrics import expose
from orchestrator.service.metrics_port import parse_address, serving_metrics
from tests.unit.service_daemon import ALICE, BOB, ROOT, Daemon, daemon_on, definition, http, run

MONITORING = Path(orchestrator.__file__).parent / "monitoring"
MS = 10**6

Samples = dict[str, list[tuple[dict[str, str], float]]]


def parsed(text: bytes) -> Samples:
    """Return the samples by name."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def metrics(daemon: Daemon) -> Samples:
    status, body = await http(daemon.path, "GET /metrics")
    assert status == 200
    return parsed(body)


def test_they_say_what_the_overview_does_and_only_of_the_callers_guests(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition("web"))
            daemon.caller = BOB
            await daemon.start(definition("db", "shared"))
            of_bob = await metrics(daemon)
            assert {labels["guest"] for labels, _ in of_bob["orchestrator_guest_turns_total"]} == {"db"}
            daemon.caller = ROOT
            of_all = await metrics(daemon)
            assert {labels["guest"]: value for labels, value in of_all["orchestrator_guest_cores"]} == {
                "web": 1,
                "db": 1,
            }
            held = {labels["core"]: value for labels, value in of_all["orchestrator_core_held"]}
            assert held == {"0": 0, "1": 0, "2": 1, "3": 1, "4": 0, "5": 0}
            assert of_all["orchestrator_drift_repairs_total"] == [({}, 0)]

    run(story)


def test_hand_overs_are_counted_in_classes_that_add_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            for length in (0, 1, 3, 3000):  # milliseconds from the stop of one to the run of the next
                end = 10_000 * MS
                daemon.desk.note(Notice(Happening.TURN_ENDED, "a", end, (2,), since=0))
                began = end + length * MS
                daemon.desk.note(Notice(Happening.TURN_BEGAN, "b", began, (2,), since=5000 * MS, latest=end * 2))
            daemon.desk.note(Notice(Happening.TURN_BEGAN, "idle", 20_000 * MS, (3,), since=0, latest=30_000 * MS))
            found = await metrics(daemon)
            buckets = {labels["le"]: value for labels, value in found["orchestrator_handover_seconds_bucket"]}
            assert (buckets["0.00025"], buckets["0.001"], buckets["0.005"], buckets["1.0"]) == (1, 2, 3, 3)
            assert buckets["+Inf"] == found["orchestrator_handover_seconds_count"][0][1] == 4
            assert found["orchestrator_handover_seconds_sum"][0][1] == pytest.approx(3.004)

    run(story)


def referred_to() -> set[str]:
    """Return the names of all metrics in the dashboard and the alert rules."""
    text = "".join((MONITORING / name).read_text() for name in ("dashboard.json", "alerts.yml"))
    return {name for name in re.findall(r"\borchestrator_\w+", text) if not name.endswith("_")}


def test_what_the_dashboard_and_the_alerts_refer_to_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, cpus="0-2") as daemon:
            await daemon.start(definition("a", "shared"))
            text = (await http(daemon.path, "GET /metrics"))[1].decode()
            told = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
            told |= {f"{name}_{part}" for name in told for part in ("bucket", "count", "sum")}
            assert len(referred_to()) > 15
            assert referred_to() - told == set()

    run(story)
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert all(target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: Debian's package prometheus brings it")
def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    def promtool(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, check=False, timeout=60)

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition("web"), definition("a", "shared"))
            texts.append((await http(daemon.path, "GET /metrics"))[1])

    texts: list[bytes] = []
    run(story)
    checked = promtool("check", "metrics", stdin=texts[0])
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert promtool("check", "rules", str(MONITORING / "alerts.yml")).returncode == 0
    wrong = tmp_path / "wrong.yml"
    wrong.write_text((MONITORING / "alerts.yml").read_text().replace("> 0.9", "> > 0.9"))
    assert promtool("check", "rules", str(wrong)).returncode != 0


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9464", "192.168.0.1:9464", "[::]:1", "9464", "localhost:1", "127.0.0.1:x"]
)
def test_no_address_but_the_loopbacks_is_taken(address: str) -> None:
    with pytest.raises(UsageError, match="--metrics"):
        parse_address(address)
    with pytest.raises(UsageError, match="65535"):
        parse_address("127.0.0.1:70000")


def test_a_port_of_the_loopback_tells_the_same_and_asks_no_more_than_once_a_second(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            asked: list[int] = []

            async def tell() -> bytes:
                asked.append(1)
                return await expose(daemon.overview.overview(ROOT))

            async with serving_metrics(parse_address("127.0.0.1:0"), tell) as port, aiohttp.ClientSession() as session:

                async def get(path: str) -> tuple[int, bytes]:
                    async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                        return answer.status, await answer.read()

                answers: list[Any] = [await get("/metrics") for _ in range(5)]
                assert {status for status, _ in answers} == {200}
                assert "orchestrator_core_held" in parsed(answers[0][1])
                assert len(asked) < 5
                assert (await get("/v1/guests"))[0] == 404

    asyncio.run(story())
