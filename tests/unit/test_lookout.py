"""While an answer may come any moment the event loop does not rest; after that it does, whether it came or not."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

from orchestrator.shortcut import Lookout


class CountingSelector(selectors.DefaultSelector):
    """Counts the rounds of an event loop: each asks once what is new."""

    rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.rounds += 1
        return super().select(timeout)


def rounds(act: Callable[[Lookout], object]) -> int:
    """Return how often the event loop went round within 20 ms; by itself it does so a few times."""
    selector = CountingSelector()

    async def story() -> None:
        act(Lookout())
        await asyncio.sleep(0.02)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(story())
    return selector.rounds


def twice(lookout: Lookout) -> None:
    lookout.begin()
    lookout.begin()


def answered(lookout: Lookout) -> None:
    twice(lookout)
    lookout.end()
    lookout.end()


def test_the_loop_goes_round_while_an_answer_is_looked_out_for_and_no_longer() -> None:
    idle, busy, done = rounds(lambda _: None), rounds(twice), rounds(answered)
    assert busy > done
    assert done <= idle + 2


def test_an_answer_that_never_comes_is_not_looked_out_for_for_ever() -> None:
    async def story() -> float:
        Lookout().begin()
        before = time.process_time()
        await asyncio.sleep(0.1)
        return time.process_time() - before

    assert asyncio.run(story()) < 0.05
