"""Policies brought to the daemon: values put in force, guests kept running, one run after the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.policy import CorePolicy, Policy
from orchestrator.errors import RefusedError, UsageError
from orchestrator.policy_schema import SCHEMA
from orchestrator.service.messages import Definition, DesiredGuests, ForbiddenError, PolicyRequest
from orchestrator.toml_tables import plain
from tests.fakes.host import Faults
from tests.unit.service_daemon import ALICE, ROOT, Daemon, FakeKeeper, daemon_on, definition, run

FLOOR = Policy(cores=CorePolicy(shared_floor=2))


def listed(name: str = "web", mode: str = "exclusive", vcpus: int = 1, count: int = 1, owner: str = "ann") -> Any:
    return DesiredGuests(Definition(definition(name, mode, vcpus), f"{name}.toml", "/g"), owner, count)


def asked(*guests: DesiredGuests, policy: Policy | None = None, dry_run: bool = False) -> PolicyRequest:
    return PolicyRequest("p.toml", plain(policy or Policy(), SCHEMA), guests, dry_run)


async def changed(daemon: Daemon, request: PolicyRequest) -> list[str]:
    told = await daemon.client.policy(request)
    return [f"{each['what']} {each['guest']} {each['exit_code']}" for each in told["changes"]]


def test_guests_are_kept_running_until_they_are_listed_no_longer(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            both = asked(listed(count=2), listed("beat", "shared"))
            assert await changed(daemon, asked(*both.guests, dry_run=True)) == [
                "start web-1 0",
                "start web-2 0",
                "start beat 0",
            ]
            assert (await daemon.shown(), daemon.host.trace) == ({}, [])
            assert len(await changed(daemon, both)) == 3
            assert await daemon.shown() == {"beat": "running", "web-1": "running", "web-2": "running"}
            web = await daemon.client.guest("web-1")
            assert (web["owner"], web["by_policy"]) == ("ann", True)
            assert await changed(daemon, both) == []
            await daemon.client.act("kill", "web-2")  # however it ended
            assert await changed(daemon, both) == ["start web-2 0"]
            await daemon.client.act("restart", "web-2")
            assert (await daemon.client.guest("web-2"))["by_policy"] is True
            assert await changed(daemon, asked(listed(vcpus=2))) == [
                "stop beat 0",
                "stop web-1 0",
                "stop web-2 0",
                "start web 0",
            ]
            assert await changed(daemon, asked(listed(vcpus=1))) == ["replace web 0"]
            assert (await daemon.shown())["web"] == "running"

    run(story)


def test_a_users_own_guest_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            daemon.caller = ROOT
            (told,) = (await daemon.client.policy(asked(listed())))["changes"]
            assert (told["what"], told["exit_code"]) == ("blocked", RefusedError.exit_code)
            assert told["error"].startswith("web: cannot be started: 4000001 runs another guest of this name")
            assert await changed(daemon, asked()) == []
            assert await daemon.shown() == {"web": "running"}

    run(story)


def test_one_that_cannot_be_had_does_not_keep_the_others_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, Faults(start=["bad"])) as daemon:
            found = await changed(daemon, asked(listed("huge", vcpus=9), listed("bad"), listed()))
            assert found == ["start huge 3", "start bad 1", "start web 0"]
            assert (await daemon.shown())["web"] == "running"

    run(story)


def test_values_are_put_in_force_once_and_it_is_told_which(tmp_path: Path) -> None:
    async def story() -> None:
        keeper = FakeKeeper()
        async with daemon_on(tmp_path, keeper=keeper) as daemon:
            expected = [{"key": "cores.shared_floor", "before": 0, "after": 2}]
            for dry_run in (True, False):
                assert keeper.policy == Policy()
                told = await daemon.client.policy(asked(policy=FLOOR, dry_run=dry_run))
                assert (told["settings"], told["kept"]) == (expected, [])
            assert keeper.policy == FLOOR
            assert (await daemon.client.policy(asked(policy=FLOOR)))["settings"] == []
            events = [each async for each in daemon.client.events(0, follow=False)]
            assert [each["why"] for each in events if each["what"] == "policy"] == ["p.toml: in force"]

    run(story)


def test_values_that_cannot_be_changed_now_are_told_each_time_and_the_rest_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        keeper = FakeKeeper()
        async with daemon_on(tmp_path, keeper=keeper) as daemon:
            other = replace(FLOOR, cores=replace(FLOOR.cores, reserved="5"))
            told = await daemon.client.policy(asked(listed(), policy=other))
            assert [each["key"] for each in told["settings"]] == ["cores.reserved", "cores.shared_floor"]
            (line,) = told["kept"]
            assert line.startswith("cores.reserved: stays '' and is not '5' yet, since ")
            assert (keeper.policy, await daemon.shown()) == (FLOOR, {"web": "running"})
            again = await daemon.client.policy(asked(listed(), policy=other))
            assert (len(again["settings"]), len(again["kept"]), again["changes"]) == (1, 1, [])
            events = [each async for each in daemon.client.events(0, follow=False)]
            assert len([each for each in events if each["what"] == "policy"]) == 1

    run(story)


def test_only_root_brings_a_policy(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            for dry_run in (True, False):
                with pytest.raises(ForbiddenError, match=r"p\.toml: a policy is put in force by root"):
                    await daemon.client.policy(asked(listed(owner="4000001"), dry_run=dry_run))
            assert daemon.host.trace == []

    run(story)


WRONG: dict[str, tuple[PolicyRequest, str]] = {
    "values": (PolicyRequest("p.toml", {"cores": {"shared_floor": -1, "colour": 1}}), "cores.colour"),
    "definition": (asked(listed(vcpus=0), listed("db", vcpus=0)), "web.toml:3: vcpus"),
    "no guest": (asked(listed(count=0)), "fewer than one"),
    "a flood of guests": (asked(listed(count=999), listed("db", count=2)), "more than 1000 guests"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_valid_changes_nothing(case: str, tmp_path: Path) -> None:
    request, told = WRONG[case]

    async def story() -> None:
        keeper = FakeKeeper()
        async with daemon_on(tmp_path, keeper=keeper) as daemon:
            with pytest.raises(UsageError) as error:
                await daemon.client.policy(request)
            assert any(told in line for line in error.value.lines())
            assert (keeper.policy, daemon.host.trace) == (Policy(), [])

    run(story)


def test_a_run_whose_caller_was_killed_goes_on_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, Faults(start_seconds={"web": 5.0})) as daemon:
            first = asyncio.create_task(daemon.client.policy(asked(listed(), listed("db"))))
            while "web" not in await daemon.shown():
                pass
            first.cancel()
            assert await changed(daemon, asked(listed(), listed("db"))) == []
            assert await daemon.shown() == {"db": "running", "web": "running"}

    run(story)
