"""The API's description is true, and whatever is asked, by it or against it, is answered: by no 5xx and no silence."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orchestrator.service import server
from orchestrator.service.messages import ErrorBody
from orchestrator.service.openapi import description
from orchestrator.service.routes import JSON, ROUTES, Route
from tests.unit.openapi_requests import TEXT, Made, requests
from tests.unit.service_daemon import ALICE, ROOT, daemon_on, definition, http, run

DESCRIPTION = description("1")
ROUTE_OF = {route.name: route for route in ROUTES}
NAMES = st.sampled_from(["web", "db", "new", "ghost"]) | TEXT
DEFINITIONS = [definition("web"), definition("new", "shared"), definition("new", vcpus=99)]
TEXTS = st.sampled_from([*DEFINITIONS, "/g", "new"]) | TEXT
LIMIT = 60.0


def test_it_is_served_to_everybody_and_names_all_there_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            status, body = await http(daemon.path, "GET /v1/openapi.json")
        assert status == 200
        told = json.loads(body)
        info = {**DESCRIPTION["info"], "version": "0"}
        assert told == json.loads(json.dumps({**DESCRIPTION, "info": info}))
        assert told["openapi"] == "3.1.0"
        served = {(path, method) for path, methods in told["paths"].items() for method in methods}
        assert served == {(route.path, route.method.lower()) for route in ROUTES}
        assert len({route.name for route in ROUTES}) == len(ROUTES)

    run(story)


def test_every_reference_leads_somewhere_and_every_refusal_is_described() -> None:
    text = json.dumps(DESCRIPTION)
    names = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(DESCRIPTION["components"]["schemas"])
    assert {"GuestDetails", "StartRequest", "ErrorBody"} <= names
    for methods in DESCRIPTION["paths"].values():
        for operation in methods.values():
            assert {"400", "403", "404", "409", "413", "429", "500"} < set(operation["responses"])


def checked(made: Made, status: int, body: bytes) -> None:
    """What came is no 5xx, and is what the description says of it."""
    told = made.line, made.body[:200], status, body[:500]
    assert status < 500, told
    route = ROUTE_OF[made.operation["operationId"]]
    if status == 200:
        _checked_answer(route, body)
        return
    error = msgspec.json.decode(body, type=ErrorBody)
    assert error.lines, told
    # A name may lead past every route, as '..' and '' do: then it is no guest's.
    assert str(status) in made.operation["responses"] or status == 405, told


def _checked_answer(route: Route, body: bytes) -> None:
    if route.media == JSON and route.answers:
        value = json.loads(body)
        assert any(_is(value, kind) for kind in route.answers), (route.name, value)


def _is(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


# What fails is one request, which the message names: to look for a shorter story costs a daemon for each try.
@settings(deadline=None, max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(requests(DESCRIPTION, NAMES, TEXTS), min_size=8, max_size=16), st.sampled_from([ALICE, ROOT]))
def test_whatever_is_asked_is_answered(asked: list[Made], caller: Any) -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with daemon_on(Path(directory)) as daemon:
                daemon.caller = caller
                await daemon.start(definition("web"), definition("db", "shared"))
                for made in asked:
                    if ("/events" in made.target or "/log" in made.target) and "follow=1" in made.target:
                        continue  # which has no end
                    async with asyncio.timeout(LIMIT):
                        checked(made, *await http(daemon.path, made.line, made.body))
                assert daemon.log == []

    run(story)


def test_the_check_finds_a_5xx_an_undescribed_status_and_a_wrong_answer() -> None:
    (operation,) = DESCRIPTION["paths"]["/v1/cores"].values()
    made = Made("GET", "/v1/cores", b"", operation)
    error = msgspec.json.encode(ErrorBody("usage", ("no",), 2))
    checked(made, 400, error)
    for status, body in ((500, error), (418, error), (200, b'{"cores": [{"id": "x"}]}')):
        with pytest.raises(AssertionError):
            checked(made, status, body)


MALFORMED = [
    b"\r\n\r\n\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v1/guests\r\n\r\n",
    b"GET /v1/guests HTTP/9.9\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/gue\x00sts HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/guests HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /v1/guests HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    b"POST /v1/guests HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/guests HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"POST /v1/guests HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST /v1/guests HTTP/1.0\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


def test_what_is_no_http_is_hung_up_on_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE", 0.2)

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE

            async def say(noise: bytes) -> bytes:
                reader, writer = await asyncio.open_unix_connection(str(daemon.path))
                writer.write(noise)
                answer = await reader.read()
                writer.close()
                return answer

            async with asyncio.timeout(LIMIT):
                answers = await asyncio.gather(*map(say, MALFORMED), return_exceptions=True)
            for noise, answer in zip(MALFORMED, answers, strict=True):
                if isinstance(answer, bytes) and answer:
                    assert answer.split()[1] in (b"200", b"400", b"404", b"405"), (noise[:60], answer[:200])
                else:
                    assert isinstance(answer, bytes | ConnectionError)
            assert (await http(daemon.path, "GET /v1/guests"))[0] == 200
            assert daemon.log == []

    run(story)
    assert capfd.readouterr() == ("", ""), "nobody writes to the daemon's log by talking nonsense"


def test_who_is_slow_is_hung_up_on_and_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE", 0.2)

    async def story() -> None:
        async with daemon_on(tmp_path) as daemon:
            daemon.caller = ALICE
            slow = [await asyncio.open_unix_connection(str(daemon.path)) for _ in range(20)]
            for number, (_, writer) in enumerate(slow):
                writer.write(b"GET /v1/guests HTTP/1.1\r\nHost: x\r\nX-Slow: "[: number * 3])
            assert (await http(daemon.path, "GET /v1/guests"))[0] == 200
            async with asyncio.timeout(LIMIT):
                assert [await reader.read() for reader, _ in slow] == [b""] * 20
            for _, writer in slow:
                writer.close()

    run(story)
