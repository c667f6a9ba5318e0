"""
Pool with a PostgreSQL server, each of which holds the mark of its owner.

Decides how long a server is waited for, when work whose connection was lost is done over, and that no password comes to
light. Which rows there are is `_postgres.py`'s. It needs psycopg, and is loaded by the first store that is opened.
"""

import logging
from collections.abc import Callable, Mapping
from threading import Condition, Event
from time import monotonic
from typing import Final, TypeVar

import psycopg
from attrs import define, field
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from .errors import StoreError

T = TypeVar("T")

log = logging.getLogger("kling_async")

ANSWER: Final = 40.0
"""Seconds after which a server that says nothing at all is given up; it has given up the statement before."""
RIDE: Final = 10.0
"""Seconds for which a server that is away is asked for again: mostly it is only being restarted."""
PAUSE: Final = 0.05
"""Seconds before it is asked for again; each time twice as long."""
PAUSE_MOST: Final = 1.0
"""Seconds that this comes to at most."""
PARTING: Final = 5.0
"""Seconds for which closing waits for work that nobody waits for any more."""

_DEFAULTS: Final[Mapping[str, str | int]] = {
    "connect_timeout": 10,
    "fallback_application_name": "kling-async",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
    "tcp_user_timeout": 30_000,
}
"""What holds unless the URL says otherwise: of several servers the one that writes, and none that has gone silent."""

_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    # A process that is stopped in the middle of a transaction holds its row no longer than others wait for it.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "20s",
    "statement_timeout": "30s",
    "synchronous_commit": "on",
    # After a minute the server takes an owner whose machine is gone for gone.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_SET: Final = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)"


class Connection(psycopg.Connection[TupleRow]):
    """
    A connection that gives up a server which does not answer.
    """

    owner: int
    """Whose mark it holds."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """
        Wait for the server, as psycopg does in everything, but not for ever.
        """
        return super().wait(_answered(gen, ANSWER if timeout is None else timeout), interval)


def _answered(gen: PQGen[T], seconds: float) -> PQGen[T]:
    until = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > until:
                raise psycopg.OperationalError(f"no answer within {seconds:g} seconds")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


@define(eq=False, repr=False)
class Pool:
    """
    The connections of one owner, which others can tell to be there as long as one of them is.
    """

    url: str
    """Of the server and the database; it may hold a password."""
    place: str
    """The same as errors and logs tell it."""
    schema: str
    """Where the tables are."""
    owner: int
    """The owner's number. Each connection holds a shared advisory lock on it until it ends, in whichever way."""
    _idle: list[Connection] = field(factory=list, init=False)
    _busy: int = field(default=0, init=False)
    _changed: Condition = field(factory=Condition, init=False)
    _closing: Event = field(factory=Event, init=False)
    _away: float | None = field(default=None, init=False)
    """Since when the server has not been reached."""

    def run(self, work: Callable[[Connection, bool], T], *, patience: float | None = None) -> T:
        """
        Do work as one transaction, and over again where the server was lost.

        Args:
            work: What to do with a connection. It is told whether an earlier try may have been committed.
            patience: Seconds for which a server is asked for again since it was found to be away.

        Raises:
            StoreError: The server cannot be reached, or has refused.
        """
        began, pause, again = monotonic(), PAUSE, False
        most = RIDE if patience is None else patience
        while True:
            try:
                connection = self._taken()
            except StoreError:
                self._away = self._away or monotonic()
                if monotonic() + pause > self._away + most or self._closing.wait(pause):
                    raise
                pause = min(2 * pause, PAUSE_MOST)
                continue
            try:
                done = work(connection, again)
                connection.commit()
            except psycopg.Error as error:
                if not connection.closed or monotonic() > began + most:
                    raise StoreError(f"{self.place} cannot be used: {_told(error)}") from error
                log.info("%s has ended a connection, which is opened anew: %s", self.place, _told(error))
                again = True
            else:
                return done
            finally:
                self._back(connection)

    def close(self) -> None:
        """
        End all connections; those at work end with it.
        """
        self._closing.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, PARTING)
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _taken(self) -> Connection:
        with self._changed:
            if self._closing.is_set():
                raise StoreError(f"{self.place} was closed meanwhile")
            self._busy += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._connected()
        except StoreError:
            self._less_busy()
            raise

    def _back(self, connection: Connection) -> None:
        """
        Take a connection back; what its work has begun and not ended is undone.
        """
        try:
            connection.rollback()
        except psycopg.Error:
            connection.close()
        with self._changed:
            if self._closing.is_set():
                connection.close()
            if not connection.closed:
                self._idle.append(connection)
        self._less_busy()

    def _less_busy(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _connected(self) -> Connection:
        connection = None
        try:
            connection = Connection.connect(self._parameters())
            settings = {**_SETTINGS, "search_path": f'"{self.schema}"'}
            connection.execute(_SET, (list(settings), list(settings.values())))
            connection.execute("SELECT pg_advisory_lock_shared(%s)", (self.owner,))
            connection.commit()
            connection.owner, self._away = self.owner, None
        except psycopg.Error as error:
            said = _told(error)
        else:
            return connection
        # Out of its handler, for the error and its frames know the password.
        if connection is not None:
            connection.close()
        raise StoreError(f"{self.place} cannot be reached: {said}")

    def _parameters(self) -> str:
        return make_conninfo("", **{**_DEFAULTS, **conninfo_to_dict(self.url)})


def _told(error: psycopg.Error) -> str:
    """
    What an error says, in one line.
    """
    return " ".join(str(error).split())
