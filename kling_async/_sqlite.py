"""
Intents in a SQLite file, for one machine: any number of processes, each intent with one owner at a time.

Decides how rows are kept, when an owner counts as gone, and that every change is one transaction written through
to the disk. Which change may stand is `_submit.py`'s.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

import orjson
from attrs import define, field

from ._shelter import parting
from ._stored import Threads, heard, read, written
from ._submit import SETTLED, Abilities, Intent, State, follows, moved
from .errors import InvalidInputError, StoreError
from .policy import check_seconds

T = TypeVar("T")

BUSY: Final = 30.0
"""Seconds that a transaction of another process may take."""
AGAIN: Final = 0.02
"""Seconds before another try to switch a new file over while another process does."""
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_NAMESPACE: Final = "/proc/self/ns/pid"
_STATUS: Final = "/proc/{}/stat"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS intents (
    external_task_id TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS owners (
    external_task_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    until REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS hosts (
    base_url TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
"""


def _as_path(value: str | Path) -> Path:
    given: object = value
    if not isinstance(given, str | Path):
        raise InvalidInputError("path", f"must be text or a Path, not {type(given).__name__}")
    return Path(value)


@define
class SqliteStore:
    """
    Intents in a SQLite file, written through before anything is sent.

    Every call runs in a worker thread, so it serves asyncio and trio alike. Processes of one machine may share the
    file; each opens a store of its own. An owner that was killed is followed at once (on Linux; elsewhere, and where
    it only hangs, once its lease has run out).

    Example:
        >>> SqliteStore("intents.sqlite")
        SqliteStore(intents.sqlite)

    Raises:
        InvalidInputError: The path names no file, or the lease is no number of seconds.
    """

    path: Path = field(converter=_as_path)
    """The file; it is made with its folder when it is not there."""
    lease: float = field(default=300.0, kw_only=True)
    """Seconds without a sign of life after which an owner's create may be taken over; longer than any exchange."""
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _threads: Threads = field(factory=lambda: Threads(1), init=False)
    _owner: str = field(default="", init=False)

    @path.validator
    def _check_path(self, _attribute: object, value: Path) -> None:
        if str(value) in {".", ":memory:"}:
            raise InvalidInputError("path", "must name a file; MemoryStore keeps intents in memory")

    @lease.validator
    def _check_lease(self, _attribute: object, value: object) -> None:
        check_seconds("lease", value)

    def __repr__(self) -> str:
        return f"SqliteStore({self.path})"

    async def open(self) -> None:
        """
        Open the file, making it where it is not there.

        Raises:
            StoreError: It cannot be opened or written.
        """
        await self._run(self._open)

    async def aclose(self) -> None:
        """Close the file."""
        await parting(lambda: self._run(self._close))

    async def claim(self, intent: Intent) -> Intent | None:
        """
        Own the intent with this id until it is released, its task is known, or the lease has run out.

        Raises:
            StoreError: It could not be written.
        """
        return await heard(self._run, lambda: self._claim(intent), self._release)

    async def put(self, intent: Intent) -> bool:
        """
        Write an intent, if it follows what is kept, and wait until it is on disk.

        Raises:
            StoreError: It could not be written.
        """
        return await self._run(lambda: self._put(intent))

    async def release(self, intent: Intent) -> None:
        """
        Let others claim it.

        Raises:
            StoreError: It could not be written.
        """
        await self._run(lambda: self._release(intent))

    async def get(self, external_task_id: str) -> Intent | None:
        """
        The intent with this id.

        Raises:
            StoreError: It could not be read.
        """
        return await self._run(lambda: self._kept(external_task_id))

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """
        The latest intents, newest first.

        Raises:
            StoreError: They could not be read.
        """
        return await self._run(lambda: self._recent(most, states))

    async def abilities(self, base_url: str) -> Abilities:
        """
        What was learned of a host.

        Raises:
            StoreError: It could not be read.
        """
        found = await self._run(lambda: self._rows("SELECT body FROM hosts WHERE base_url = ?", base_url))
        return read(found[0], Abilities) if found else Abilities()

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """
        Remember what was learned of a host.

        Raises:
            StoreError: It could not be written.
        """
        await self._run(lambda: self._rows("INSERT OR REPLACE INTO hosts VALUES (?, ?)", base_url, written(abilities)))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path} cannot be used: {error}") from error

    def _open(self) -> None:
        self._connection = self._connect()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=BUSY)
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        self._owner = f"{_machine()} {os.getpid()} {secrets.token_hex(8)}"
        return connection

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self!r} is not open: a client opens its store when it is entered")
        return self._connection

    def _rows(self, statement: str, *values: str | float) -> list[str]:
        return [body for (body,) in self._opened.execute(statement, values)]

    def _kept(self, key: str) -> Intent | None:
        found = self._rows("SELECT body FROM intents WHERE external_task_id = ?", key)
        return read(found[0], Intent) if found else None

    def _claim(self, intent: Intent) -> Intent | None:
        # As a transaction that writes from its first statement on: two claims never see the same row unowned.
        with _Transaction(self._opened):
            key = intent.external_task_id
            kept = self._kept(key) or intent
            if kept.state in SETTLED:
                return kept
            held = self._opened.execute("SELECT owner, until FROM owners WHERE external_task_id = ?", (key,)).fetchone()
            if held is not None and time.time() < held[1] and not _is_gone(held[0]):
                return None
            claimed = moved(kept, kept.state, fence=kept.fence + 1)
            self._write(claimed)
        return claimed

    def _put(self, intent: Intent) -> bool:
        with _Transaction(self._opened):
            kept = self._kept(intent.external_task_id)
            if kept is not None and not follows(intent, kept):
                return False
            self._write(intent)
            return True

    def _write(self, intent: Intent) -> None:
        key = intent.external_task_id
        upsert = (
            "INSERT INTO intents VALUES (?, ?, ?) ON CONFLICT (external_task_id) DO UPDATE SET body = excluded.body"
        )
        self._rows(upsert, key, intent.created_at.isoformat(), written(intent))
        if intent.state in SETTLED:
            self._rows("DELETE FROM owners WHERE external_task_id = ?", key)
        else:
            self._rows("INSERT OR REPLACE INTO owners VALUES (?, ?, ?)", key, self._owner, time.time() + self.lease)

    def _release(self, intent: Intent) -> None:
        statement = "DELETE FROM owners WHERE external_task_id = ? AND owner = ?"
        self._rows(statement, intent.external_task_id, self._owner)

    def _recent(self, most: int, states: Collection[State] | None) -> tuple[Intent, ...]:
        wanted = orjson.dumps(None if states is None else sorted(states)).decode()
        query = (
            "SELECT body FROM intents"
            " WHERE ? = 'null' OR json_extract(body, '$.state') IN (SELECT value FROM json_each(?))"
            " ORDER BY created_at DESC, rowid DESC LIMIT ?"
        )
        return tuple(read(body, Intent) for body in self._rows(query, wanted, wanted, most))


@define
class _Transaction:
    """
    A transaction that owns the file from its first moment, and is undone where its block fails.
    """

    connection: sqlite3.Connection

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """
    Switch to a write-ahead log, for which SQLite does not wait while another process does the same.
    """
    until = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(AGAIN)


def _machine() -> str:
    """
    What a process id belongs to: this boot of this machine and this namespace of processes; empty where unknown.
    """
    try:
        return f"{Path(_BOOT).read_text().strip()}/{Path(_NAMESPACE).readlink()}"
    except OSError:
        return ""


def _is_gone(owner: str) -> bool:
    """
    Whether an owner's process has surely ended. Elsewhere than on Linux nobody is sure, and leases decide.
    """
    machine, process, _ = owner.split(" ")
    if not machine or machine != _machine():
        return False
    try:
        os.kill(int(process), 0)
        status = Path(_STATUS.format(process)).read_text()
    except ProcessLookupError:
        return True
    except OSError:  # another user's, or one that this user may not look at
        return False
    # One that was killed, and that its parent has not asked after yet.
    return status.rpartition(")")[2].split()[0] in {"Z", "X"}
