"""
The engine under a batch, DBOS: what it is told, and how its workers take over from one that died.

Decides names, versions and settings that must stay as they are for old batches to go on under new releases. One
process holds one engine, so that what it runs for is kept here. Source: https://docs.dbos.dev/python/reference
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import anyio
import sqlalchemy as sa
from anyio.lowlevel import current_token
from anyio.to_thread import run_sync
from attrs import define, field
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions, Queue
from sqlalchemy.exc import SQLAlchemyError

from kling_async._exchange import log
from kling_async.errors import ClosedError, StoreError

from ._database import Database
from ._entries import BEGUN
from ._work import JSON, Worker

T = TypeVar("T")

APP: Final = "kling-async"
VERSION: Final = "1"
"""Of the steps and their order: workers take up work of their own version alone. It changes only where those do."""
WORKFLOW: Final = "kling_edit"
RECOVERIES: Final = 1_000
"""How often a job may be taken over before it is left alone."""
TURNS: Final = (1 << 31) - 1
"""The last place in a queue that the engine knows."""
THREADS: Final = 32
"""For the engine's database work."""
KEPT: Final = 30.0
"""Days that the engine's rows of ended jobs are kept; the batch's own stay."""
FORGOTTEN: Final = 1_000
"""Rows that are dropped at a time."""


class _Passing(logging.Handler):
    """
    What the engine says, through our own logger: it would write to the console by itself.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """
        Passed on.
        """
        log.log(record.levelno, "dbos: %s", record.getMessage())


@define(eq=False)
class _Here:
    """
    What this process does the engine's work with.
    """

    worker: Worker | None = None
    running: set["asyncio.Task[object]"] = field(factory=set)
    ids: set[str] = field(factory=set)
    trouble: BaseException | None = None
    """What no job is to be blamed for, such as a gate's own mistake."""
    troubled: anyio.Event = field(factory=anyio.Event)


_here: Final = _Here()


def check_loop() -> None:
    """
    Whether the engine can work on the running loop.

    Raises:
        RuntimeError: It is not asyncio's.
    """
    ours: object = current_token().native_token
    if isinstance(ours, asyncio.AbstractEventLoop):
        return
    msg = "DBOS works on asyncio alone: submit and ask from here, and let workers run as processes apart"
    raise RuntimeError(msg)


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=RECOVERIES)
async def _edit(key: str, attempt: int) -> JSON:
    """One attempt at one job."""
    worker, task, name = _here.worker, asyncio.current_task(), DBOS.workflow_id
    if worker is None or task is None or name is None:
        # Handed out while this worker left: it stays where it is, for whoever comes next.
        raise asyncio.CancelledError
    _here.running.add(task)
    _here.ids.add(name)
    try:
        return await _steps(worker, key, attempt)
    finally:
        _here.running.discard(task)
        _here.ids.discard(name)


async def _steps(worker: Worker, key: str, attempt: int) -> JSON:
    entry = await _kept(partial(worker.records.get, key))
    if entry is None or entry.attempt != attempt or entry.state not in BEGUN:
        # Cancelled, ended by a worker that died before the engine heard of it, or begun anew meanwhile.
        return {"state": "settled"}
    prepared: JSON = await _step("prepare", partial(worker.prepare, entry))
    reserved: JSON = prepared
    submitted: JSON = {}
    if "ended" not in prepared:
        # The job's own row remembers what is reserved, and how it ended: a second note of the engine's adds nothing.
        reserved = await _kept(partial(worker.reserve, entry, prepared))
    if "ended" not in reserved:
        submitted = await _step("submit", partial(worker.submit, entry, prepared))
    return await _kept(partial(worker.finish, entry, {**prepared, **reserved}, submitted))


async def _step(name: str, work: Callable[[], Coroutine[object, object, JSON]]) -> JSON:
    # Never with the engine's own retries: what may be repeated is decided in `_work.py`.
    result: JSON = await DBOS.run_step_async({"name": name}, partial(_kept, work))
    return result


async def _kept(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """
    Its result. An error would be the engine's last word on a job: a job that is cut off instead is taken up again.
    """
    try:
        return await work()
    except asyncio.CancelledError:
        raise
    except (ClosedError, StoreError) as error:
        log.warning("a job is put back: %s", error)
        raise asyncio.CancelledError from error
    except BaseException as error:
        _here.trouble = error
        _here.troubled.set()
        raise asyncio.CancelledError from error


@define(eq=False, repr=False)
class Engine:
    """
    DBOS on the batch's database.
    """

    database: Database
    """Where it keeps its tables."""
    queue: str
    """The queue's name, one for each account."""
    _client: DBOSClient | None = field(default=None, init=False)

    async def make(self, slots: int, *, polling: float) -> None:
        """
        Make its tables and the queue.

        Args:
            slots: Jobs of the account that may run at once, on all workers together.
            polling: Seconds between two looks for work.

        Raises:
            StoreError: The database cannot be used.
        """
        await self.database.run(self._migrate)
        await self.database.run(
            lambda: self.client.register_queue(
                self.queue, global_concurrency=slots, polling_interval_sec=polling, on_conflict="always_update"
            )
        )

    def _migrate(self) -> None:
        with self.database.locked("migrating"):
            DBOS.migrate(self.database.plain)

    @property
    def client(self) -> DBOSClient:
        """What enqueues and looks, without doing any work."""
        if self._client is None:
            self._client = DBOSClient(
                system_database_engine=self.database.pool,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APP,
                lazy=True,
                retry_connection_errors=False,
            )
        return self._client

    async def resize(self, slots: int) -> None:
        """
        Say how many jobs may run at once.

        Raises:
            StoreError: The database cannot be used.
        """

        def work() -> None:
            queue: Queue | None = self.client.retrieve_queue(self.queue)
            if queue is not None:
                queue.set_global_concurrency(slots)

        await self.database.run(work)

    def enqueue(self, connection: sa.Connection, key: str, attempt: int, workflow_id: str, turn: int = 1) -> None:
        """
        Put an attempt into the queue, within a transaction; one that is there already stays as it is.

        Args:
            connection: With the transaction.
            key: The job's.
            attempt: Its number.
            workflow_id: What the engine calls it.
            turn: Its place in the queue, which it keeps when it is taken over.
        """
        options = EnqueueOptions(
            workflow_name=WORKFLOW,
            queue_name=self.queue,
            workflow_id=workflow_id,
            app_version=VERSION,
            priority=min(turn, TURNS),
        )
        self.client.enqueue_in_transaction(connection, options, key, attempt)

    async def launch(self, worker: Worker, executor: str) -> None:
        """
        Begin to work, on the running loop.

        Args:
            worker: Who does it.
            executor: The name under which it holds jobs; no other process that lives may have it.

        Raises:
            StoreError: This process works already, or the database cannot be used.
        """
        if _here.worker is not None:
            raise StoreError("this process works for a batch already: one runner serves at a time")
        _here.worker, _here.trouble, _here.troubled = worker, None, anyio.Event()
        try:
            self._start(executor)
        except BaseException as error:
            await self.leave()
            if isinstance(error, SQLAlchemyError):
                raise self.database.unusable(error) from error
            raise

    def _start(self, executor: str) -> None:
        engine_log = logging.getLogger("dbos")
        if not engine_log.handlers:
            engine_log.addHandler(_Passing(logging.ERROR))
            engine_log.propagate = False
        DBOS(
            config=DBOSConfig(
                name=APP,
                system_database_url=self.database.plain,
                system_database_engine=self.database.pool,
                application_version=VERSION,
                executor_id=executor,
                serializer=DBOSPortableJSONSerializer(),
                use_listen_notify=False,
                max_executor_threads=THREADS,
                log_level="ERROR",
            )
        )
        # Its loop is the one that it is launched on.
        DBOS.listen_queues([self.queue])
        DBOS.launch()

    async def troubled(self) -> None:
        """
        Wait until the work meets what no job is to be blamed for, such as a gate's own mistake, and raise it.
        """
        await _here.troubled.wait()
        assert _here.trouble is not None
        raise _here.trouble

    async def leave(self) -> None:
        """
        Stop working: what runs is cut off, and goes on wherever it is taken up.
        """
        await self._cut()
        await run_sync(DBOS.destroy)
        # The queue may have handed out more until then.
        await self._cut()
        # The loop's own threads were the engine's, and ended with it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        _here.worker = None

    async def _cut(self) -> None:
        running = tuple(_here.running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def holders(self) -> dict[str, tuple[str, ...]]:
        """
        Jobs that run, by who holds them.

        Raises:
            StoreError: The database cannot be used.
        """
        found = await self.database.run(
            lambda: self.client.list_workflows(
                status="PENDING", queue_name=self.queue, load_input=False, load_output=False
            )
        )
        held: dict[str, tuple[str, ...]] = {}
        for each in found:
            name = each.executor_id or ""
            held[name] = (*held.get(name, ()), each.workflow_id)
        return held

    async def hand_on(self, workflow_ids: tuple[str, ...]) -> None:
        """
        Put jobs back into the queue, whose holders are gone.

        Raises:
            StoreError: The database cannot be used.
        """
        await self.database.run(lambda: self.client.resume_workflows(list(workflow_ids), queue_name=self.queue))

    async def forget(self) -> None:
        """
        Drop the engine's rows of jobs that ended long ago.

        Raises:
            StoreError: The database cannot be used.
        """
        before = (datetime.now(UTC) - timedelta(days=KEPT)).isoformat()

        def work() -> None:
            ended = self.client.list_workflows(
                queue_name=self.queue, completed_before=before, limit=FORGOTTEN, load_input=False, load_output=False
            )
            self.client.delete_workflows([each.workflow_id for each in ended])

        await self.database.run(work)

    def lost(self, workflow_ids: tuple[str, ...]) -> tuple[str, ...]:
        """
        Those that this process is said to hold and knows nothing of.
        """
        return tuple(each for each in workflow_ids if each not in _here.ids)
