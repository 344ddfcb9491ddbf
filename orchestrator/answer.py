"""An answer that is waited for: whoever does goes on in the very call that brings it, not in the loop's next round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class Answer:
    """What a task awaits, as it would a future without a value. asyncio lets other classes than its own be that.

    A future has its waiter go on in the next round of the event loop, after it has asked the kernel once more for what
    else is new. That takes a good part of what a hand-over does.
    """

    _asyncio_future_blocking = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done = False
        self._error: BaseException | None = None
        self._waiting: list[tuple[Callable[[Any], object], Context | None]] = []

    def settle(self, error: Exception | None = None) -> None:
        """Give the answer, an error if it is one; fine if nobody waits any more."""
        if not self._done:
            self._finish(error, at_once=asyncio.current_task(self._loop) is None)

    def done(self) -> bool:
        """Whether it was answered, or given up."""
        return self._done

    def result(self) -> None:
        """Return if the answer is there and no error; else raise it."""
        if not self._done:
            raise asyncio.InvalidStateError("not answered yet")
        if self._error is not None:
            raise self._error

    def cancel(self, msg: object = None) -> bool:
        """Wait no longer; False if the answer is there."""
        if self._done:
            return False
        self._finish(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg), at_once=False)
        return True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop to which it belongs."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Have this called with the answer when it is there."""
        if self._done:
            self._loop.call_soon(callback, self, context=context)
        else:
            self._waiting.append((callback, context))

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it was answered; return, or raise what was the answer."""
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    def _finish(self, error: BaseException | None, *, at_once: bool) -> None:
        """At once only where no task is at work: tasks do not go on inside one another."""
        self._done, self._error = True, error
        waiting, self._waiting = self._waiting, []
        for callback, context in waiting:
            if at_once and context is not None:
                context.run(callback, self)
            else:
                self._loop.call_soon(callback, self, context=context)
