"""
Where the intents of paid creates are written before anything is sent.

A store remembers, across crashes if it is on disk, which create was meant, sent, accepted or is in doubt.
It knows no protocol: `_create.py` decides what to write when.
"""

import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import anyio
import orjson
from anyio import to_thread
from attrs import define, field, frozen

from ._codec import converter
from .errors import StoreError

__all__ = ("Intent", "IntentStore", "MemoryStore", "SqliteStore")

T = TypeVar("T")

State = Literal["intent", "sending", "accepted", "refused", "unknown"]


@frozen(kw_only=True)
class Intent:
    """
    One paid create, as far as it has come. It holds no secret.
    """

    external_task_id: str
    """Its id, given or drawn before anything was sent."""
    payload: str
    """SHA-256 of what is paid for; the same id with another payload is refused."""
    base_url: str
    """The service it goes to."""
    session_id: str
    """The selection session."""
    created_at: datetime
    """When it was first meant, in UTC."""
    state: State = "intent"
    """`intent`: not sent; `sending`: perhaps sent; `accepted`, `refused`: known; `unknown`: in doubt."""
    attempts: int = 0
    """How often it was sent."""
    first_sent_at: datetime | None = None
    """When its first byte may have left, in UTC."""
    task_id: str | None = None
    """The service's id, once accepted."""


class IntentStore(Protocol):
    """
    What keeps intents. `put` returns when the intent would survive a crash, as far as the store can promise it.
    """

    async def open(self) -> None:
        """
        Make it ready; a client opens its own store.

        Raises:
            StoreError: It cannot be opened.
        """
        ...

    async def aclose(self) -> None:
        """
        Let go of it; calling it again does nothing.
        """
        ...

    async def put(self, intent: Intent) -> None:
        """
        Write an intent, over an earlier one with the same id.

        Raises:
            StoreError: It could not be written.
        """
        ...

    async def get(self, external_task_id: str) -> Intent | None:
        """
        The intent with this id.

        Raises:
            StoreError: It could not be read.
        """
        ...

    async def recent(self, most: int = 100) -> tuple[Intent, ...]:
        """
        The latest intents, newest first.

        Raises:
            StoreError: They could not be read.
        """
        ...


@define
class MemoryStore:
    """
    Intents for as long as the process lives.

    Example:
        >>> MemoryStore()
        MemoryStore(0 intents)
    """

    _intents: dict[str, Intent] = field(factory=dict, init=False)

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._intents)} intents)"

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close: what it holds stays readable."""

    async def put(self, intent: Intent) -> None:
        """Keep an intent."""
        self._intents[intent.external_task_id] = intent

    async def get(self, external_task_id: str) -> Intent | None:
        """The intent with this id."""
        return self._intents.get(external_task_id)

    async def recent(self, most: int = 100) -> tuple[Intent, ...]:
        """The latest intents, newest first."""
        return tuple(reversed(self._intents.values()))[:most]


_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    external_task_id TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT
"""


@define
class SqliteStore:
    """
    Intents in a SQLite file, written through before anything is sent.

    Every call runs in a worker thread, so it serves asyncio and trio alike.

    Example:
        >>> SqliteStore("intents.sqlite")
        SqliteStore(intents.sqlite)
    """

    path: Path = field(converter=Path)
    """The file; it is made with its folder when it is not there."""
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    def __repr__(self) -> str:
        return f"SqliteStore({self.path})"

    async def open(self) -> None:
        """
        Open the file, making it where it is not there.

        Raises:
            StoreError: It cannot be opened or written.
        """
        self._connection = await self._run(self._connect)

    async def aclose(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await self._run(connection.close)

    async def put(self, intent: Intent) -> None:
        """
        Write an intent and wait until it is on disk.

        Raises:
            StoreError: It could not be written.
        """
        body = orjson.dumps(converter().unstructure(intent)).decode()
        row = (intent.external_task_id, intent.created_at.isoformat(), body)
        await self._run(lambda: self._write("INSERT OR REPLACE INTO intents VALUES (?, ?, ?)", row))

    async def get(self, external_task_id: str) -> Intent | None:
        """
        The intent with this id.

        Raises:
            StoreError: It could not be read.
        """
        query = "SELECT body FROM intents WHERE external_task_id = ?"
        found = await self._run(lambda: self._read(query, (external_task_id,)))
        return found[0] if found else None

    async def recent(self, most: int = 100) -> tuple[Intent, ...]:
        """
        The latest intents, newest first.

        Raises:
            StoreError: They could not be read.
        """
        query = "SELECT body FROM intents ORDER BY created_at DESC, rowid DESC LIMIT ?"
        return await self._run(lambda: self._read(query, (most,)))

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._lock:
            try:
                return await to_thread.run_sync(work)
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path} cannot be used: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self!r} is not open: a client opens its store when it is entered")
        return self._connection

    def _write(self, statement: str, row: tuple[str, ...]) -> None:
        self._opened.execute(statement, row)

    def _read(self, query: str, values: tuple[str | int, ...]) -> tuple[Intent, ...]:
        rows = self._opened.execute(query, values).fetchall()
        return tuple(converter().structure(orjson.loads(body), Intent) for (body,) in rows)
