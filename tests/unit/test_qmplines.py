"""Answers are told from everything else, wherever the kernel cuts what QEMU says."""

from __future__ import annotations

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.qmplines import Answer, Conversation

EVENT = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "%b"}\r\n'
SHUTDOWN = b'{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": false, "reason": "turn-1"}}\r\n'
OTHERS = b'{"return": {"status": "running"}, "id": "__qmp#00007"}\r\n'
HEARD = ("SHUTDOWN", "RESET")
DONE = b'{"return": {}, "id": "turn-%d"}\r\n'


class ForgetsBeginnings(Conversation):
    """The flaw: what is received is taken for whole lines."""

    def hear(self, received: bytes) -> tuple[list[Answer], bytes]:
        self._unfinished = b""
        return super().hear(received)


def heard(conversation: Conversation, text: bytes, cuts: list[int]) -> tuple[list[Answer], bytes]:
    answers: list[Answer] = []
    rest = b""
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        found, other = conversation.hear(text[start:end])
        answers += found
        rest += other
    return answers, rest


def test_a_command_is_a_line_with_an_id_of_its_own() -> None:
    conversation = Conversation(HEARD)
    for number in (1, 2):
        name, line = conversation.ask("stop")
        assert name == f"turn-{number}"
        assert line.endswith(b"\n")
        assert json.loads(line) == {"execute": "stop", "id": name}


STORY = (
    EVENT % b"STOP"
    + DONE % 1
    + SHUTDOWN
    + OTHERS
    + EVENT % b"RESUME"
    + b'{"id": "turn-2", "error": {"desc": "no"}}\r\n'
)
TOLD = [Answer("turn-1", None), Answer("turn-2", "no")], SHUTDOWN + OTHERS


def after_two(kind: type[Conversation] = Conversation) -> Conversation:
    conversation = kind(HEARD)
    conversation.ask("stop")
    conversation.ask("cont")
    return conversation


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_answers_are_found_and_the_rest_is_passed_on_whatever_the_cuts(cuts: list[int]) -> None:
    assert heard(after_two(), STORY, cuts) == TOLD


def test_a_conversation_that_forgets_beginnings_is_noticed() -> None:
    assert heard(after_two(ForgetsBeginnings), STORY, []) == TOLD
    assert heard(after_two(ForgetsBeginnings), STORY, [len(EVENT) + 5]) != TOLD


def test_what_nobody_asked_and_what_only_looks_like_an_answer_is_passed_on() -> None:
    lines = DONE % 9 + b'"turn-1"\n' + b'{"id": "turn-1"}\n' + b'{"return": {}, "id": ["turn-1"]}\n' + b'{"turn-1"\n'
    assert after_two().hear(lines) == ([], lines)
    conversation = after_two()
    assert conversation.hear(DONE % 1) == ([Answer("turn-1", None)], b"")
    assert conversation.hear(DONE % 1) == ([], DONE % 1)  # once is enough


def test_turns_written_in_another_way_are_the_librarys_to_drop() -> None:
    line = b'{"event":"STOP"}\n'
    assert after_two().hear(line) == ([], line)


def test_events_that_nobody_hears_are_dropped_unread_and_only_they() -> None:
    loaded = b'{"timestamp": {}, "event": "GUEST_CRASHLOADED", "data": {"action": "run"}}\r\n'
    sly = b'{"return": "x", "id": "y", "event": "GUEST_CRASHLOADED"}\r\n'
    nameless = b'{"timestamp": {}}\r\n'
    conversation = after_two()
    assert conversation.hear(loaded * 3 + EVENT % b"RESET" + loaded + DONE % 1 + sly + nameless + loaded[:40]) == (
        [Answer("turn-1", None)],
        EVENT % b"RESET" + sly,
    )
    assert conversation.hear(loaded[40:] + SHUTDOWN) == ([], SHUTDOWN)
