"""Whose guest it is: the kernel says who calls, and everybody sees and touches his own guests only."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.errors import RefusedError
from orchestrator.service.callers import Peer, peer_of
from orchestrator.service.messages import ForbiddenError
from tests.unit.service_daemon import ALICE, BOB, ROOT, Daemon, daemon_on, definition, run

TOUCH: dict[str, Callable[[Daemon], Awaitable[object]]] = {
    "show": lambda daemon: daemon.client.guest("web"),
    "explain": lambda daemon: daemon.client.explain("web"),
    "rm": lambda daemon: daemon.client.remove("web"),
    "move": lambda daemon: daemon.client.move("web", [3]),
    "resize": lambda daemon: daemon.client.resize("web", 2),
    **{
        word: lambda daemon, word=word: daemon.client.act(word, "web")  # type: ignore[misc]
        for word in ("stop", "kill", "pause", "resume", "restart")
    },
}


def test_nobody_touches_anothers_guest(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            before = list(daemon.host.trace)
            daemon.caller = BOB
            for what, touch in TOUCH.items():
                with pytest.raises(ForbiddenError) as told:
                    await touch(daemon)
                assert str(told.value).startswith("web: this guest is another user's, and you are 4000002; "), what
                assert told.value.exit_code == RefusedError.exit_code
            assert daemon.host.trace == before

    run(story)


def test_a_guest_belongs_to_who_started_it_and_only_he_and_root_see_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            (guest,) = (await daemon.start(definition()))["guests"]
            assert guest["owner"] == "4000001"
            shown = {}
            for caller in (ALICE, BOB, ROOT):
                daemon.caller = caller
                holder = next(core for core in await daemon.client.cores() if core["id"] == 2)
                events = [event["owner"] async for event in daemon.client.events(0, follow=False)]
                shown[caller] = (list(await daemon.shown()), holder["holder"], holder["held"], set(events))
            assert shown == {
                ALICE: (["web"], "web", True, {"4000001"}),
                BOB: ([], None, True, set()),
                ROOT: (["web"], "web", True, {"4000001", ""}),  # the pool's own events too
            }

    run(story)


def test_root_may_do_everything_and_the_guest_stays_its_owners(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            daemon.caller = ROOT
            await daemon.client.act("restart", "web")
            assert (await daemon.client.guest("web"))["owner"] == "4000001"
            await daemon.client.act("stop", "web")
            await daemon.client.remove("web")
            assert await daemon.shown() == {}

    run(story)


def test_a_name_stays_its_owners_until_the_guest_is_removed(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            await daemon.start(definition())
            await daemon.client.act("stop", "web")
            daemon.caller = BOB
            with pytest.raises(ForbiddenError):
                await daemon.start(definition("mine"), definition("web"))
            assert await daemon.shown() == {}
            daemon.caller = ALICE
            await daemon.client.remove("web")
            daemon.caller = BOB
            await daemon.start(definition())
            assert await daemon.shown() == {"web": "running"}

    run(story)


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == Peer(os.getpid(), os.geteuid(), os.getegid())


def test_the_owner_of_what_is_started_is_who_the_kernel_says(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, peer=peer_of) as daemon:
            daemon.caller = BOB  # whom nobody asks
            await daemon.start(definition())
            (guest,) = await daemon.client.guests()
            assert guest["owner"] == pwd.getpwuid(os.geteuid()).pw_name

    run(story)


def test_a_user_without_a_name_is_called_by_his_number_and_root_by_his_name() -> None:
    assert (ALICE.user, ROOT.user) == ("4000001", "root")
    assert not ALICE.sees("")
    assert not ALICE.may_do_everything
    assert Peer(pid=9, uid=os.geteuid(), gid=0).may_do_everything
