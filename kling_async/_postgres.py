"""
Intents in a PostgreSQL database, for any number of machines: each intent with one owner at a time.

Decides how rows are kept, when an owner counts as gone, and that every change is one transaction that the server has
written through. Which change may stand is `_submit.py`'s; how the server is reached and waited for, `_pool.py`'s.
"""

import re
import secrets
from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from anyio import to_thread
from attrs import define, field, frozen

from ._shelter import parting
from ._stored import Threads, heard, read, written
from ._submit import SETTLED, Abilities, Intent, State, follows, moved
from .errors import InvalidInputError, StoreError
from .policy import check_count, check_seconds

if TYPE_CHECKING:
    from ._pool import Connection, Pool

T = TypeVar("T")

MAKING: Final = 0x6B6C696E67
"""The advisory lock under which tables are made: `CREATE ... IF NOT EXISTS` fails where two do it at once."""

_HOST: Final = r"(?:\[[^]@/?#]*\]|[^]:@/?#,[]*)(?::\d*)?"
_URL: Final = re.compile(
    r"(?P<kind>postgres(?:ql)?://)(?:(?P<user>[^:@/?#]+)(?::[^@/?#]*)?@)?"
    rf"(?P<where>{_HOST}(?:,{_HOST})*(?:/[^@?#]*)?)(?:\?[^@#]*)?"
)
_ODD: Final = re.compile(r"%(?!0[1-9a-f]|[1-9a-f][0-9a-f])|[^!-~]", re.IGNORECASE)
"""What the driver would quote, with all that it takes for a part of it, in an error."""
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS intents (
    external_task_id text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL,
    state text NOT NULL,
    fence bigint NOT NULL,
    body text NOT NULL,
    owner bigint,
    claim bigint,
    server timestamptz,
    until timestamptz
);
CREATE INDEX IF NOT EXISTS intents_latest ON intents (created_at DESC, number DESC);
CREATE INDEX IF NOT EXISTS intents_by_state ON intents (state, created_at DESC, number DESC);
CREATE TABLE IF NOT EXISTS hosts (base_url text PRIMARY KEY, body text NOT NULL);
"""
_INSERT: Final = """
INSERT INTO intents (external_task_id, created_at, state, fence, body, owner, claim, server, until) VALUES (
    %(key)s, %(created_at)s, %(state)s, %(fence)s, %(body)s, %(owner)s, %(claim)s,
    pg_postmaster_start_time(), clock_timestamp() + %(lease)s * interval '1 second'
) ON CONFLICT (external_task_id) DO NOTHING
"""
_UPDATE: Final = """
UPDATE intents SET state = %(state)s, fence = %(fence)s, body = %(body)s, owner = %(owner)s,
    claim = coalesce(%(claim)s, claim), server = pg_postmaster_start_time(),
    until = clock_timestamp() + %(lease)s * interval '1 second'
WHERE external_task_id = %(key)s
"""
_LOCKED: Final = """
SELECT body, owner, claim, server = pg_postmaster_start_time(), until > clock_timestamp()
FROM intents WHERE external_task_id = %s FOR UPDATE
"""
_RELEASE: Final = "UPDATE intents SET owner = NULL WHERE external_task_id = %s AND owner = %s AND fence = %s"
_LATEST: Final = "SELECT body FROM intents ORDER BY created_at DESC, number DESC LIMIT %s"
_OF_STATES: Final = """
SELECT body FROM intents WHERE state = ANY(%s) ORDER BY created_at DESC, number DESC LIMIT %s
"""
_LEARN: Final = "INSERT INTO hosts VALUES (%s, %s) ON CONFLICT (base_url) DO UPDATE SET body = excluded.body"


@frozen
class _Row:
    """
    A row as it stands, locked.
    """

    intent: Intent
    owner: int | None
    claim: int | None
    same_server: bool
    """Whether the server has not been started anew since its owner last wrote."""
    leased: bool


@define(eq=False)
class PostgresStore:
    """
    Intents in a PostgreSQL database, committed before anything is sent.

    Every call runs in a worker thread, so it serves asyncio and trio alike. Workers on any number of machines may
    share the database; each opens a store of its own. An owner whose connections have ended, as those of a killed
    process do, is followed at once; one that only hangs, or was there before the server was started anew, once its
    lease has run out, by the server's clock. A server that is restarted is waited for, ten seconds at most. Needs the
    extra `postgres`.

    Example:
        >>> PostgresStore("postgresql://kling:secret@db.example/orders")
        PostgresStore(postgresql://kling@db.example/orders)

    Raises:
        InvalidInputError: An argument makes no sense, which never quotes the URL, or psycopg is not installed.
    """

    url: str = field(repr=False)
    """`postgresql://user:password@host:port/database`, as libpq takes it; not by a pooler that shares connections."""
    lease: float = field(default=300.0, kw_only=True)
    """Seconds without a sign of life after which an owner's create may be taken over; longer than any exchange."""
    schema: str = field(default="kling", kw_only=True)
    """The schema of the tables; it is made with them when it is not there."""
    connections: int = field(default=4, kw_only=True)
    """Connections at most."""
    _threads: Threads = field(init=False)
    _pool: "Pool | None" = field(default=None, init=False)
    _claiming: set[int] = field(factory=set, init=False)
    """Numbers of claims that are being made."""
    _held: dict[tuple[str, int], int] = field(factory=dict, init=False)
    """Numbers of those that were made, by id and fence, until they are given back or their task is known."""

    @url.validator
    def _check_url(self, _attribute: object, value: object) -> None:
        if not isinstance(value, str) or _ODD.search(value) or not _URL.fullmatch(value):
            reason = "must be postgresql://user:password@host/database, with odd characters as %40 and the like"
            raise InvalidInputError("url", reason)

    @lease.validator
    def _check_lease(self, _attribute: object, value: object) -> None:
        check_seconds("lease", value)

    @schema.validator
    def _check_schema(self, _attribute: object, value: object) -> None:
        if not isinstance(value, str) or not _SCHEMA.fullmatch(value):
            raise InvalidInputError("schema", f"must be a lower-case name, not {value!r}")

    @connections.validator
    def _check_connections(self, _attribute: object, value: object) -> None:
        check_count("connections", value)

    def __attrs_post_init__(self) -> None:
        if find_spec("psycopg") is None:
            raise _missing()
        self._threads = Threads(self.connections)

    def __repr__(self) -> str:
        return f"PostgresStore({self._place})"

    def __reduce__(self) -> NoReturn:
        msg = "PostgresStore may hold a password and is not pickled: make one where it is needed"
        raise TypeError(msg)

    async def open(self) -> None:
        """
        Connect, making the tables where they are not there.

        Raises:
            InvalidInputError: psycopg cannot be loaded.
            StoreError: The server cannot be reached, or does not let the tables be made.
        """
        if self._pool is None:
            self._pool = await heard(self._threads.run, self._made, lambda pool: pool.close())

    async def aclose(self) -> None:
        """Disconnect."""
        pool, self._pool = self._pool, None
        self._held.clear()
        if pool is not None:
            await parting(lambda: to_thread.run_sync(pool.close, abandon_on_cancel=True))

    async def claim(self, intent: Intent) -> Intent | None:
        """
        Own the intent with this id until it is released, its task is known, or the lease has run out.

        Raises:
            StoreError: It could not be written.
        """
        claim, pool = secrets.randbits(63), self._opened
        self._claiming.add(claim)
        try:
            claimed = await heard(
                self._threads.run,
                lambda: pool.run(lambda connection, _again: self._claim(connection, intent, claim)),
                lambda claimed: pool.run(lambda connection, _again: _released(connection, claimed)),
            )
            if claimed is not None and claimed.state not in SETTLED:
                self._held[_name(claimed)] = claim
        finally:
            self._claiming.remove(claim)
        return claimed

    async def put(self, intent: Intent) -> bool:
        """
        Write an intent, if it follows what is kept, and wait until it is committed.

        Raises:
            StoreError: It could not be written.
        """
        pool = self._opened
        taken = await self._threads.run(
            lambda: pool.run(lambda connection, again: self._put(connection, intent, again=again))
        )
        if taken and intent.state in SETTLED:
            self._held.pop(_name(intent), None)
        return taken

    async def release(self, intent: Intent) -> None:
        """
        Let others claim it.

        Raises:
            StoreError: It could not be written.
        """
        # Here it is known even where the server cannot be told.
        self._held.pop(_name(intent), None)
        await self._run(lambda connection: _released(connection, intent))

    async def get(self, external_task_id: str) -> Intent | None:
        """
        The intent with this id.

        Raises:
            StoreError: It could not be read.
        """
        query = "SELECT body FROM intents WHERE external_task_id = %s"
        found = await self._run(lambda connection: connection.execute(query, (external_task_id,)).fetchone())
        return read(found[0], Intent) if found else None

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """
        The latest intents, newest first.

        Raises:
            StoreError: They could not be read.
        """

        def found(connection: "Connection") -> tuple[Intent, ...]:
            if states is None:
                rows = connection.execute(_LATEST, (most,))
            else:
                rows = connection.execute(_OF_STATES, (list(states), most))
            return tuple(read(body, Intent) for (body,) in rows)

        return await self._run(found)

    async def abilities(self, base_url: str) -> Abilities:
        """
        What was learned of a host.

        Raises:
            StoreError: It could not be read.
        """
        query = "SELECT body FROM hosts WHERE base_url = %s"
        found = await self._run(lambda connection: connection.execute(query, (base_url,)).fetchone())
        return read(found[0], Abilities) if found else Abilities()

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """
        Remember what was learned of a host.

        Raises:
            StoreError: It could not be written.
        """
        await self._run(lambda connection: connection.execute(_LEARN, (base_url, written(abilities))))

    async def _run(self, work: "Callable[[Connection], T]") -> T:
        pool = self._opened
        return await self._threads.run(lambda: pool.run(lambda connection, _again: work(connection)))

    @property
    def _place(self) -> str:
        parts = _URL.fullmatch(self.url)
        assert parts is not None
        user = "" if parts["user"] is None else f"{parts['user']}@"
        return f"{parts['kind']}{user}{parts['where']}"

    @property
    def _opened(self) -> "Pool":
        if self._pool is None:
            raise StoreError(f"{self!r} is not open: a client opens its store when it is entered")
        return self._pool

    def _made(self) -> "Pool":
        try:
            from ._pool import Pool
        except ImportError as error:
            raise _missing() from error
        pool = Pool(url=self.url, place=self._place, schema=self.schema, owner=secrets.randbits(63))
        try:
            pool.run(lambda connection, _again: self._make(connection), patience=0)
        except StoreError:
            pool.close()
            raise
        return pool

    def _make(self, connection: "Connection") -> None:
        # Where the tables are there, neither a lock nor the right to make any is needed.
        there = "SELECT to_regclass(%s)"
        last = f'"{self.schema}".hosts'
        if connection.execute(there, (last,)).fetchone() == (None,):
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
            connection.execute(_TABLES.format(schema=f'"{self.schema}"').encode())

    def _claim(self, connection: "Connection", intent: Intent, claim: int) -> Intent | None:
        first = intent if intent.state in SETTLED else moved(intent, intent.state, fence=intent.fence + 1)
        row = self._met(connection, first, claim)
        if row is None:
            return first
        kept = row.intent
        # Ours it is already where an earlier try was committed although its connection was lost.
        if kept.state in SETTLED or row.claim == claim:
            return kept
        if not self._is_free(connection, row):
            return None
        claimed = moved(kept, kept.state, fence=kept.fence + 1)
        connection.execute(_UPDATE, self._values(connection, claimed, claim))
        return claimed

    def _put(self, connection: "Connection", intent: Intent, *, again: bool) -> bool:
        row = self._met(connection, intent, None)
        if row is None:
            return True
        # Where an earlier try was committed although its connection was lost, it stands there as it was to be written.
        if not (again and row.intent == intent) and not follows(intent, row.intent):
            return False
        connection.execute(_UPDATE, self._values(connection, intent, None))
        return True

    def _met(self, connection: "Connection", intent: Intent, claim: int | None) -> _Row | None:
        """
        Write an intent where there is none with its id; else lock the row that is there, and return it.
        """
        if connection.execute(_INSERT, self._values(connection, intent, claim)).rowcount:
            return None
        found = connection.execute(_LOCKED, (intent.external_task_id,)).fetchone()
        assert found is not None, "no intent is ever deleted"
        body, owner, claimed, same_server, leased = found
        return _Row(read(body, Intent), owner, claimed, same_server, leased)

    def _is_free(self, connection: "Connection", row: _Row) -> bool:
        """
        Whether nobody is at a row, or its owner's lease has run out, or its owner is surely gone.

        The server ends the connections of a process that has ended, and with them their lock. That nobody holds it
        proves nothing on a server that was started since then, or on another that took its place: all connections
        were lost then, and an owner that lives locks anew at its next call. What this store itself has let go of, or
        never heard of, is free although the server may know nothing of that.
        """
        if row.owner is None or not row.leased:
            return True
        if row.owner == connection.owner:
            return row.claim not in self._claiming and row.claim != self._held.get(_name(row.intent), -1)
        if not row.same_server:
            return False
        return connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (row.owner,)).fetchone() == (True,)

    def _values(self, connection: "Connection", intent: Intent, claim: int | None) -> dict[str, object]:
        return {
            "key": intent.external_task_id,
            "created_at": intent.created_at,
            "state": intent.state,
            "fence": intent.fence,
            "body": written(intent),
            "owner": None if intent.state in SETTLED else connection.owner,
            "claim": claim,
            "lease": self.lease,
        }


def _name(intent: Intent) -> tuple[str, int]:
    return intent.external_task_id, intent.fence


def _released(connection: "Connection", intent: Intent) -> None:
    connection.execute(_RELEASE, (intent.external_task_id, connection.owner, intent.fence))


def _missing() -> InvalidInputError:
    return InvalidInputError("store", "PostgresStore needs psycopg: pip install 'kling-async[postgres]'")
