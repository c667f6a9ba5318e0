"""
A batch's money: taken from its budget before anything is sent, and given back where it cost less.

A cost that nobody knows is never zero: before the paid call no budget covers it, after it the worst case stays spent.
"""

import time
from collections.abc import Mapping
from decimal import Decimal

import orjson
import sqlalchemy as sa
from attrs import define

from kling_async.errors import InvalidInputError

from ._database import Database
from ._entries import BEGUN, Entry, State
from ._tables import BATCHES, JOBS, insert, millionths, units


def checked_budget(units: Decimal | int | None) -> Decimal | None:
    """
    What a batch may cost, as it is said; None is no bound.

    Raises:
        InvalidInputError: It is no number from 0.
    """
    try:
        value = None if units is None else Decimal(units)
    except (ArithmeticError, TypeError, ValueError):
        value = Decimal("nan")
    if value is not None and (not value.is_finite() or value < 0):
        raise InvalidInputError("budget", f"must be a number of units from 0, not {units!r}")
    return value


@define(eq=False, repr=False)
class Money:
    """
    What the batches of one account may cost, and did.
    """

    database: Database
    """Where it is kept."""
    account: str
    """Its name."""

    def _of(self, batch: str) -> tuple[sa.ColumnElement[bool], ...]:
        return BATCHES.c.account == self.account, BATCHES.c.batch == batch

    def _is(self, key: str) -> tuple[sa.ColumnElement[bool], ...]:
        return JOBS.c.account == self.account, JOBS.c.key == key

    async def set_budget(self, batch: str, budget: Decimal | None) -> None:
        """
        Say how many units a batch may cost; None is no bound.

        Raises:
            StoreError: The database cannot be used.
        """
        value = None if budget is None else millionths(budget)

        def work(connection: sa.Connection) -> None:
            insert(connection, BATCHES, {"account": self.account, "batch": batch, "spent": 0})
            connection.execute(sa.update(BATCHES).where(*self._of(batch)).values(budget=value))

        await self.database.transact(work)

    async def reserve(self, entry: Entry, worst: Decimal | None, *, paid: bool = False) -> str | None:
        """
        Take what an edit may cost from the budget; None when it may run, else why it must not.

        What an earlier attempt at the same run left taken is not taken twice.

        Args:
            entry: The job.
            worst: Units that it may cost at most; None is unknown.
            paid: Whether its task is there already, so that there is nothing to refuse any more.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> str | None:
            # The batch's row first, and held: no two workers spend the same units.
            locked = sa.select(BATCHES).where(*self._of(entry.batch)).with_for_update()
            money = connection.execute(locked).mappings().one()
            kept = connection.execute(sa.select(JOBS).where(*self._is(entry.key))).mappings().one()
            if kept["attempt"] != entry.attempt or kept["state"] not in BEGUN:
                return "it was cancelled"
            if kept["state"] == "running":
                # Already, before a worker died on it: its units are taken.
                return None
            held, cost = kept["reserved"], 0 if worst is None else millionths(worst)
            if paid:
                cost = held or cost
            elif money["budget"] is not None:
                if worst is None:
                    return "nobody knows beforehand what it costs, so that no budget covers it"
                left = money["budget"] - money["spent"] + held
                if cost > left:
                    return f"it may cost {worst:f} units, and {units(max(0, left)):f} of the budget are left"
            self._change(connection, entry, cost - held, {"state": "running", "reserved": cost})
            return None

        return await self.database.transact(work)

    async def end(self, entry: Entry, state: State, outcome: Mapping[str, object], cost: Decimal | None) -> None:
        """
        Write down what came of a job. An attempt that has ended, or that another has followed, stays as it is.

        Args:
            entry: The job.
            state: How it ended.
            outcome: What is told of it.
            cost: Units; None where nobody knows, and its worst case stays spent.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.select(BATCHES).where(*self._of(entry.batch)).with_for_update())
            kept = connection.execute(sa.select(JOBS).where(*self._is(entry.key))).mappings().one()
            if kept["attempt"] != entry.attempt or kept["state"] not in BEGUN:
                return
            held = kept["reserved"]
            came = held if cost is None else millionths(cost)
            said = {"state": state, "outcome": orjson.dumps(outcome).decode(), "ended_at": time.time()}
            self._change(connection, entry, came - held, {**said, "reserved": came})

        await self.database.transact(work)

    def _change(self, connection: sa.Connection, entry: Entry, more: int, values: Mapping[str, object]) -> None:
        connection.execute(sa.update(JOBS).where(*self._is(entry.key)).values(**values))
        if more:
            spent = BATCHES.c.spent + more
            connection.execute(sa.update(BATCHES).where(*self._of(entry.batch)).values(spent=spent))
