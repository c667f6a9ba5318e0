"""
What the workers of an account agree on: how many tasks may run, whether any is created at all, and who is alive.
"""

import time
from collections.abc import Collection
from typing import Final, Literal

import sqlalchemy as sa
from attrs import define, field

from kling_async.errors import InvalidInputError

from ._database import Database
from ._tables import ACCOUNTS, TABLES, WORKERS, insert

START: Final = 5.0
"""Slots of an account of which nothing is known."""
SHRINK: Final = 0.8
"""What a full quota leaves of the learned slots; as many ends as there are slots add one."""
CALM: Final = 5.0
"""Seconds in which further refusals are one and the same."""


def checked_account(value: object) -> str:
    """
    The name of an account.

    Raises:
        InvalidInputError: It cannot be one.
    """
    if not isinstance(value, str) or not value.replace("-", "").replace("_", "").isalnum() or not value.isascii():
        raise InvalidInputError("account", "must be a name of letters, digits, - and _; it is no key")
    return value


def checked_slots(value: object) -> int | Literal["learned"] | None:
    """
    How many tasks may run at once, as it is said.

    Raises:
        InvalidInputError: It cannot be that.
    """
    if value is None:
        return None
    if value == "learned":
        return "learned"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError("slots", f"must be a whole number from 1, or 'learned', not {value!r}")
    return value


@define(eq=False, repr=False)
class Account:
    """
    One account, by its name; whose it is only the worker's environment knows.
    """

    database: Database
    """Where it is kept."""
    name: str
    """Its name."""
    _learning: bool = field(default=False, init=False)
    """Whether its slots are learned, as it was when this was made ready."""

    async def make(self, slots: int | Literal["learned"] | None) -> int:
        """
        Make the tables and the account's row; how many tasks may run at once.

        Args:
            slots: That number; `learned` finds it out, going on from what was learned before; None leaves it as it is.

        Raises:
            StoreError: The database cannot be used.
        """
        await self.database.make(TABLES)
        learning, mine = slots == "learned", ACCOUNTS.c.account == self.name
        first = float(slots) if isinstance(slots, int) else START
        changed = {"slots": first, "learning": learning}

        def work(connection: sa.Connection) -> int:
            stands = sa.true() if slots is None else ACCOUNTS.c.learning if learning else sa.false()
            if not insert(connection, ACCOUNTS, {"account": self.name, "refused_at": 0.0, **changed}):
                connection.execute(sa.update(ACCOUNTS).where(mine, sa.not_(stands)).values(**changed))
            row = connection.execute(sa.select(ACCOUNTS).where(mine)).mappings().one()
            self._learning = bool(row["learning"])
            return int(row["slots"])

        return await self.database.transact(work)

    async def pause(self, reason: str | None) -> bool:
        """
        Let no further task be created, and say why; None lets them be created again. Whether that is new.

        Raises:
            StoreError: The database cannot be used.
        """
        stands = ACCOUNTS.c.paused.is_not(None) if reason is None else ACCOUNTS.c.paused.is_(None)
        said = sa.update(ACCOUNTS).where(ACCOUNTS.c.account == self.name, stands).values(paused=reason)
        return await self.database.transact(lambda connection: connection.execute(said).rowcount > 0)

    async def paused(self) -> str | None:
        """
        Why no further task is created, if that is so.

        Raises:
            StoreError: The database cannot be used.
        """
        asked = sa.select(ACCOUNTS.c.paused).where(ACCOUNTS.c.account == self.name)
        return await self.database.read(lambda connection: connection.execute(asked).scalar())

    async def learned(self, *, refused: bool) -> int | None:
        """
        Take a full quota or a task's end into account; how many tasks may run at once then, if that changed.

        Raises:
            StoreError: The database cannot be used.
        """
        if not refused and not self._learning:
            return None

        def work(connection: sa.Connection) -> int | None:
            mine, now = ACCOUNTS.c.account == self.name, time.time()
            row = connection.execute(sa.select(ACCOUNTS).where(mine).with_for_update()).mappings().one()
            if not row["learning"] or (refused and now - row["refused_at"] < CALM):
                return None
            slots = max(1.0, SHRINK * row["slots"]) if refused else row["slots"] + 1 / row["slots"]
            at = now if refused else row["refused_at"]
            connection.execute(sa.update(ACCOUNTS).where(mine).values(slots=slots, refused_at=at))
            return int(slots) if int(slots) != int(row["slots"]) else None

        return await self.database.transact(work)

    async def seen(self, executor: str) -> None:
        """
        Note that a worker is alive.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> None:
            now = float(connection.execute(sa.select(self.database.clock)).scalar_one())
            if not insert(connection, WORKERS, {"executor": executor, "seen_at": now}):
                connection.execute(sa.update(WORKERS).where(WORKERS.c.executor == executor).values(seen_at=now))

        await self.database.transact(work)

    async def silent(self, executors: Collection[str], lease: float) -> tuple[str, ...]:
        """
        Those workers that gave no sign of life for so many seconds.

        Raises:
            StoreError: The database cannot be used.
        """

        def work(connection: sa.Connection) -> tuple[str, ...]:
            now = float(connection.execute(sa.select(self.database.clock)).scalar_one())
            found = connection.execute(sa.select(WORKERS).where(WORKERS.c.executor.in_(executors))).mappings()
            alive = {row["executor"] for row in found if now - row["seen_at"] < lease}
            return tuple(each for each in executors if each not in alive)

        return await self.database.read(work)
