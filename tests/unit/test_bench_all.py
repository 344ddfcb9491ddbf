"""What `bench all` makes of its figures: ratios, a file that can be read back, a comparison, and plots."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from orchestrator.bench.whole import Figure, Results, compared, from_json, to_json
from orchestrator.errors import UsageError
from orchestrator.page import plots
from orchestrator.wiring import bench_all

FIGURES = (
    Figure(name="hand-over", value=0.5, unit="ms", rival="bare QMP", theirs=0.25),
    Figure(name="placements", value=200.0, unit="/s", more=True, rival="Nova", theirs=50.0),
    Figure(name="useful pool time at 20 ms", value=97.0, unit="%", more=True),
    Figure(name="useful pool time at 1000 ms", value=99.9, unit="%", more=True),
    Figure(name="idle CPU, 20 guests", value=0.4, unit="% of core 0"),
)
RESULTS = Results(machine={"cpu": "a processor", "load_before": 0.1}, seconds=300.0, figures=FIGURES)


def test_ratios_are_below_one_where_we_are_ahead_whichever_way_is_better() -> None:
    assert [figure.ratio for figure in FIGURES[:3]] == [2.0, 0.25, None]


def test_results_survive_their_file() -> None:
    told = json.loads(json.dumps(to_json(RESULTS)))
    assert told["figures"][0]["ratio"] == 2.0
    assert from_json(told) == RESULTS
    wrongs: list[object] = [{}, [], {"form": 2}, {**told, "figures": [{"name": "x"}]}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="it"):
            from_json(wrong)


def test_a_comparison_says_what_has_become_worse_and_leaves_out_what_is_new_or_in_another_unit() -> None:
    slower = replace(FIGURES[0], value=1.0)
    fewer = replace(FIGURES[1], value=100.0)
    other = replace(FIGURES[4], unit="seconds")
    found = {
        figure.name: worse for figure, worse in compared(RESULTS, replace(RESULTS, figures=(slower, fewer, other)))
    }
    assert list(found.values()) == [0.5, 0.5, None, None, None]
    assert [worse for _, worse in compared(RESULTS, None)] == [None] * 5


def test_a_run_is_written_with_its_plots(tmp_path: Path) -> None:
    names = {path.name for path in bench_all.write(RESULTS, tmp_path / "new")}
    assert names == {"results.json", "slices.svg", "ratios.svg", "idle.svg"}
    assert bench_all.load_baseline(tmp_path / "new" / "results.json") == RESULTS
    for name in names - {"results.json"}:
        etree.fromstring((tmp_path / "new" / name).read_bytes())
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(UsageError, match=r"odd\.json: it has no results"):
        bench_all.load_baseline(tmp_path / "odd.json")
    with pytest.raises(UsageError, match="cannot be made"):
        bench_all.write(RESULTS, tmp_path / "odd.json" / "x")


def test_a_baseline_is_shipped_that_has_all_kinds_of_figures() -> None:
    shipped = bench_all.load_baseline(None)
    assert shipped is not None
    assert {figure.rival for figure in shipped.figures} >= {"Nova", "bare QEMU", "bare QMP", "libvirt", ""}
    assert {figure.name.partition(",")[0] for figure in shipped.figures} >= {"idle CPU", "decision", "hand-over"}


def test_a_plot_has_every_point_within_its_frame() -> None:
    picture = etree.fromstring(plots.lines("t", "x", "y", {"a": [(10, 1.0), (1000, 3.0)], "<b>": [(100, -2.0)]}))
    spots = [(float(each.get("cx")), float(each.get("cy"))) for each in picture.iter("{*}circle")]
    assert len(spots) == 3
    assert all(0 < x < 760 and 0 < y < 360 for x, y in spots)
    etree.fromstring(plots.lines("one point", "x", "y", {"a": [(1, 1.0)]}))
    etree.fromstring(plots.bars("none", "x", []))
