"""
The jobs of an account: added once, begun again, cancelled, counted.

Every change is one transaction, and the engine is told of new work in the same one, so that workers on any number of
machines agree. Knows no service.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

import sqlalchemy as sa
from attrs import define

from kling_async.errors import KeyConflictError

from ._database import Database
from ._entries import AGAIN, Counts, Entry, Kept, State, Wish, entry_of, row_of, workflow_id
from ._tables import ACCOUNTS, BATCHES, JOBS, insert, insert_all, units

Enqueue: TypeAlias = Callable[[sa.Connection, str, int, str, int], None]
"""Tells the engine of an attempt: connection, key, number, workflow id, turn."""

LATEST = 100
"""Ends that tell how fast it goes."""


@define(eq=False, repr=False)
class Records:
    """
    The jobs of one account.
    """

    database: Database
    """Where they are kept."""
    account: str
    """Its name."""

    async def add(self, batch: str, wishes: Sequence[Wish], enqueue: Enqueue) -> int:
        """
        Add jobs, and tell the engine of those that are new; how many they are.

        Args:
            batch: Its name.
            wishes: What to do.
            enqueue: Tells the engine.

        Raises:
            KeyConflictError: A key stands for another edit already; nothing is added then.
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> int:
            insert(connection, BATCHES, {"account": self.account, "batch": batch, "spent": 0})
            rows = [row_of(connection, self.account, batch, wish) for wish in wishes]
            new = set(insert_all(connection, JOBS, rows, JOBS.c.key))
            asked = sa.select(JOBS.c.key, JOBS.c.payload).where(JOBS.c.account == self.account)
            found = connection.execute(asked.where(JOBS.c.key.in_([row["key"] for row in rows])))
            kept = {row.key: row.payload for row in found}
            for wish, row in zip(wishes, rows, strict=True):
                if kept[row["key"]] != row["payload"]:
                    text = f"{row['key']!r} already stands for another edit: another edit needs another key"
                    raise KeyConflictError(text, external_task_id=wish.job.external_task_id or "")
            # In the order in which they were given; a database tells of them in any.
            jobs = {str(wish.job.key): wish.job for wish in wishes}
            fresh = [(key, job) for key, job in jobs.items() if key in new]
            for turn, (key, job) in enumerate(fresh, self._turn(connection, len(fresh))):
                enqueue(connection, key, 1, workflow_id(self.account, job, 1), turn)
            return len(fresh)

        return await self.database.transact(work)

    def _turn(self, connection: sa.Connection, many: int) -> int:
        """
        The first of so many turns, each of which comes after all that were given.

        A job that is taken over goes back to its own place, before every job that has not begun: its task may be
        running, and whoever is let in before it would run beside more tasks than may run.
        """
        mine = ACCOUNTS.c.account == self.account
        given = sa.update(ACCOUNTS).where(mine).values(turns=ACCOUNTS.c.turns + many).returning(ACCOUNTS.c.turns)
        return int(connection.execute(given).scalar_one()) - many + 1

    def _is(self, key: str) -> tuple[sa.ColumnElement[bool], ...]:
        return JOBS.c.account == self.account, JOBS.c.key == key

    async def get(self, key: str) -> Entry | None:
        """
        The job with this key.

        Raises:
            StoreError: The database cannot be used.
        """
        found = await self.entries(keys=(key,))
        return found[0] if found else None

    async def entries(
        self,
        *,
        batch: str | None = None,
        keys: Collection[str] | None = None,
        states: Collection[State] | None = None,
    ) -> tuple[Entry, ...]:
        """
        Jobs, in the order in which they were added.

        Args:
            batch: Of this batch alone.
            keys: With these keys alone.
            states: In these states alone.

        Raises:
            StoreError: The database cannot be used.
        """
        asked = sa.select(JOBS).where(JOBS.c.account == self.account).order_by(JOBS.c.made_at, JOBS.c.number)
        given = (JOBS.c.batch, batch if batch is None else [batch]), (JOBS.c.key, keys), (JOBS.c.state, states)
        for column, values in given:
            if values is not None:
                asked = asked.where(column.in_(list(values)))

        def work(connection: sa.Connection) -> tuple[Entry, ...]:
            return tuple(entry_of(connection, row) for row in connection.execute(asked).mappings().all())

        return await self.database.read(work)

    async def kept(self, batch: str | None = None) -> dict[str, Kept]:
        """
        All jobs by key, as far as that takes no reading of their edits.

        Args:
            batch: Of this batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        asked = sa.select(JOBS.c.key, JOBS.c.batch, JOBS.c.state, JOBS.c.output, JOBS.c.payload)
        asked = asked.where(JOBS.c.account == self.account)
        if batch is not None:
            asked = asked.where(JOBS.c.batch == batch)

        def work(connection: sa.Connection) -> dict[str, Kept]:
            found = connection.execute(asked)
            return {key: Kept(batch=of, state=state, output=file, payload=edit) for key, of, state, file, edit in found}

        return await self.database.read(work)

    async def batches(self) -> tuple[str, ...]:
        """
        The names of all batches.

        Raises:
            StoreError: The database cannot be used.
        """
        asked = sa.select(BATCHES.c.batch).where(BATCHES.c.account == self.account).order_by(BATCHES.c.batch)
        return await self.database.read(lambda connection: tuple(connection.execute(asked).scalars()))

    async def again(self, entries: Sequence[Entry], enqueue: Enqueue) -> int:
        """
        Begin jobs once more that have ended; how many it were.

        One whose task failed gets another paid run; every other goes on under the key that it had, so that what may
        have been paid for already is found.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> int:
            begun = []
            for entry in entries:
                attempt, fresh = entry.attempt + 1, bool(entry.outcome.get("task_failed"))
                values = {"attempt": attempt, "state": "waiting", "outcome": None}
                if fresh:
                    # What the run before came to is one thing, what this one may cost another.
                    values |= {"run": entry.run + 1, "cost": JOBS.c.cost + JOBS.c.reserved, "reserved": 0}
                stands = JOBS.c.attempt == entry.attempt, JOBS.c.state.in_(AGAIN)
                if connection.execute(sa.update(JOBS).where(*self._is(entry.key), *stands).values(**values)).rowcount:
                    begun.append((entry.key, attempt, workflow_id(self.account, entry.job, attempt)))
            for turn, told in enumerate(begun, self._turn(connection, len(begun))):
                enqueue(connection, *told, turn)
            return len(begun)

        return await self.database.transact(work)

    async def cancel(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """
        End those that wait; one whose paid call may be on its way goes on. Those that it ended.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> tuple[Entry, ...]:
            ended = []
            for entry in entries:
                stands = JOBS.c.attempt == entry.attempt, JOBS.c.state == "waiting"
                said = {"state": "cancelled", "ended_at": time.time(), "outcome": "{}"}
                if connection.execute(sa.update(JOBS).where(*self._is(entry.key), *stands).values(**said)).rowcount:
                    ended.append(entry)
            return tuple(ended)

        return await self.database.transact(work)

    async def counts(self, batch: str | None = None) -> Counts:
        """
        How far it is.

        Args:
            batch: This batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        jobs, money = [JOBS.c.account == self.account], [BATCHES.c.account == self.account]
        if batch is not None:
            jobs, money = [*jobs, JOBS.c.batch == batch], [*money, BATCHES.c.batch == batch]

        def work(connection: sa.Connection) -> Counts:
            asked = sa.select(JOBS.c.state, sa.func.count()).where(*jobs).group_by(JOBS.c.state)
            states = {str(state): int(count) for state, count in connection.execute(asked)}
            ends = sa.select(JOBS.c.ended_at).where(*jobs, JOBS.c.state == "done").order_by(JOBS.c.ended_at.desc())
            batches = connection.execute(sa.select(BATCHES).where(*money)).mappings().all()
            budgets = [row["budget"] for row in batches]
            account = connection.execute(sa.select(ACCOUNTS).where(ACCOUNTS.c.account == self.account)).mappings().one()
            return Counts(
                states=states,
                spent=units(sum(row["spent"] for row in batches)),
                budget=None if not budgets or None in budgets else units(sum(budgets)),
                paused=account["paused"],
                slots=int(account["slots"]),
                ended_at=tuple(connection.execute(ends.limit(LATEST)).scalars()),
            )

        return await self.database.read(work)
