"""
DbosRunner: batches that outlive their process, from the side of whoever submits and of whoever works.

Submitting, asking and cancelling go through threads and run on asyncio and trio alike; working needs asyncio, as the
engine does.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import anyio
from anyio.to_thread import run_sync
from attrs import define, field

from kling_async._outputs import check_output
from kling_async.batch import Gate
from kling_async.client import KlingClient
from kling_async.errors import ClosedError, InvalidInputError, NotFoundError
from kling_async.jobs import Job
from kling_async.policy import check_seconds
from kling_async.stores import IntentStore

from ._account import Account, checked_account, checked_slots
from ._database import Database
from ._engine import Engine, check_loop
from ._entries import AGAIN, BEGUN, Entry, Kept, State, Wish
from ._fleet import Fleet, Place
from ._money import Money, checked_budget
from ._records import Records
from ._results import INDEX, BatchResult, index, written
from ._status import BatchStatus
from ._tables import JOBS
from ._work import Worker

CHUNK = 200
"""Jobs that are added by one transaction."""
LOOK_FIRST, LOOK_MOST = 0.2, 5.0
"""Seconds between two looks at a job that is waited for."""
LEASE = 60.0
PATIENCE = 3600.0
POLLING = 0.5
WAITING: Final[frozenset[State]] = frozenset({"waiting"})
FAILED: Final[frozenset[State]] = frozenset({"failed"})
OWED: Final[frozenset[State]] = frozenset({"refused", "unknown", "failed"})
SWEEP = 3600.0
"""Seconds between two sweeps for results that could not be fetched."""


def _from_env(store: IntentStore) -> KlingClient:
    return KlingClient.from_env(store=store)


@define(eq=False, repr=False)
class DbosRunner:
    """
    A batch that survives: jobs go into a database, workers take them from there, and each is paid once.

    The database is a SQLite file on one machine, or Postgres for many. Credentials never go into it: `account` is a
    name, and each worker makes its own client. As a context manager it makes what is missing in the database.

    Example:
        >>> DbosRunner("sqlite:///spring/batch.sqlite", slots=5)
        DbosRunner(Database(sqlite:///spring/batch.sqlite), account=default)

    Raises:
        InvalidInputError: A value makes no sense, or DBOS is not installed.
    """

    _database: Database = field(converter=Database)
    """URL: `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`."""
    account: str = field(default="default", kw_only=True, converter=checked_account)
    """Whose tasks these are, by a name of your own; its workers share one limit."""
    slots: int | Literal["learned"] | None = field(default=None, kw_only=True, converter=checked_slots)
    """Tasks that may run at once, over all workers; `learned` finds it out; None is what was said before, or 5."""
    out: Path = field(default=Path(), kw_only=True, converter=Path)
    """Folder of the results."""
    client: Callable[[IntentStore], KlingClient] = field(default=_from_env, kw_only=True)
    """Makes a worker's client with this store, in which the paid creates of a worker that dies are found again."""
    gate: Gate | None = field(default=None, kw_only=True)
    """Runs just before each paid create; a text that it returns declines."""
    lease: float = field(default=LEASE, kw_only=True)
    """Seconds after which a worker that gives no sign of life is taken for dead."""
    patience: float = field(default=PATIENCE, kw_only=True)
    """Seconds for which a service that is away is waited for, before a job fails with that."""
    polling: float = field(default=POLLING, kw_only=True)
    """Seconds between two looks of a worker for new jobs."""
    _records: Records = field(init=False)
    _money: Money = field(init=False)
    _account: Account = field(init=False)
    _engine: Engine = field(init=False)
    _opened: bool | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        for name in ("lease", "patience", "polling"):
            check_seconds(name, getattr(self, name))
        self._records = Records(self._database, self.account)
        self._money = Money(self._database, self.account)
        self._account = Account(self._database, self.account)
        self._engine = Engine(self._database, f"kling-{self.account}")

    def __repr__(self) -> str:
        return f"DbosRunner({self._database!r}, account={self.account})"

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise ClosedError(f"this DbosRunner is {'open' if self._opened else 'closed'}: it opens once, make another")
        try:
            await self._engine.make(await self._account.make(self.slots), polling=self.polling)
        except BaseException:
            self._database.close()
            raise
        self._opened = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = False
        self._database.close()

    def _check_open(self, method: str) -> None:
        if not self._opened:
            raise ClosedError(f"DbosRunner.{method}() cannot be called: use it inside `async with`")

    async def submit(self, job: Job, *, output: str | None = None, batch: str = "default") -> None:
        """
        Put a job into the queue; one whose key is there already stays as it is.

        Args:
            job: What to do; it needs a key.
            output: The result's name under the worker's folder; by default the task's external id and `.mp4`.
            batch: What it belongs to.

        Raises:
            InvalidInputError: It has no key, or its result's name leads out of the folder.
            KeyConflictError: The key stands for another edit.
            StoreError: The database cannot be used.
        """
        await self.submit_many([(job, output)], batch=batch)

    async def submit_many(self, jobs: Iterable[tuple[Job, str | None]], *, batch: str = "default") -> int:
        """
        Put jobs into the queue, with the names of their results; how many were new.

        Args:
            jobs: Jobs and names.
            batch: What they belong to.

        Raises:
            InvalidInputError: One has no key, or its result's name leads out of the folder.
            KeyConflictError: A key stands for another edit.
            StoreError: The database cannot be used.
        """
        self._check_open("submit_many")
        wishes = []
        for number, (job, output) in enumerate(jobs, 1):
            if job.key is None:
                raise InvalidInputError("key", "is needed: a job that outlives its process is known by it")
            name = check_output("output", output or f"{job.external_task_id}.mp4")
            wishes.append(Wish(job=job, output=name, number=number))
        added = 0
        for at in range(0, len(wishes), CHUNK):
            added += await self._records.add(batch, wishes[at : at + CHUNK], self._engine.enqueue)
        return added

    async def result(self, key: str) -> BatchResult:
        """
        Wait until a job has ended, and tell what came of it. Deadlines are the caller's scope.

        Raises:
            NotFoundError: There is no job with this key.
            StoreError: The database cannot be used.
        """
        delay = LOOK_FIRST
        while (found := await self.get(key)).state in BEGUN:
            await anyio.sleep(delay)
            delay = min(2 * delay, LOOK_MOST)
        return found

    async def get(self, key: str) -> BatchResult:
        """
        How a job stands just now.

        Raises:
            NotFoundError: There is no job with this key.
            StoreError: The database cannot be used.
        """
        self._check_open("get")
        entry = await self._records.get(key)
        if entry is None:
            raise NotFoundError(f"no job has the key {key!r}")
        return BatchResult.of(entry)

    async def results(
        self,
        *,
        batch: str | None = None,
        keys: Collection[str] | None = None,
        states: Collection[State] | None = None,
    ) -> tuple[BatchResult, ...]:
        """
        What came of all jobs so far.

        Args:
            batch: Of this batch alone.
            keys: Those alone.
            states: In these states alone.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("results")
        entries = await self._records.entries(batch=batch, keys=keys, states=states)
        return tuple(BatchResult.of(entry) for entry in entries)

    async def exists(self) -> bool:
        """
        Whether the database is there; nothing is made, and it need not be open.

        Raises:
            StoreError: The database cannot be used.
        """
        return await self._database.holds(JOBS)

    async def kept(self, *, batch: str | None = None) -> dict[str, Kept]:
        """
        All jobs by key, each with its batch, state, file and the digest of its edit.

        Args:
            batch: Of this batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("kept")
        return await self._records.kept(batch)

    async def batches(self) -> tuple[str, ...]:
        """
        The names of all batches.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("batches")
        return await self._records.batches()

    async def status(self, *, batch: str | None = None) -> BatchStatus:
        """
        How far a batch is, or all of them.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("status")
        return BatchStatus.of(await self._records.counts(batch))

    async def retry(self, keys: Collection[str] | None = None, *, batch: str | None = None) -> int:
        """
        Begin jobs once more that came to no result; how many it were.

        A job whose task failed gets a new paid run. Every other goes on under the id that it had, and pays nothing
        for what is there.

        Args:
            keys: Those alone.
            batch: Of this batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("retry")
        return await self._again(await self._records.entries(batch=batch, keys=keys, states=AGAIN))

    async def cancel(self, keys: Collection[str] | None = None, *, batch: str | None = None) -> int:
        """
        End jobs that wait; how many it were. What runs is paid for already, and the service has no way to stop it.

        Args:
            keys: Those alone.
            batch: Of this batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("cancel")
        found = await self._records.entries(batch=batch, keys=keys, states=WAITING)
        return len(await self._records.cancel(found))

    async def resume(self, *, batch: str | None = None) -> int:
        """
        Go on after a pause, and begin again what nothing was paid for or can only be fetched; how many jobs that were.

        Args:
            batch: Of this batch alone.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("resume")
        await self._account.pause(None)
        found = await self._records.entries(batch=batch, states=OWED)
        return await self._again([each for each in found if each.owed])

    async def _again(self, entries: Collection[Entry]) -> int:
        return await self._records.again(tuple(entries), self._engine.enqueue)

    async def set_budget(self, units: Decimal | int | None, *, batch: str = "default") -> None:
        """
        Say how many units a batch may cost. An edit that might cost more than is left is refused before it is paid.

        Args:
            units: In the provider's units; None is no bound.
            batch: Which one.

        Raises:
            InvalidInputError: It is no number from 0.
            StoreError: The database cannot be used.
        """
        self._check_open("set_budget")
        await self._money.set_budget(batch, checked_budget(units))

    async def write_index(self, *, batch: str | None = None) -> Path:
        """
        Write the index of the batch into the folder of the results.

        Raises:
            StoreError: The database cannot be used.
        """
        self._check_open("write_index")
        entries = await self._records.entries(batch=batch)
        path = self.out / INDEX
        await run_sync(written, path, index(entries))
        return path

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """
        Work while the block lasts, in this process; it needs asyncio. One runner of a process works at a time.

        Raises:
            RuntimeError: The loop is not asyncio's.
            StoreError: The database cannot be used.
        """
        self._check_open("working")
        check_loop()
        async with self.client(self._database.store()) as client:
            place = await Place.taken(self._database)
            try:
                worker = Worker(
                    client,
                    self._records,
                    self._money,
                    self._account,
                    self.out,
                    self.gate,
                    self._engine.resize,
                    self.patience,
                )
                # Before it has any work: who held the place before may have been silent for long.
                await self._account.seen(place.name)
                await self._engine.launch(worker, place.name)
                try:
                    async with anyio.create_task_group() as group:
                        group.start_soon(Fleet(place, self._account, self._engine, self.lease).run)
                        group.start_soon(self._sweep)
                        group.start_soon(self._engine.troubled)
                        yield
                        group.cancel_scope.cancel()
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._engine.leave()
            finally:
                with anyio.CancelScope(shield=True):
                    await place.release()

    async def serve(self) -> None:
        """
        Work until cancelled; it needs asyncio.

        Raises:
            RuntimeError: The loop is not asyncio's.
            StoreError: The database cannot be used.
        """
        async with self.working():
            await anyio.sleep_forever()

    async def _sweep(self) -> None:
        """Results are kept for 30 days: what could not be fetched is tried again, over and over."""
        while True:
            await anyio.sleep(SWEEP)
            await self._engine.forget()
            found = await self._records.entries(states=FAILED)
            await self._again([each for each in found if each.owed])
