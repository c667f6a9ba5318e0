"""
The workers of a batch among themselves: each has a place, shows that it lives, and takes over from those that do not.

A place is held by a lock that ends with its process, and its work is named after it, so that whoever starts next in it
goes on with what was left there. What is left in places that nobody takes is put back into the queue by the others.
"""

from functools import partial
from typing import Final

import anyio
from anyio.to_thread import run_sync
from attrs import define, field

from kling_async._exchange import log
from kling_async.errors import StoreError

from ._account import Account
from ._database import Database, Lock
from ._engine import Engine

PLACES: Final = 1_000
"""Workers of one database at most."""
BEAT: Final = 5.0
"""Seconds between two signs of life, and two looks for places that nobody holds."""
MISSED: Final = 3
"""Signs of life that a worker may miss in a row before a place that nobody holds means that it is gone."""
REAPING: Final = "reaping"
"""The lock of whoever looks, one at a time for each account."""


@define(eq=False, repr=False)
class Place:
    """
    One worker's place.
    """

    database: Database
    """Where it is held."""
    name: str
    """What its work is named after."""
    lock: Lock
    """What holds it."""

    @classmethod
    async def taken(cls, database: Database) -> "Place":
        """
        The first place that is free.

        Raises:
            StoreError: There is none, or the database cannot be used.
        """
        for number in range(PLACES):
            name = f"w{number}"
            lock = await database.run(partial(database.lock, name))
            if lock is not None:
                return cls(database, name, lock)
        raise StoreError(f"{database!r} has {PLACES} workers already")

    async def release(self) -> None:
        """Leave it."""
        await run_sync(self.lock.release)


@define(eq=False, repr=False)
class Fleet:
    """
    One worker's part in it.
    """

    place: Place
    """Its own."""
    account: Account
    engine: Engine
    lease: float
    """Seconds without a sign of life after which a worker that still holds its place is taken for dead."""
    beat: float = BEAT
    """Seconds between two signs of its own."""
    _doubted: frozenset[str] = field(default=frozenset(), init=False)
    """Held in our name and unknown here, at the last look."""
    _steady: float = field(default=0.0, init=False)
    """From when on the signs of the others tell something."""

    async def run(self) -> None:
        """
        Show signs of life and look after the others, until cancelled.

        Raises:
            StoreError: The database cannot be used, or another has taken this place.
        """
        last = anyio.current_time()
        while True:
            await self.account.seen(self.place.name)
            now = anyio.current_time()
            if now - last > 2 * self.beat:
                # We were stopped, or the database was away: then the others could show no signs of life either.
                self._steady = now + MISSED * self.beat
            last = now
            if not await self.place.database.run(self.place.lock.taken):
                raise StoreError(f"place {self.place.name} is held by another worker now: start this one again")
            if now >= self._steady:
                await self._look()
            await anyio.sleep(self.beat)

    async def _look(self) -> None:
        database, name = self.place.database, f"{REAPING}-{self.account.name}"
        turn = await database.run(lambda: database.lock(name))
        # Whoever has it may hang in the midst of it, and never let it go.
        if turn is None and not await self.account.silent((name,), self.lease):
            return
        try:
            await self.account.seen(name)
            await self._reap()
        finally:
            if turn is not None:
                await run_sync(turn.release)

    async def _reap(self) -> None:
        held = await self.engine.holders()
        ours = frozenset(self.engine.lost(held.pop(self.place.name, ())))
        # Twice in a row, for what was just handed out is not known here yet.
        lost, self._doubted = self._doubted & ours, ours
        if lost:
            await self.engine.hand_on(tuple(lost))
        others = tuple(held)
        silent = set(await self.account.silent(others, self.lease))
        # A server that was started anew has let go of all places; those who live take theirs again.
        quiet = set(await self.account.silent(others, MISSED * self.beat))
        for name, jobs in held.items():
            if name in silent or (name in quiet and await self._is_free(name)):
                log.warning("worker %s is gone: its %d jobs are handed on", name or "?", len(jobs))
                await self.engine.hand_on(jobs)

    async def _is_free(self, name: str) -> bool:
        database = self.place.database
        lock = await database.run(lambda: database.lock(name))
        if lock is not None:
            await run_sync(lock.release)
        return lock is not None
