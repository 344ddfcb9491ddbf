"""The store in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from orchestrator.errors import HostError, UsageError
from orchestrator.ports import MOST_ENDINGS, Ending, StoredGuest


class FakeStore:
    """Remembers for as long as the test lasts; while `full` is set, the disk is."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self.full = False
        self._guests: dict[str, StoredGuest] = {}
        self._endings: list[Ending] = []
        self._accounts: dict[str, str] = {}
        self._closed = False

    def guests(self) -> Sequence[StoredGuest]:
        self._usable()
        return tuple(self._guests[name] for name in sorted(self._guests))

    def put(self, guest: StoredGuest) -> None:
        self._room(guest)
        self._guests[guest.name] = guest

    def remove(self, name: str, ending: Ending | None) -> None:
        self._room(*([] if ending is None else [ending]))
        self._guests.pop(name, None)
        if ending is not None:
            self._endings = [ending, *self._endings][:MOST_ENDINGS]

    def endings(self, owner: str | None = None, name: str | None = None) -> Sequence[Ending]:
        self._usable()
        return tuple(
            ending for ending in self._endings if owner in (None, ending.owner) and name in (None, ending.name)
        )

    def accounts(self) -> Mapping[str, str]:
        self._usable()
        return dict(self._accounts)

    def put_accounts(self, texts: Mapping[str, str]) -> None:
        self._room(texts)
        self._accounts = {key: text for key, text in (self._accounts | dict(texts)).items() if text}

    def replace_all(self, guests: Sequence[StoredGuest]) -> None:
        self._room(*guests)
        self._guests = {guest.name: guest for guest in guests}

    def close(self) -> None:
        self._closed = True

    def _usable(self) -> None:
        if self._closed:
            raise HostError("store: closed; open it again")

    def _room(self, *written: StoredGuest | Ending | Mapping[str, str]) -> None:
        self._usable()
        try:
            for each in written:
                table = each if isinstance(each, Mapping) else asdict(each)
                "".join(f"{key}{value}" for key, value in table.items()).encode()
        except UnicodeEncodeError:
            raise UsageError("store: a text for the store is not Unicode; nothing was written") from None
        if self.full:
            raise HostError("store: cannot be written: database or disk is full; make room, then try again")
