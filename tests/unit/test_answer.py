"""Who waits for an answer goes on when it comes, and not a round of the event loop later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.answer import Answer
from orchestrator.errors import FailedError


async def beside(act: Callable[[], None]) -> None:
    """Do something as the event loop would, outside any task, and return when what came of it has been done."""
    asyncio.get_running_loop().call_soon(act)
    await asyncio.sleep(0.001)


def test_who_waits_goes_on_in_the_call_that_brings_the_answer() -> None:
    heard: list[str] = []

    async def story() -> None:
        answer = Answer(asyncio.get_running_loop())

        async def wait() -> None:
            await answer
            heard.append("answer")

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)

        def brings() -> None:
            answer.settle()
            heard.append("brought")

        await beside(brings)
        await waiting
        await answer  # it stays answered

    asyncio.run(story())
    assert heard == ["answer", "brought"]


def test_tasks_do_not_go_on_inside_one_another() -> None:
    heard: list[str] = []

    async def story() -> None:
        answer = Answer(asyncio.get_running_loop())

        async def wait() -> None:
            await answer
            heard.append("answer")

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        answer.settle()
        heard.append("brought")
        await waiting

    asyncio.run(story())
    assert heard == ["brought", "answer"]


def test_an_error_is_raised_where_it_is_waited_for_and_the_first_answer_counts() -> None:
    async def story() -> None:
        answer = Answer(asyncio.get_running_loop())
        answer.settle(FailedError("no"))
        answer.settle()
        assert answer.done()
        for _ in range(2):
            with pytest.raises(FailedError, match="no"):
                await answer
        with pytest.raises(asyncio.InvalidStateError):
            Answer(asyncio.get_running_loop()).result()

    asyncio.run(story())


def test_who_waits_may_give_up_and_an_answer_that_comes_then_is_no_matter() -> None:
    async def wait(answer: Answer) -> None:
        await answer

    async def story() -> None:
        loop = asyncio.get_running_loop()
        answer = Answer(loop)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(answer), 0.001)
        await beside(answer.settle)
        assert not answer.cancel()
        given_up = asyncio.create_task(wait(Answer(loop)))
        await asyncio.sleep(0)
        given_up.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await given_up

    asyncio.run(story())
