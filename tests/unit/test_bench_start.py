"""What `bench start` makes of its measurements, and how they are shown."""

from __future__ import annotations

import json

import pytest

from orchestrator.bench.start import BARE, CLONE, LIBVIRT, STAGED, Kind, Memory, StartReport, describe, medians
from orchestrator.cli.bench import print_start

REPORT = StartReport(
    machine={"cpu": "a processor", "qemu": "QEMU 7.2", "libvirt": "9.0.0", "accelerator": "tcg"},
    borrowed_service_core=True,
    kinds=(Kind("heartbeat-i386", 5, {LIBVIRT: 200.0, BARE: 100.0, CLONE: 50.0, STAGED: 12.0}, 2.0),),
    memory=Memory("linux-x86_64", 8, 900 << 20, 180 << 20),
)


def test_medians_are_in_milliseconds() -> None:
    assert medians({"a": [0.003, 0.001, 0.002], "b": [1.0, 2.0]}) == {"a": 2.0, "b": 1500.0}


def test_a_report_is_json_with_its_ratios() -> None:
    told = json.loads(json.dumps(describe(REPORT)))
    (kind,) = told["kinds"]
    assert (kind["ratio"], kind["turn"], kind["ways"][STAGED]) == (0.25, 2.0, 12.0)
    assert told["memory"]["ratio"] == pytest.approx(0.2)
    assert told["borrowed_service_core"] is True


def test_a_report_is_a_table_and_a_line_on_memory(capsys: pytest.CaptureFixture[str]) -> None:
    print_start(REPORT)
    head, table, row, _, memory = capsys.readouterr().out.splitlines()
    assert head.startswith("a processor, QEMU 7.2 (tcg), libvirt 9.0.0; medians in milliseconds")
    assert table.split()[0] == "GUEST"
    assert row.split() == ["heartbeat-i386", "5", "200.0", "100.0", "50.0", "12.0", "0.25", "2.0"]
    assert memory.endswith("cold 900.0 MiB, clones 180.0 MiB (0.20)")
