"""
The database of a batch: one SQLite file for one machine, or Postgres for many, and how it is spoken to.

Decides how connections are set up, which failures of a database are waited out, and who holds a lock there. Knows
nothing of edits: what is kept is `_records.py`'s, and the engine keeps its own tables beside these.
"""

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread
from typing import Final, TypeVar

import anyio
import sqlalchemy as sa
from anyio import to_thread
from attrs import define, field
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from kling_async._exchange import log
from kling_async.errors import InvalidInputError, StoreError
from kling_async.stores import IntentStore, PostgresStore, SqliteStore

T = TypeVar("T")

CONNECTIONS: Final = 20
"""To Postgres, or to the file; the engine's steps and ours share them."""
BUSY: Final = 30_000
"""Milliseconds that a writer of a file waits for another."""
OUTAGE: Final = 120.0
"""Seconds that a database may be away, as while it is started anew."""
AGAIN: Final = 0.25
"""Seconds between two tries meanwhile, at first; they double up to eight times that."""
IDLE: Final = 30.0
"""Seconds for which a process that was stopped in the midst of a transaction keeps others from what it has changed."""
SCHEMA: Final = "kling"
"""Where our tables stand in Postgres."""
_HOPELESS: Final = ("authentication failed", "does not exist", "no password", "pg_hba.conf", "resolve host")
"""Words of a server, or about it, that waiting does not change."""
_ALONE: Final = "BEGIN IMMEDIATE"
_CLAIMING: Final = "queue-worker-"
"""How the engine's threads are called that take jobs from a queue."""
_LOCKS: Final = 0x6B6C696E
"""The space of our advisory locks: `klin`."""


def _set_up(connection: object, _record: object) -> None:
    """The file as several processes share it; the engine sets the same on engines of its own, less the log."""
    connection.isolation_level = "IMMEDIATE"  # type: ignore[attr-defined]
    for pragma in (f"busy_timeout={BUSY}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]
    # From Python 3.12 on the engine asks for `unixepoch('subsec')`, which SQLite knows since 3.42: Debian 12 has none.
    connection.create_function("unixepoch", 1, lambda _kind: time.time())  # type: ignore[attr-defined]


def _bound(connection: object, _record: object) -> None:
    """A session to a server ends with a transaction that nobody goes on with."""
    connection.execute(f"SET idle_in_transaction_session_timeout = {int(1000 * IDLE)}")  # type: ignore[attr-defined]
    connection.commit()  # type: ignore[attr-defined]


def _claim(connection: sa.Connection) -> None:
    """The engine counts what runs before it takes more: two that count at once would both take the last slot."""
    if current_thread().name.startswith(_CLAIMING):
        connection.exec_driver_sql(_ALONE)


def _read(url: object) -> sa.URL:
    advice = "must be sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        read = sa.make_url(url) if isinstance(url, str) else None
    except (ArgumentError, ValueError):
        read = None
    if read is None or read.get_backend_name() not in {"sqlite", "postgresql"}:
        # Not as it came: it may hold a password.
        raise InvalidInputError("database", advice)
    if read.get_backend_name() == "sqlite":
        if read.database in {None, "", ":memory:"}:
            raise InvalidInputError("database", f"{advice}; a batch in memory would not survive")
        return read.set(drivername="sqlite")
    return read.set(drivername="postgresql+psycopg")


@define(eq=False, repr=False)
class Database:
    """
    A database by its URL, for this process.

    Raises:
        InvalidInputError: The URL names no SQLite file and no Postgres database.
    """

    url: sa.URL = field(converter=_read)
    """Where it is."""
    pool: sa.Engine = field(init=False)
    """Its connections, as the engine of workflows takes them."""
    engine: sa.Engine = field(init=False)
    """The same connections; the batch's own tables are found through it without a schema's name."""

    def __repr__(self) -> str:
        # A query may hold a password too.
        return f"Database({self.url.set(query={}).render_as_string(hide_password=True)})"

    def __attrs_post_init__(self) -> None:
        try:
            self.pool = sa.create_engine(
                self.url, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=OUTAGE, pool_pre_ping=not self.on_file
            )
        except ImportError as error:
            raise InvalidInputError("database", "needs more: pip install 'kling-async[dbos,postgres]'") from error
        self.engine = self.pool
        if self.on_file:
            event.listen(self.pool, "connect", _set_up)
            event.listen(self.pool, "begin", _claim)
        else:
            event.listen(self.pool, "connect", _bound)
            # Not with the cache of compiled statements that the engine of workflows fills: `SELECT 1` is the same text
            # with another map of schemas, which SQLAlchemy refuses.
            self.engine = self.pool.execution_options(schema_translate_map={None: SCHEMA}, compiled_cache={})

    @property
    def on_file(self) -> bool:
        """Whether it is a file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.url.database or "")

    @property
    def plain(self) -> str:
        """The URL with its password, for whoever opens connections of its own."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=False)

    @property
    def clock(self) -> sa.TextClause:
        """The database's own time, in seconds: workers on other machines have other clocks."""
        said = "(julianday('now') - 2440587.5) * 86400.0" if self.on_file else "extract(epoch from clock_timestamp())"
        return sa.text(said)

    def store(self) -> IntentStore:
        """
        Where the intents of its paid creates are kept: beside the file, or in the same database.
        """
        if not self.on_file:
            return PostgresStore(self.plain)
        return SqliteStore(self.path.with_name(f"{self.path.name}.intents"))

    async def make(self, tables: sa.MetaData) -> None:
        """
        Make the tables that are not there; several processes may do so at once.

        Raises:
            StoreError: It cannot be used.
        """

        def work() -> None:
            if self.on_file:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._begun() as connection:
                if not self.on_file:
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:space, 0)"), {"space": _LOCKS})
                    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
                tables.create_all(connection)

        await self.run(work)

    async def holds(self, table: sa.Table) -> bool:
        """
        Whether a table of ours is there; nothing is made.

        Raises:
            StoreError: It cannot be used.
        """

        def work() -> bool:
            if self.on_file and not self.path.exists():
                return False
            return sa.inspect(self.pool).has_table(table.name, None if self.on_file else SCHEMA)

        try:
            # Whoever asks this has named it just now, and may have misspelt it.
            return await self.run(work, outage=0.0)
        finally:
            # It need never be opened.
            self.close()

    async def run(self, work: Callable[[], T], *, outage: float = OUTAGE) -> T:
        """
        Work in a thread; where the database is away, once more until it is back.

        Args:
            work: A whole transaction, which may be done twice.
            outage: Seconds for which it is waited for.

        Raises:
            StoreError: It cannot be used.
        """
        until, pause = time.monotonic() + outage, AGAIN
        while True:
            try:
                return await to_thread.run_sync(work)
            except DBAPIError as error:
                if not _is_away(error) or time.monotonic() > until:
                    raise self.unusable(error) from error
                log.info("%r does not answer; asked again in %.1f s", self, pause)
            except (SQLAlchemyError, OSError) as error:
                raise self.unusable(error) from error
            await anyio.sleep(pause)
            pause = min(2 * pause, 8 * AGAIN)

    async def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """
        Work in one transaction.

        Raises:
            StoreError: It cannot be used.
        """

        def alone() -> T:
            with self._begun() as connection:
                return work(connection)

        return await self.run(alone)

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """
        The same where nothing is changed, so that nobody need wait.

        Raises:
            StoreError: It cannot be used.
        """

        def alone() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return await self.run(alone)

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        with self.engine.begin() as connection:
            if self.on_file:
                # By itself the driver begins with the first change, and what was read before may be over by then.
                connection.exec_driver_sql(_ALONE)
            yield connection

    def unusable(self, error: Exception) -> StoreError:
        """
        What to raise where it failed so; its password is not told.
        """
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        said = str(cause).strip().partition("\n")[0]
        return StoreError(f"{self!r} cannot be used: {type(cause).__name__}: {said}")

    def lock(self, name: str) -> "Lock | None":
        """
        Hold a lock until it is let go or this process has ended, however; None where another holds it.

        Args:
            name: Of the lock.
        """
        lock = Lock(self, name)
        return lock if lock.taken() else None

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """
        Wait for a lock, and hold it meanwhile.

        Args:
            name: Of the lock.

        Raises:
            TimeoutError: Another held it all the while.
        """
        lock, until = Lock(self, name), time.monotonic() + OUTAGE
        while not lock.taken():
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is held by another process")
            time.sleep(AGAIN)
        try:
            yield
        finally:
            lock.release()

    def close(self) -> None:
        """Let go of its connections."""
        self.pool.dispose()


def _is_away(error: DBAPIError) -> bool:
    """
    Whether a database that failed so is only being started, or its connection was cut.
    """
    said = str(error.orig).lower()
    locked = "database is locked" in said
    starting = "starting up" in said or "shutting down" in said or "connection" in said or "server closed" in said
    return error.connection_invalidated or locked or (starting and not any(words in said for words in _HOPELESS))


@define(eq=False, repr=False)
class Lock:
    """
    A lock of one process, which it loses by ending, even by SIGKILL.
    """

    _database: Database
    _name: str
    _file: int | None = field(default=None, init=False)
    _connection: sa.Connection | None = field(default=None, init=False)

    def taken(self) -> bool:
        """
        Take it; whether it is held now. One that is held is asked whether it still is.
        """
        return self._file_taken() if self._database.on_file else self._session_taken()

    def _file_taken(self) -> bool:
        import fcntl
        import os

        if self._file is not None:
            return True
        path = self._database.path
        folder = path.with_name(f"{path.name}-locks")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / self._name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._file = descriptor
        return True

    def _session_taken(self) -> bool:
        if self._connection is not None:
            try:
                self._connection.execute(sa.text("SELECT 1"))
                self._connection.commit()
            except DBAPIError:
                # The session has ended, and the lock with it.
                self._drop()
            else:
                return True
        connection = self._database.engine.connect()
        try:
            asked = sa.text("SELECT pg_try_advisory_lock(:space, :number)")
            taken = bool(connection.execute(asked, self._number).scalar())
            connection.commit()
        except DBAPIError:
            connection.invalidate()
            connection.close()
            raise
        if taken:
            self._connection = connection
        else:
            connection.close()
        return taken

    @property
    def _number(self) -> dict[str, int]:
        return {"space": _LOCKS, "number": zlib.crc32(self._name.encode()) - (1 << 31)}

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closed rather than given back: a pooled session would go on holding it.
            connection.invalidate()
            connection.close()

    def release(self) -> None:
        """Let it go."""
        import os

        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)
        if self._connection is not None:
            with suppress(DBAPIError):
                # The server takes a moment to see that a session has ended.
                self._connection.execute(sa.text("SELECT pg_advisory_unlock(:space, :number)"), self._number)
        self._drop()
