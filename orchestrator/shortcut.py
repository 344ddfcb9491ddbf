"""The commands of a hand-over on a QMP connection that somebody else reads and writes, too: theirs is a short cut.

What a library does for each command, with tasks and queues of its own, takes longer than QEMU needs to stop or continue
a guest. It takes no socket here: bytes come from the protocol's transport, and go to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from orchestrator.answer import Answer
from orchestrator.core.qmplines import Conversation
from orchestrator.errors import FailedError, OutcomeUnknownError

ANSWER_LIMIT = 30.0
"""Seconds in which QEMU must answer a command."""

_EAGER = 0.0005
"""Seconds for which an answer is looked out for: QEMU takes less, and a core that went to sleep is slow to wake up."""


class Lookout:
    """Has the event loop go round without a rest for as long as an answer may come any moment; one for all monitors."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._awaited = 0
        self._until = 0.0
        self._goes_round = False

    def begin(self) -> None:
        """Look out for one answer more."""
        self._awaited += 1
        self._until = self.loop.time() + _EAGER
        if not self._goes_round:
            self._go_round()

    def end(self) -> None:
        """Look out for one answer less."""
        self._awaited -= 1

    def _go_round(self) -> None:
        self._goes_round = self._awaited > 0 and self.loop.time() < self._until
        if self._goes_round:
            self.loop.call_soon(self._go_round)


class ShortCut(asyncio.Protocol):
    """Gives commands and takes their answers out of what is received; all else goes to the protocol behind it.

    All but events that nobody hears: `heard` are the others.
    """

    def __init__(
        self,
        socket: str,
        transport: asyncio.WriteTransport,
        behind: asyncio.Protocol,
        lookout: Lookout,
        heard: Iterable[str],
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._behind = behind
        self._conversation = Conversation(heard)
        self._awaited: dict[str, tuple[str, Answer, asyncio.TimerHandle]] = {}
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._lookout = lookout

    def ask(self, command: str) -> Answer:
        """Give a command at once; what is returned is done when QEMU has answered.

        FailedError if it has failed, OutcomeUnknownError if no answer came in time.
        """
        answered = Answer(self._loop)
        if self._over or self._transport.is_closing():
            answered.settle(self._failure(command, "QEMU has hung up"))
        else:
            name, line = self._conversation.ask(command)
            self._transport.write(line)
            self._awaited[name] = command, answered, self._loop.call_later(ANSWER_LIMIT, self._late, name)
            self._lookout.begin()
        return answered

    def data_received(self, data: bytes) -> None:
        """Tell who waits of the answers to ours, and the protocol behind of the rest."""
        answers, rest = self._conversation.hear(data)
        for name, error in answers:
            command, answered, limit = self._awaited.pop(name)
            limit.cancel()
            self._lookout.end()
            answered.settle(None if error is None else self._failure(command, error))
        if rest:
            self._behind.data_received(rest)

    def eof_received(self) -> bool | None:
        """Tell everybody that QEMU has hung up."""
        self._end()
        return self._behind.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody that the connection is no more."""
        self._end()
        self._behind.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that QEMU does not read: what the library has to say can wait."""
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that QEMU reads again."""
        self._behind.resume_writing()

    def _end(self) -> None:
        self._over = True
        awaited, self._awaited = self._awaited, {}
        for command, answered, limit in awaited.values():
            limit.cancel()
            self._lookout.end()
            answered.settle(self._failure(command, "QEMU has hung up"))

    def _late(self, name: str) -> None:
        command, answered, _ = self._awaited[name]
        answered.settle(unknown(self._socket, command))

    def _failure(self, command: str, why: str) -> FailedError:
        return FailedError(f"{self._socket}: {command!r} failed: {why}")


def unknown(socket: str, command: str) -> OutcomeUnknownError:
    """Return the error for a command to which no answer came in time."""
    return OutcomeUnknownError(
        f"{socket}: no answer to {command!r} within {ANSWER_LIMIT:g} s; the guest may or may not obey"
    )
