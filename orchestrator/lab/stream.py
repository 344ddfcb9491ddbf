"""The end mark in the lab's output: how one byte stream also carries the command's exit code. Pure."""

from __future__ import annotations

import re


class EndMark:
    """Passes a stream on until a secret mark, which a decimal exit code and a line feed follow.

    Output and exit code share one channel, so their order is certain: once the code is known, every byte
    that the command wrote has been passed on. The mark is random and nobody inside the lab sees it, so no
    command can print it by chance.
    """

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self._trailer = re.compile(re.escape(mark) + rb"(\d+)\n")
        self._held = b""
        self.code: int | None = None
        """The exit code, once the trailer has been seen whole."""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return what is surely output; O(len(data)).

        Only a tail that could be the beginning of the trailer is held back until more arrives.
        """
        if self.code is not None:
            return b""
        data = self._held + data
        found = self._trailer.search(data)
        if found is not None:
            self.code, self._held = int(found[1]), b""
            return data[: found.start()]
        start = self._possible_start(data)
        self._held = data[start:]
        return data[:start]

    def rest(self) -> bytes:
        """Return what is held back: it is output after all, since the stream has ended."""
        held, self._held = self._held, b""
        return held

    def _possible_start(self, data: bytes) -> int:
        """Return where a trailer that is still incomplete may begin, else ``len(data)``."""
        whole = data.find(self.mark)
        if whole >= 0:
            return whole
        start = max(0, len(data) - len(self.mark) + 1)
        while (start := data.find(self.mark[:1], start)) >= 0:
            if self.mark.startswith(data[start:]):
                return start
            start += 1
        return len(data)
