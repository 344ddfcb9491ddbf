"""The store: guests and how they ended, in SQLite. What runs is the truth; this is what a scheduler knew of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from orchestrator.errors import HostError, UsageError
from orchestrator.ports import MOST_ENDINGS, Ending, StoredGuest

SCRIPTS = (
    """
    CREATE TABLE guests (
        name TEXT PRIMARY KEY,
        uuid TEXT NOT NULL,
        owner TEXT NOT NULL,
        priority INTEGER NOT NULL,
        specification TEXT NOT NULL,
        standing TEXT NOT NULL,
        cores TEXT NOT NULL,
        started_at INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE endings (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        owner TEXT NOT NULL,
        uuid TEXT NOT NULL,
        ended_at INTEGER NOT NULL,
        how TEXT NOT NULL,
        kind TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE accounts (
        key TEXT PRIMARY KEY,
        text TEXT NOT NULL
    ) STRICT
    """,
)
"""One statement for each version of the schema, which makes it from the one before; ``user_version`` counts them."""

_GUEST = ", ".join(field.name for field in fields(StoredGuest))
_ENDING = ", ".join(field.name for field in fields(Ending))
_ACCOUNT = "key, text"
_PUT = f"INSERT OR REPLACE INTO guests ({_GUEST}) VALUES (:{_GUEST.replace(', ', ', :')})"
_END = f"INSERT INTO endings ({_ENDING}) VALUES (:{_ENDING.replace(', ', ', :')})"
_CUT = f"DELETE FROM endings WHERE number <= (SELECT max(number) FROM endings) - {MOST_ENDINGS}"

_HOST_CODES = {
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
}
"""What the machine is to blame for, not the file; see "Result and Error Codes" in SQLite's documentation."""


class SqliteStore:
    """The store in the file `path`, which is made if it is not there; its owner alone may read it.

    A commit outlives the process that made it; the last ones before a power cut may be gone, as a whole each (WAL with
    ``synchronous=NORMAL``). A file that is damaged, or no store at all, is renamed to ``PATH.corrupt-N`` and a fresh
    one made, and `notes` says so: live domains tell what it held. HostError if the file cannot be used, or was written
    by a newer version of this program. One connection: callers make one call at a time, from whatever thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: tuple[str, ...] = ()
        with self._translated("opened"):
            try:
                self._connection = _open(path)
            except sqlite3.DatabaseError as error:
                if _is_hosts_fault(error):
                    raise
                self._set_aside(str(error))
                self._connection = _open(path)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was set aside when it was opened."""
        return self._notes

    def guests(self) -> Sequence[StoredGuest]:
        """Return all guests, by name."""
        with self._translated("read"):
            rows = self._connection.execute(f"SELECT {_GUEST} FROM guests ORDER BY name").fetchall()
        return tuple(StoredGuest(**dict(row)) for row in rows)

    def put(self, guest: StoredGuest) -> None:
        """Remember a guest, in place of what was known of one of this name."""
        with self._transaction():
            self._connection.execute(_PUT, asdict(guest))

    def remove(self, name: str, ending: Ending | None) -> None:
        """Forget a guest, if it is known, and remember how it ended, if it did."""
        with self._transaction():
            self._connection.execute("DELETE FROM guests WHERE name = ?", (name,))
            if ending is not None:
                self._connection.execute(_END, asdict(ending))
                self._connection.execute(_CUT)

    def endings(self, owner: str | None = None, name: str | None = None) -> Sequence[Ending]:
        """Return how guests ended, the last one first; of one owner, of one name, if they are given."""
        query = f"SELECT {_ENDING} FROM endings WHERE ifnull(owner = ?, 1) AND ifnull(name = ?, 1) ORDER BY number DESC"
        with self._translated("read"):
            rows = self._connection.execute(query, (owner, name)).fetchall()
        return tuple(Ending(**dict(row)) for row in rows)

    def accounts(self) -> Mapping[str, str]:
        """Return the texts that were put last, by key."""
        with self._translated("read"):
            rows = self._connection.execute(f"SELECT {_ACCOUNT} FROM accounts").fetchall()
        return {row["key"]: row["text"] for row in rows}

    def put_accounts(self, texts: Mapping[str, str]) -> None:
        """Remember texts by key, all of them or none; an empty text forgets its key."""
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?)", texts.items())
            self._connection.execute("DELETE FROM accounts WHERE text = ''")

    def replace_all(self, guests: Sequence[StoredGuest]) -> None:
        """Have these guests and no others; endings stay."""
        with self._transaction():
            self._connection.execute("DELETE FROM guests")
            self._connection.executemany(_PUT, map(asdict, guests))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated("written"), _transaction(self._connection):
            yield

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise HostError(f"{self._path}: the store is closed; open it again") from None
        except sqlite3.DatabaseError as error:
            remedy = "make room or give access, then try again" if _is_hosts_fault(error) else "start anew to mend it"
            raise HostError(f"{self._path}: the store cannot be {what}: {error}; {remedy}") from None
        except UnicodeEncodeError:
            raise UsageError(f"{self._path}: a text for the store is not Unicode; nothing was {what}") from None
        except OSError as error:
            why = f"{error.strerror}; make room or give access, then try again"
            raise HostError(f"{self._path}: the store cannot be {what}: {why}") from None

    def _set_aside(self, why: str) -> None:
        number = 1
        while os.path.lexists(aside := f"{self._path}.corrupt-{number}"):
            number += 1
        self._path.rename(aside)
        for end in ("-wal", "-shm"):  # a log of the old file must not be applied to the new one
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{end}").rename(f"{aside}{end}")
        self._notes = (
            f"{self._path}: the store was damaged ({why}); it is now {aside}, "
            "and a fresh one is filled from what runs; how earlier guests ended is forgotten",
        )


def _open(path: Path) -> sqlite3.Connection:
    # Made here, so that nobody else may read it from its first moment on; SQLite gives its log the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date and look whether all of it can be read. Growth: linear in the file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(SCRIPTS):
        raise HostError(
            f"{path}: the store has version {version}, this program knows versions up to {len(SCRIPTS)}; "
            "use the newer program, or move the file away"
        )
    if version < 0:
        raise sqlite3.DatabaseError(f"it has version {version}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise HostError(f"{path}: the store cannot keep a write-ahead log here; put it on a local disk")
    connection.execute("PRAGMA synchronous = NORMAL")
    if version < len(SCRIPTS):
        with _transaction(connection):
            for script in SCRIPTS[version:]:
                connection.execute(script)
            connection.execute(f"PRAGMA user_version = {len(SCRIPTS)}")
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found.replace("\n", " "))
    for columns, table in ((_GUEST, "guests"), (_ENDING, "endings"), (_ACCOUNT, "accounts")):
        connection.execute(f"SELECT {columns} FROM {table}").fetchall()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise


def _is_hosts_fault(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _HOST_CODES
