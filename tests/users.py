"""Users that no host has, as processes: each asks the daemon over its socket, as whoever the kernel says he is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ALICE, BOB = 4_000_001, 4_000_002

_PYTHON = "/usr/bin/python3"  # the system's: what the tests run in may lie where others cannot go
_ASK = """
import http.client, json, socket, sys, threading
path, limit, requests = json.load(sys.stdin)
answers = [None] * len(requests)
gate = threading.Barrier(len(requests))
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(limit)
        self.sock.connect(path)
def ask(number, method, target, body):
    gate.wait()
    connection = Connection("x", timeout=limit)
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        answers[number] = [answer.status, answer.read().decode()]
    except Exception as error:
        answers[number] = [0, f"{type(error).__name__}: {error}"]
    connection.close()
threads = [threading.Thread(target=ask, args=(number, *each)) for number, each in enumerate(requests)]
for thread in threads: thread.start()
for thread in threads: thread.join()
json.dump(answers, sys.stdout)
"""


class Answer(NamedTuple):
    """A status, 0 if there was none, and what came with it: of JSON the value, else the text."""

    status: int
    body: Any


Request = tuple[str, str, Any]
"""Method, path, and body (None: none)."""


@dataclass
class Asking:
    """A user who asks, all at once; his process goes on until `answers` has been called."""

    process: subprocess.Popen[str]

    def answers(self, limit: float) -> list[Answer]:
        out, err = self.process.communicate(timeout=limit)
        assert self.process.returncode == 0, err
        return [Answer(status, _value(text)) for status, text in json.loads(out)]


def ask(uid: int, socket: Path, requests: Sequence[Request], limit: float = 120.0) -> Asking:
    """Have a user make all these requests at the same moment, each on a connection of its own."""
    process = subprocess.Popen(
        [_PYTHON, "-I", "-S", "-c", _ASK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={},
        user=uid,
        group=uid,
        extra_groups=[],
    )
    assert process.stdin is not None
    with process.stdin as told:  # at its end they are made, whether anybody waits for answers yet or not
        told.write(json.dumps([str(socket), limit, [list(each) for each in requests]]))
    process.stdin = None
    return Asking(process)


def one(uid: int, socket: Path, method: str, path: str, body: Any = None) -> Answer:
    """Have a user make one request."""
    (answer,) = ask(uid, socket, [(method, path, body)]).answers(180)
    return answer


def starting(text: str, directory: Path | str, count: int = 1) -> Request:
    """Return the request that starts guests of a definition."""
    definition = {"text": text, "file": "guest.toml", "directory": str(directory)}
    return "POST", "/v1/guests", {"definitions": [definition], "count": count}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
