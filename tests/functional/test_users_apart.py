"""What is one user's is his alone: everything that can be asked is asked by another, as whom the kernel says he is."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from orchestrator.service.routes import ROUTES
from tests.fakes.payloads import FakePayloads
from tests.functional.served import Served
from tests.functional.test_users import all_asked, asked, guest, home_of, run
from tests.users import ALICE, BOB, Request, starting

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users, and mount")

NAMED = {"name": "web", "snapshot": "one", "kind": "template"}
BODIES: dict[str, Any] = {
    "move": {"cores": [5]},
    "resize": {"vcpus": 2},
    "inspect": {"instructions": 4, "address": 4096, "length": 64},
    "debug": {},
    "clone": {"names": ["mine"], "staged": True},
    "save": {"name": "taken"},
    "snapshot": {"name": "taken"},
    "template": {"name": "taken"},
    "payload-remove": {"reference": "web"},
    "payload-verify": {"reference": "web"},
}
HIDDEN = {"revert", "clone", "restore", "state-remove", "payload-verify", "payload-remove"}
"""What is asked of a thing that does not exist for others; of all else it is said that it is not theirs."""

OWN = {
    *("start", "guests", "cores", "events", "states", "payloads", "payload-add", "payload-shares", "openapi"),
    *("overview", "metrics"),
}
"""What anybody may ask, and tells each only of what is his own."""

ROOTS = {"policy", "gc", "payload-gc"}
"""What is not for users at all."""


def requests(name: str) -> dict[str, Request]:
    """Return everything that can be asked of things of this name, by the route's."""
    found = {}
    for route in ROUTES:
        if route.name not in OWN | ROOTS:
            path = route.path.format(**{**NAMED, "name": name})
            body = BODIES.get(route.name)
            if body is not None and "reference" in body:
                body = {"reference": name}
            found[route.name] = (route.method, path, body)
    return found


async def alices(daemon: Served) -> None:
    """Let alice have a guest, a snapshot, a template, a saved guest and a payload, all called web but for the last."""
    home = home_of(daemon, ALICE)
    assert isinstance(daemon.engine.payloads, FakePayloads)
    daemon.engine.payloads.sources[f"{home}/mine"] = b"a payload"
    for request in (
        starting(guest("web"), home),
        starting(guest("once"), home),
        ("POST", "/v1/guests/web/snapshots", {"name": "one"}),
        ("POST", "/v1/guests/web/template", {"name": "web"}),
        ("POST", "/v1/guests/once/save", {"name": "web"}),
        ("POST", "/v1/payloads", {"path": f"{home}/mine", "name": "web"}),
    ):
        answer = await asked(daemon, ALICE, *request)
        assert answer.status == 200, (request, answer)


def test_all_that_can_be_asked_is_tried() -> None:
    assert set(requests("web")) | OWN | ROOTS == {route.name for route in ROUTES}
    assert set(BODIES) | HIDDEN <= set(requests("web"))


def test_nobody_touches_what_is_anothers_whatever_he_asks() -> None:
    async def story(daemon: Served) -> None:
        await alices(daemon)
        before, trace = dict(daemon.host.disk), list(daemon.host.trace)
        tried, absent = requests("web"), requests("wob")
        answers = await all_asked(daemon, BOB, list(tried.values()))
        others = await all_asked(daemon, BOB, list(absent.values()))
        for name, answer, other in zip(tried, answers, others, strict=True):
            if name in HIDDEN:
                assert answer.status in (400, 404), (name, answer)
                told = [line.replace("web", "wob") for line in answer.body["lines"]]
                assert told == other.body["lines"], f"{name}: it can be told from one that is not there"
            else:
                assert (answer.status, answer.body["error"]) == (403, "forbidden"), (name, answer)
                assert other.status == 404, (name, other)
        home = home_of(daemon, BOB)
        for request in (
            starting(guest(), home),
            ("GET", "/v1/guests?user=4000001", None),
            ("POST", "/v1/guests/web/stop?user=root", None),
            ("POST", "/v1/states/template/web/clone?user=4000001", {}),
            ("POST", "/v1/policy", {"file": "p.toml", "policy": {}}),
            ("POST", "/v1/gc", None),
            ("POST", "/v1/payloads/gc", None),
        ):
            answer = await asked(daemon, BOB, *request)
            assert (answer.status, answer.body["exit_code"]) in ((403, 3), (409, 3)), (request, answer)
        assert (daemon.host.disk, daemon.host.trace) == (before, trace), "nothing was done"

    run(story)


def test_everybody_is_told_of_what_is_his_own_alone() -> None:
    async def story(daemon: Served) -> None:
        await alices(daemon)
        told = [
            (await asked(daemon, BOB, "GET", f"/v1/{what}")).body
            for what in ("guests", "events", "states/template", "states/saved", "states/snapshot", "payloads/shares")
        ]
        assert told == [{"guests": []}, "", {"states": []}, {"states": []}, {"states": []}, {"shares": []}]
        assert (await asked(daemon, BOB, "GET", "/v1/payloads")).body["payloads"] == []
        cores = (await asked(daemon, BOB, "GET", "/v1/cores")).body["cores"]
        assert {core["holder"] for core in cores} == {None}
        assert any(core["held"] for core in cores), "that a core is taken is no secret"
        overview = (await asked(daemon, BOB, "GET", "/v1/overview")).body
        assert (overview["guests"], {core["holder"] for core in overview["cores"]}) == ([], {None})
        metrics = str((await asked(daemon, BOB, "GET", "/metrics")).body)
        for text in (json.dumps(overview), metrics):
            assert "web" not in text
            assert str(ALICE) not in text
        assert 'guest="web"' in str((await asked(daemon, ALICE, "GET", "/metrics")).body)
        assert (await asked(daemon, ALICE, "GET", "/v1/guests/web")).body["state"] == "running"

    run(story)
