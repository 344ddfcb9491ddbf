"""Policy files: what is refused and where, files that extend each other, and windows that set values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.config import parse_guest
from orchestrator.core.agenda import DesiredGuest
from orchestrator.core.durations import Duration
from orchestrator.core.limits import Limits, User
from orchestrator.core.model import Size
from orchestrator.core.policy import Policy
from orchestrator.errors import UsageError
from orchestrator.policy_file import BUILT_IN, SourcedPolicy, effective, parse_policy, read_policy

POLICIES = Path(__file__).parents[2] / "policies"


def faults(text: str) -> list[str]:
    with pytest.raises(UsageError) as raised:
        parse_policy(text.encode(), "p.toml")
    return list(raised.value.lines())


def sourced(files: Mapping[str, str], first: str = "a.toml", directory: str = "/etc/o") -> SourcedPolicy:
    def opened(name: str) -> bytes:
        if name not in files:
            raise UsageError(f"{name}: cannot be read: No such file or directory")
        return files[name].encode()

    return read_policy(first, opened, directory)


def refused(files: Mapping[str, str]) -> list[str]:
    with pytest.raises(UsageError) as raised:
        sourced(files)
    return list(raised.value.lines())


def test_limits_of_a_user_are_his_own_and_else_those_of_everyone() -> None:
    policy = parse_policy(
        b"""
        [everyone]
        guests = 4
        memory = "1 GiB"
        weight = 50
        [user.ann]
        guests = 9
        core_time_per_day = "10 h"
        [group.staff]
        members = ["ann", "ben"]
        priority = 2
        [group.staff2]
        members = ["ben"]
        priority = 3
        """,
        "p.toml",
    )
    assert policy.limits("ann") == Limits(
        guests=9, memory=Size.parse("1 GiB"), core_time_per_day=Duration.parse("10 h")
    )
    assert policy.limits("zoe") == Limits(guests=4, memory=Size.parse("1 GiB"))
    assert (policy.weight("ann"), policy.weight("zoe")) == (50, 50)
    assert (policy.priority("ann"), policy.priority("ben"), policy.priority("zoe")) == (2, 3, 0)
    assert (policy.groups("ben"), policy.groups("zoe")) == (("staff", "staff2"), ())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[everyone]\ngests = 3", "p.toml:2: everyone.gests: unknown key; did you mean 'guests'?"),
        ("[user.ann]\nguests = -1", "p.toml:2: user.ann.guests: -1 is not possible; it is 0 or more"),
        ("[user.ann]\nguests = '3'", "p.toml:2: user.ann.guests: '3' is not a whole number"),
        ("[user]\nann = 3", "p.toml:2: user.ann: 3 is not a table"),
        ("user = 3", "p.toml:1: user: 3 is not a table"),
        ("[group.x]\nmembers = 'ann'", "p.toml:2: group.x.members: 'ann' is not an array, each of its values text in"),
        ("[group.x]\nmembers = ['a b']", "p.toml:2: group.x.members[0]: 'a b' is no name of a user"),
        ("[user.'a/b']\n", "p.toml:1: user.a/b: 'a/b' is no name of a user of a host"),
        ("[total]\npool_share = 101", "p.toml:2: total.pool_share: 101 is not possible; it is 1 to 100"),
        ("[total]\nlongest_run = '0 s'", "p.toml:2: total.longest_run: 0 s is not possible; leave the key out"),
        ("[quotas]\nover = 'ignore'", "p.toml:2: quotas.over: 'ignore' is not one of refuse, queue, stop-oldest"),
        ("[allowed]\narchitectures = ['sparc']", "p.toml:2: allowed.architectures[0]: 'sparc' is not one of i386,"),
        ("[allowed]\nnetworks = ['bridge']", "p.toml:2: allowed.networks[0]: 'bridge' is no network; possible are"),
        ("[users.banned]\neve = ''", "p.toml:2: users.banned.eve: '' is no reason"),
        ("[[window]]\nname = 'n'\nduration = '1 h'", "p.toml:1: window[0]: it takes either a cron expression"),
        (
            "[[window]]\nname = 'n'\nduration = '1 h'\ncron = '0 25 * * *'",
            "p.toml:4: window[0].cron: '0 25 * * *' is no cron expression: bad hour",
        ),
        (
            "[[window]]\nname = 'n'\nduration = '1 h'\ncron = '* * * * * *'",
            "p.toml:4: window[0].cron: '* * * * * *' is no cron expression; write minute, hour,",
        ),
        (
            "[[window]]\nname = 'n'\nduration = '1 h'\nat = 'noon'",
            "p.toml:4: window[0].at: 'noon' is no moment; write a day and a time, like",
        ),
        ("[[guest]]\ncount = 2", "p.toml:1: guest[0].definition: missing; write text in quotes"),
        ("extends = 'x.toml'", "p.toml:1: extends: nothing can be extended here"),
    ],
)
def test_a_fault_is_told_with_its_line_and_what_would_work(text: str, wanted: str) -> None:
    (fault,) = faults(text)
    assert fault.startswith(wanted)


WINDOW = """
[rotation]
slice = "100 ms"
minimum_run = "50 ms"
[[window]]
name = "night"
cron = "0 22 * * *"
duration = "8 h"
"""


def test_what_a_window_sets_is_typed_and_judged_with_the_values_around_it() -> None:
    policy = parse_policy(
        f"{WINDOW}[window.set.rotation]\nslice = '60 ms'\n[window.set.user.ann]\nguests = 3\n"
        "[[window.set.guest]]\ndefinition = 'x'\n".encode(),
        "p.toml",
    )
    night = policy.window[0].set.apply(policy)
    assert night.rotation.slice == Duration.parse("60 ms")
    assert night.rotation.minimum_run == Duration.parse("50 ms")
    assert night.user == {"ann": User(guests=3)}
    assert night.guest == (DesiredGuest(definition="x"),)
    (short,) = faults(f"{WINDOW}[window.set.rotation]\nslice = '40 ms'\n")
    assert short.startswith("p.toml:9: window[0].set.rotation.minimum_run: 50 ms is not possible; ")
    assert faults(f"{WINDOW}[window.set.cores]\nflor = 1\n")[0].startswith("p.toml:10: window[0].set.cores.flor: unkn")
    assert faults(f"{WINDOW}[window.set.cores]\nshared_floor = -1\n")[0].startswith("p.toml:10: window[0].set.cores.sh")
    assert (
        "no window of its own"
        in faults(f"{WINDOW}[[window.set.window]]\nname='a'\nat='2026-01-01 00:00'\nduration='1 h'")[0]
    )


def test_two_windows_that_do_not_go_together_are_found() -> None:
    other = WINDOW[WINDOW.index("[[window]]") :].replace("night", "late")
    text = f"{WINDOW}[window.set.rotation]\nslice = '60 ms'\n{other}[window.set.rotation]\nminimum_run = '70 ms'\n"
    (fault,) = faults(text)
    assert fault.startswith("p.toml:16: window[1].set.rotation.minimum_run: 70 ms is not possible")
    assert fault.endswith("(while 'night' is open too)")


def test_a_file_has_what_the_one_it_extends_says_and_its_own_values_in_place() -> None:
    found = sourced(
        {
            "a.toml": "extends = 'base/b.toml'\n[cores]\nshared_floor = 2\n[[guest]]\ndefinition = 'mine.toml'\n",
            "base/b.toml": "extends = 'c.toml'\n[cores]\nshared_floor = 1\nreserved = '7'\n"
            "[[guest]]\ndefinition = 'its.toml'\n[allowed]\npayload_directories = ['pay']",
            "base/c.toml": "[rotation]\nslice = '1 s'\n",
        }
    )
    assert found.policy.cores.shared_floor == 2
    assert found.policy.cores.reserved == "7"
    assert found.policy.rotation.slice == Duration.parse("1 s")
    assert [guest.definition for guest in found.policy.guest] == ["/etc/o/base/its.toml", "/etc/o/mine.toml"]
    assert found.policy.allowed.payload_directories == ("/etc/o/base/pay",)
    assert found.files == ("base/c.toml", "base/b.toml", "a.toml")
    sources = {value.key: value.source for value in effective(found)}
    assert sources["cores.shared_floor"] == "a.toml:3"
    assert sources["cores.reserved"] == "base/b.toml:4"
    assert sources["rotation.slice"] == "base/c.toml:2"
    assert sources["rotation.patience"] == BUILT_IN
    assert (sources["guest[0].definition"], sources["guest[1].definition"]) == ("base/b.toml:6", "a.toml:5")


def test_faults_are_told_of_the_file_in_which_they_are() -> None:
    files = {
        "a.toml": "extends = 'b.toml'\n[[guest]]\ndefinition = ''\n[rotation]\nslice = '10 ms'\n",
        "b.toml": "[rotation]\nminimum_run = '30 ms'\ncolour = 1\n[[guest]]\ncount = 0\ndefinition = 'x'\n",
    }
    lines = refused(files)
    assert [line.split(": ")[0] for line in lines] == ["b.toml:2", "b.toml:3", "b.toml:5", "a.toml:3"]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"a.toml": "extends = 'a.toml'"}, "a.toml:1: extends: the files extend each other in a circle: a.toml -> a"),
        (
            {"a.toml": "extends = 'd/b.toml'", "d/b.toml": "\nextends = '../a.toml'"},
            "d/b.toml:2: extends: the files extend each other in a circle: a.toml -> b.toml -> a.toml",
        ),
        ({"a.toml": "extends = 'b.toml'"}, "a.toml:1: extends: what it extends cannot be read: No such file"),
        ({"a.toml": "extends = 3"}, "a.toml:1: extends: 3 is not the path of a policy file in quotes"),
        ({"a.toml": "extends = 'b.toml'", "b.toml": "x = = 1"}, "b.toml:1: not TOML: "),
        (
            {f"{chr(97 + n)}.toml": f"extends = '{chr(98 + n)}.toml'" for n in range(20)},
            "p.toml:1: extends: more than 16 files extend one another",
        ),
    ],
)
def test_what_cannot_be_extended_is_told(files: Mapping[str, str], line: str) -> None:
    (told,) = refused(files)
    assert told.startswith(line)


def test_a_value_of_a_file_replaces_an_array_and_the_places_of_its_parts() -> None:
    found = sourced(
        {
            "a.toml": "extends = 'b.toml'\n[allowed]\nnetworks = ['none']\n",
            "b.toml": "[allowed]\nnetworks = ['user', 'none', 'bridge:b']\n",
        }
    )
    assert found.policy.allowed.networks == ("none",)
    assert "allowed.networks[2]" not in found.origins


def test_everything_that_is_built_in_is_shown_as_such() -> None:
    values = effective(SourcedPolicy(Policy()))
    assert {value.source for value in values} == {BUILT_IN}
    assert "quotas.warn_at" in {value.key for value in values}


@pytest.mark.parametrize("name", ["lab", "nightly", "classroom"])
def test_a_shipped_policy_extends_the_default_one(name: str) -> None:
    found = read_policy(f"{name}.toml", lambda file: (POLICIES / file).read_bytes())
    assert found.files == ("default.toml", f"{name}.toml")
    assert found.policy != Policy()


def test_a_definition_has_the_policys_defaults_for_what_it_does_not_say() -> None:
    defaults = parse_policy(b"[defaults]\nvcpus = 2\nmemory = '64 MiB'\nweight = 50", "p.toml").defaults
    text = b"name = 'g'\narchitecture = 'i386'\nvcpus = 1\n[boot]\npayload = 'x'\n"
    spec = parse_guest(text, "g.toml", directory="/", defaults=defaults).spec
    assert (spec.vcpus, spec.memory, spec.weight) == (1, Size.parse("64 MiB"), 50)
    with pytest.raises(UsageError, match="memory: missing"):
        parse_guest(text, "g.toml", directory="/")
