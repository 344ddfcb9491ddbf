"""A policy brought in force by Debian's cron alone; see `cron_side`, which goes on beside the tests before this one."""

from __future__ import annotations

import os
from subprocess import Popen

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="a cron and a spool of one's own are mounts, which take root")
def test_a_window_opens_and_closes_by_cron_alone(cron_side: Popen[str]) -> None:
    told, _ = cron_side.communicate(timeout=300)
    assert cron_side.returncode == 0, told
