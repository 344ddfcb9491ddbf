"""The daemon's API through a real socket: every route, every family of errors, and defects that cost one request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import (
    FailedError,
    HostError,
    OrchestratorError,
    OutcomeUnknownError,
    PinMismatchError,
    RefusedError,
    ReservedCoreError,
    UsageError,
)
from orchestrator.service.callers import Peer
from orchestrator.service.desk import Desk
from orchestrator.service.messages import MOST_BODY, ForbiddenError, NoSuchGuestError, decode_error, encode_error
from orchestrator.service.views import CoreView
from tests.fakes.host import Faults
from tests.unit.service_daemon import Daemon, SlowEngine, daemon_on, definition, http, run


def test_a_guest_is_started_shown_explained_stopped_and_removed(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            started = await daemon.start(definition())
            assert [(guest["name"], guest["state"], guest["cores"]) for guest in started["guests"]] == [
                ("web", "running", [2])
            ]
            assert started["accelerators"]["x86_64"] == {"accelerator": "tcg", "why": "the test says so"}
            assert await daemon.client.guests() == started["guests"]
            daemon.host.prints("web", b"heartbeat 1\n")
            daemon.engine.look()
            details = await daemon.client.guest("web")
            assert (details["heartbeats"], details["last_line"], details["on_reserved"]) == (1, "heartbeat 1", 0)
            assert details["specification"]["boot"]["payload"] == "/g/guest.elf"
            told = await daemon.client.explain("web")
            assert (told["state"], told["cores"], told["until"]) == ("running", [2], None)
            assert told["reasons"] == ["it is exclusive: cores 2 are its own from start to stop"]
            holders = {core["id"]: (core["role"], core["holder"], core["held"]) for core in await daemon.client.cores()}
            assert holders[0] == ("scheduler", None, False)
            assert holders[2] == ("pool", "web", True)
            await daemon.client.act("stop", "web")
            await daemon.client.act("stop", "web")  # fine if it has ended
            await daemon.client.act("kill", "web")
            assert (await daemon.client.guest("web"))["ended"] == "stopped"
            assert (await daemon.client.explain("web"))["reasons"] == ["it has ended: stopped"]
            assert daemon.host.domains == {}
            await daemon.client.remove("web")
            assert await daemon.client.guests() == []

    run(story)


def test_a_guest_is_paused_resumed_restarted_and_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            await daemon.client.act("pause", "web")
            assert (await daemon.client.explain("web"))["state"] == "paused"
            await daemon.client.act("resume", "web")
            assert (await daemon.client.explain("web"))["state"] == "running"
            first = (await daemon.client.guest("web"))["pid"]
            await daemon.client.act("restart", "web")
            again = await daemon.client.guest("web")
            assert again["state"] == "running"
            assert again["pid"] not in (None, first)
            await daemon.client.act("kill", "web")
            assert (await daemon.client.guest("web"))["ended"] == "killed"
            await daemon.client.act("restart", "web")  # also one that has ended
            assert await daemon.shown() == {"web": "running"}
            assert [line for line in daemon.host.trace if line.startswith("kill")] == ["kill web"]

    run(story)


def test_several_definitions_are_started_together_or_not_at_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            with pytest.raises(RefusedError, match="nothing was started") as refused:
                await daemon.start(definition("a"), definition("b"), count=4)
            assert refused.value.exit_code == 3
            assert await daemon.shown() == {}
            await daemon.start(definition("a"), definition("b"), count=2)
            assert set(await daemon.shown()) == {"a-1", "a-2", "b-1", "b-2"}

    run(story)


def test_why_a_shared_guest_waits_is_told_with_who_is_before_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, cpus="0-2") as daemon:
            await daemon.start(definition("a", "shared"), definition("b", "shared"))
            told = [await daemon.client.explain(name) for name in ("a", "b")]
            assert sorted(each["state"] for each in told) == ["running", "waiting"]
            waiting = next(each for each in told if each["state"] == "waiting")
            assert waiting["reasons"]

    run(story)


FAULTS: dict[str, tuple[Faults, type[OrchestratorError], str]] = {
    "failed": (Faults(start=["web"]), FailedError, "the guest does not start: web was told to fail"),
    "unknown": (
        Faults(no_process=["web"], cannot_be_removed=["web"]),
        OutcomeUnknownError,
        "what is left could not be cleared away",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_at_the_host_comes_out_of_the_client_as_it_was(tmp_path: Path, fault: str) -> None:
    faults, family, line = FAULTS[fault]

    async def story() -> None:
        async with daemon_on(tmp_path, faults) as daemon:
            with pytest.raises(family, match=line) as raised:
                await daemon.start(definition())
            assert raised.value.exit_code == family.exit_code
            assert daemon.log == []

    run(story)


def test_what_only_the_host_lacks_is_told_as_that(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.definitions.failure = HostError("no QEMU here")
            with pytest.raises(HostError, match=r"^no QEMU here$"):
                await daemon.start(definition())

    run(story)


def test_every_fault_of_every_definition_is_told_on_a_line_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            with pytest.raises(UsageError) as raised:
                await daemon.start(definition(vcpus=0), definition("b"), definition("C") + "colour = 1\n")
            starts = [line.partition(": ")[0] for line in raised.value.lines()]
            assert starts == ["0.toml:3", "2.toml:1", "2.toml:8"]
            assert raised.value.exit_code == 2

    run(story)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("u"),
        NoSuchGuestError("n"),
        RefusedError("r"),
        ForbiddenError("f"),
        HostError("h"),
        FailedError("a"),
        OutcomeUnknownError("o"),
        OrchestratorError("e"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_each_family_travels_as_itself(error: OrchestratorError) -> None:
    status, body = encode_error(error)
    told = decode_error(body)
    assert type(told) is type(error)
    assert (told.lines(), told.exit_code, status) == (error.lines(), body.exit_code, status)
    assert 400 <= status < 600


def test_a_family_within_a_family_travels_as_the_one_that_is_known() -> None:
    for error, family in ((PinMismatchError("p"), FailedError), (ReservedCoreError("c", [0]), RefusedError)):
        assert type(decode_error(encode_error(error)[1])) is family


ABSENT: dict[str, Callable[[Daemon], Awaitable[object]]] = {
    "show": lambda daemon: daemon.client.guest("ghost"),
    "explain": lambda daemon: daemon.client.explain("ghost"),
    "rm": lambda daemon: daemon.client.remove("ghost"),
    **{
        word: lambda daemon, word=word: daemon.client.act(word, "ghost")  # type: ignore[misc]
        for word in ("stop", "kill", "pause", "resume", "restart")
    },
}


def test_a_guest_that_is_not_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            for what, ask in ABSENT.items():
                with pytest.raises(NoSuchGuestError) as raised:
                    await ask(daemon)
                line = "ghost: there is no such guest; `orchestrator ps` lists those that are"
                assert raised.value.lines() == (line,), what

    run(story)


def test_what_a_guests_state_forbids_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            await daemon.start(definition())
            with pytest.raises(RefusedError, match="web: is running; `orchestrator stop web` first"):
                await daemon.client.remove("web")
            with pytest.raises(RefusedError):
                await daemon.start(definition())
            await daemon.client.act("stop", "web")
            for word in ("pause", "resume"):
                with pytest.raises(RefusedError, match=r"web: has ended \(stopped\)"):
                    await daemon.client.act(word, "web")

    run(story)


def test_two_who_want_the_last_core_at_the_same_time_get_one_guest_and_one_refusal(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, cpus="0-2") as daemon:
            outcomes = await asyncio.gather(
                daemon.start(definition("a")), daemon.start(definition("b")), return_exceptions=True
            )
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RefusedError", "dict"]
            assert len(await daemon.shown()) == 1

    run(story)


async def starting(daemon: Daemon) -> asyncio.Task[Any]:
    """Begin a start, and return when it is known; it goes on once the gate is open."""
    task = asyncio.create_task(daemon.start(definition()))
    while await daemon.shown() != {"web": "starting"}:
        assert not task.done()
    return task


def open_gate(daemon: Daemon) -> None:
    assert isinstance(daemon.engine, SlowEngine)
    daemon.engine.gate.set()


def test_a_name_that_is_being_started_is_refused_until_it_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, engine_type=SlowEngine) as daemon:
            first = await starting(daemon)
            for again in (daemon.start(definition()), daemon.client.act("stop", "web"), daemon.client.remove("web")):
                with pytest.raises(RefusedError, match="web: is being started"):
                    await again
            open_gate(daemon)
            assert (await first)["guests"][0]["state"] == "running"

    run(story)


def test_who_waits_too_long_is_told_so_and_the_act_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, engine_type=SlowEngine, limit=0.0) as daemon:
            with pytest.raises(OutcomeUnknownError, match="web: start is still under way after 0 s"):
                await daemon.start(definition())
            open_gate(daemon)
            await daemon.desk.finish(10)
            assert await daemon.shown() == {"web": "running"}

    run(story)


def test_what_a_caller_set_going_goes_on_when_he_leaves(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, engine_type=SlowEngine) as daemon:
            leaving = await starting(daemon)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            assert await daemon.shown() == {"web": "starting"}
            open_gate(daemon)
            await daemon.desk.finish(10)
            assert await daemon.shown() == {"web": "running"}

    run(story)


class BrokenDesk(Desk):
    def cores(self, peer: Peer) -> tuple[CoreView, ...]:
        raise ZeroDivisionError(f"no core for {peer.uid}")


def test_a_defect_costs_one_request_and_is_logged_in_a_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path, desk=BrokenDesk) as daemon:
            await daemon.start(definition())
            line = "a defect in orchestrator: GET /v1/cores: ZeroDivisionError: no core for 0"
            status, body = await http(daemon.path, "GET /v1/cores")
            assert (status, json.loads(body)) == (500, {"error": "defect", "lines": [line], "exit_code": 1})
            with pytest.raises(OrchestratorError) as raised:
                await daemon.client.cores()
            assert (raised.value.lines(), raised.value.exit_code) == ((line,), 1)
            assert daemon.log == [line, line]
            assert await daemon.shown() == {"web": "running"}

    run(story)


NONSENSE: list[tuple[str, bytes, int, str]] = [
    ("GET /v1/nothing", b"", 404, "GET /v1/nothing: Not Found"),
    ("GET /", b"", 404, "GET /: Not Found"),
    ("PUT /v1/guests", b"", 405, "PUT /v1/guests: Method Not Allowed"),
    ("POST /v1/guests", b"", 400, "the request's body is not valid: "),
    ("POST /v1/guests", b"[]", 400, "the request's body is not valid: "),
    ("POST /v1/guests", b'{"definitions": [], "colour": 1}', 400, "the request's body is not valid: "),
    ("POST /v1/guests", b'{"definitions": []}', 400, "start: name 1 to 1000 guests at once"),
    ("POST /v1/guests", b'{"definitions": [], "count": -1}', 400, "start: name 1 to 1000 guests at once"),
    ("POST /v1/guests", b"x" * (MOST_BODY + 1), 413, "POST /v1/guests: "),
    ("GET /v1/events?since=-1", b"", 400, "since='-1' is not possible"),
    ("GET /v1/events?since=%D9%A3", b"", 400, "since="),
    ("GET /v1/guests/%2e%2e%2fguests", b"", 404, "../guests: there is no such guest"),
    ("DELETE /v1/guests/a%00b", b"", 404, "a\0b: there is no such guest"),
]


def test_nonsense_is_answered_in_a_line_and_is_no_defect(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            for request, body, status, line in NONSENSE:
                got, content = await http(daemon.path, request, body)
                told = json.loads(content)
                assert (got, told["exit_code"]) == (status, 2), request
                assert told["lines"][0].startswith(line), request
            assert daemon.log == []
            assert await daemon.shown() == {}

    run(story)
