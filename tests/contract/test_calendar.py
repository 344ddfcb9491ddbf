"""The Calendar port: a wall clock goes on, and its two faces show the same time."""

from __future__ import annotations

from datetime import datetime

import pytest

from orchestrator.host.calendar import HostCalendar
from orchestrator.wall_clock import Calendar
from tests.fakes.calendar import FakeCalendar
from tests.fakes.clock import FakeClock


@pytest.fixture(params=["fake", "real"])
def calendar(request: pytest.FixtureRequest) -> Calendar:
    return FakeCalendar(FakeClock()) if request.param == "fake" else HostCalendar()


def test_both_faces_show_the_same_time(calendar: Calendar) -> None:
    local, wall = calendar.local(), calendar.wall()
    assert local.tzinfo is None
    offset = (local - datetime(1970, 1, 1)).total_seconds() - wall / 1e9
    assert abs(offset - round(offset / 900) * 900) < 60, "time zones differ by quarters of an hour"


def test_a_boot_has_one_name(calendar: Calendar) -> None:
    assert calendar.boot
    assert calendar.boot == calendar.boot
