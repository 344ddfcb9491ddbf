"""What a definition says about the guest's end, about trouble, and about its clock."""

from __future__ import annotations

import pytest

from orchestrator.config import decode_guest, encode_guest, parse_guest
from orchestrator.core.durations import Duration
from orchestrator.core.model import GuestClock, GuestSpec, OnCrash, RestartRules
from orchestrator.errors import InvalidFileError

HEAD = 'name = "a"\narchitecture = "x86_64"\nvcpus = 1\nmemory = "16 MiB"\n'
PAYLOAD, KERNEL = '[boot]\npayload = "p"\n', '[boot]\nkernel = "k"\n'


def parsed(keys: str, tables: str = KERNEL) -> GuestSpec:
    return parse_guest(f"{HEAD}{keys}\n{tables}".encode(), "x.toml", directory="/").spec


def faults(keys: str, tables: str = KERNEL) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        parsed(keys, tables)
    return [line.removeprefix("x.toml:").lstrip() for line in caught.value.lines()]


def test_a_guest_that_says_nothing_is_stopped_by_trouble_and_has_a_clock_that_follows() -> None:
    spec = parsed("")
    assert (spec.on_crash, spec.restart_rules, spec.heartbeat_limit) == (OnCrash.STOP, None, None)
    assert spec.clock is GuestClock.FOLLOWS


def test_restarting_has_rules_without_a_table_and_with_a_part_of_one() -> None:
    assert parsed('on_crash = "restart"').restart_rules == RestartRules()
    some = parsed('on_crash = "restart"', f"{KERNEL}[restart]\nlimit = 2\n").restart_rules
    assert some == RestartRules(limit=2)


def test_there_is_time_to_shut_down_but_for_a_payload_that_listens_to_nobody() -> None:
    assert str(parsed("").grace) == "10 s"
    assert str(parsed("", PAYLOAD).grace) == "0 s"
    for boot in (PAYLOAD, KERNEL):
        assert str(parsed('stop_grace = "3 s"', boot).grace) == "3 s"
        assert str(parsed('stop_grace = "0 s"', boot).grace) == "0 s"


@pytest.mark.parametrize(
    ("keys", "tables", "said"),
    [
        ("", "[restart]\n", "8: restart: does not go with on_crash = 'stop'; write on_crash = 'restart'"),
        (
            'on_crash = "keep"',
            "[restart]\nlimit = 1\n",
            "8: restart: does not go with on_crash = 'keep'; write on_crash = 'restart'",
        ),
        ('on_crash = "again"', "", "5: on_crash: 'again' is not one of stop, restart, keep"),
        (
            'on_crash = "keep"\nwatchdog = "poweroff"',
            "",
            "6: watchdog: nothing is left of a guest that is powered off, to be kept; write 'pause'",
        ),
        (
            'heartbeat_limit = "0 s"',
            "",
            "5: heartbeat_limit: no guest speaks all the time; it is more than 0 s, or left out",
        ),
        (
            'serial = "none"\nheartbeat_limit = "30 s"',
            "",
            "6: heartbeat_limit: is counted on the serial port, and the guest has none; write serial = 'log'",
        ),
        ("stop_grace = 10", "", "5: stop_grace: 10 is not a duration with its unit, like '10 s'"),
        ('clock = "runs"', "", "5: clock: 'runs' is not one of stops, follows"),
    ],
)
def test_what_does_not_go_together_is_told_what_does(keys: str, tables: str, said: str) -> None:
    assert faults(keys, KERNEL + tables) == [said]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('backoff = "0 s"', "backoff: 0 s is not possible; it is more than 0 s and at most the longest, 1 min"),
        ('backoff = "2 min"', "backoff: 2 min is not possible; it is more than 0 s and at most the longest, 1 min"),
        ("limit = 0", "limit: 0 is not possible; it is 1 to 1000"),
        ("limit = 1001", "limit: 1001 is not possible; it is 1 to 1000"),
        ('window = "0 s"', "window: nothing happens within 0 s; the default is '10 min'"),
    ],
)
def test_a_rule_of_restarting_that_makes_no_sense_is_refused(rule: str, said: str) -> None:
    (line,) = faults('on_crash = "restart"', f"{KERNEL}[restart]\n{rule}\n")
    assert line == f"9: restart.{said}"


def test_a_specification_from_before_these_keys_is_still_read() -> None:
    spec = parsed("")
    assert decode_guest(encode_guest(spec).replace('"clock":"follows",', "")) == spec
    assert Duration.parse("10 s") == spec.grace
