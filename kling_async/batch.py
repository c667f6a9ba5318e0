"""
Many edits: each through session, points, gate, paid create and wait, as many at once as there are slots.

Failures are values. Selections are opened only a few ahead of the slots, so that none waits out its 24 hours.
"""

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from ._exchange import log
from ._submit import clip_digest
from .client import KlingClient
from .errors import (
    AccountError,
    AuthenticationError,
    DeclinedError,
    InvalidInputError,
    KlingError,
    QuotaFullError,
)
from .jobs import Edited, Failed, Job, Outcome
from .models import Task
from .selection import SelectionSession
from .slots import LearnedSlots, Slot, Slots

__all__ = ("edit", "edit_many")

AnySlots: TypeAlias = AbstractAsyncContextManager[object, bool | None]
Gate: TypeAlias = Callable[[Job, SelectionSession], Awaitable[str | None]]

AHEAD = 2
"""Jobs that may be prepared while every slot is held."""
PREPARED_MOST = 32
"""Jobs that may be prepared at once, however many slots are free: connections are left for what costs money."""
UNREAD_MOST = 64
"""Outcomes that may wait for their reader before no further job is begun."""
QUOTA_WAIT, QUOTA_MOST = 1.0, 60.0
"""Seconds that a full quota is waited for at least (https://klingai.com/document-api, concurrency) and at most."""
LOOK_SIZE = 100
"""Tasks that are looked at, newest first, to see how many run already."""
LOOK_MOST = 10.0
"""Seconds that this look may take."""


async def edit(client: KlingClient, job: Job, *, slots: AnySlots | None = None, gate: Gate | None = None) -> Task:
    """
    Do one job and return its final task.

    A key that already has a task goes on with that task, before any selection is opened, and pays nothing. A
    full quota (1303) is waited for. Deadlines are the caller's scope.

    Args:
        client: An open client.
        job: What to do.
        slots: Held from the create to the task's end; anything reusable under `async with`.
        gate: Runs just before the paid create; a text that it returns declines.

    Raises:
        DeclinedError: The gate said no; nothing is paid.
        TaskFailedError: The task failed.
        UnknownOutcomeError: A paid task may exist.
        KeyConflictError: The key stands for another edit.
        KlingError: As the calls on the way.
    """
    return await _Run(client, slots, gate).edit(job, _Place())


@define
class _Run:
    """
    The way of a job, with what all jobs of a batch share.
    """

    client: KlingClient
    slots: AnySlots | None
    gate: Gate | None
    stopped: KlingError | None = None

    async def edit(self, job: Job, place: "_Place") -> Task:
        """Do the job; its place is left once it holds its slot, or needs none."""
        known = await self._known(job)
        if known is not None:
            place.leave()
            return await self._resumed(known)
        self._check_stopped()
        async with place:
            # The selection is gone by now: minutes long, it would keep every mask of its frames.
            return await self.client.wait(await self._submitted(job, place))

    async def _submitted(self, job: Job, place: "_Place") -> Task:
        """Its task, just created, and its slot held on."""
        async with SelectionSession(self.client, video_url=job.video_url, video_id=job.video_id) as selection:
            for frame_index, points in job.marks.items():
                await selection.add_points(frame_index, points)
            if self.gate is not None and (reason := await self.gate(job, selection)) is not None:
                raise DeclinedError(reason)
            slot = self.slots.slot(self._running) if isinstance(self.slots, LearnedSlots) else self.slots
            if slot is not None:
                await place.hold(slot)
            place.leave()
            return await self._created(job, selection, slot)

    async def _known(self, job: Job) -> Task | None:
        key = job.external_task_id
        if key is None:
            return None
        return await self.client.creates.known(key, clip_digest(job.source, job.marks, job.edit))

    async def _resumed(self, known: Task) -> Task:
        if known.done or not isinstance(self.slots, LearnedSlots):
            return await self.client.wait(known)
        with self.slots.resumed():
            return await self.client.wait(known)

    async def _running(self) -> int:
        """How many tasks of the account run already; 0 where that cannot be seen."""
        if not self.client.creates.exchange.host.lists:
            return 0
        try:
            with anyio.fail_after(LOOK_MOST):
                tasks = await self.client.list_tasks(page_size=LOOK_SIZE)
        except (KlingError, TimeoutError) as error:
            log.info("how many tasks run already cannot be seen (%s)", type(error).__name__)
            return 0
        return sum(not task.done for task in tasks)

    async def _created(self, job: Job, selection: SelectionSession, slot: AnySlots | None) -> Task:
        # Where there is none one is drawn with the first create: what nobody has given need not be looked for before.
        key = job.external_task_id
        refusals = 0
        while True:
            self._check_stopped()
            try:
                task = await selection.create_task(job.edit, external_task_id=key)
            except QuotaFullError as error:
                key, refusals, asked = error.external_task_id, refusals + 1, error.retry_after or 0.0
            except (AccountError, AuthenticationError) as error:
                self.stopped = error
                raise
            else:
                if isinstance(slot, Slot):
                    slot.accepted()
                return task
            await self._room(key, slot, refusals, asked)

    async def _room(self, key: str | None, slot: AnySlots | None, refusals: int, asked: float) -> None:
        """Return when a create that was refused for a full quota may be sent again."""
        least = min(QUOTA_MOST, max(QUOTA_WAIT, asked))
        delay = min(QUOTA_MOST, max(least, self.client.creates.exchange.drawn(refusals)))
        if isinstance(slot, Slot):
            log.info("create %s: the quota is full; again when there is room", key)
            await slot.refused(pause=least, alone=delay, most=QUOTA_MOST)
        else:
            log.info("create %s: the quota is full; again in %.1f s", key, delay)
            await anyio.sleep(delay)

    def _check_stopped(self) -> None:
        if self.stopped is not None:
            raise self.stopped


def edit_many(
    client: KlingClient,
    jobs: Iterable[Job] | AsyncIterable[Job],
    *,
    slots: AnySlots | int,
    gate: Gate | None = None,
) -> "EditMany":
    """
    Do many jobs; outcomes come in the order of their ends. Leaving the block cancels what runs here.

    ::

        async with edit_many(client, jobs, slots=5) as outcomes:
            async for outcome in outcomes:
                match outcome:
                    case Edited(job, task): ...
                    case Failed(job, error): ...

    Only a KlingError becomes `Failed`; what a gate or the jobs raise otherwise ends the block. After an error of
    the account or the key no further job is created, and the rest are Failed with it. The same key twice is Failed
    with InvalidInputError.

    Args:
        client: An open client.
        jobs: Read one by one, as slots come free.
        slots: How many tasks run at once, or anything reusable under `async with`.
        gate: Runs just before each paid create; a text that it returns declines.

    Raises:
        InvalidInputError: `slots` is no whole number from 1.
        TypeError: It is iterated without `async with`.
    """
    return EditMany(_Run(client, Slots(slots) if isinstance(slots, int) else slots, gate), jobs)


@define(eq=False)
class EditMany:
    """
    A batch while its block lasts.
    """

    _run: _Run
    _jobs: Iterable[Job] | AsyncIterable[Job]
    _group: TaskGroup = field(init=False)
    _outcomes: "_Outcomes" = field(init=False)
    _keys: set[str] = field(factory=set, init=False)

    def __aiter__(self) -> AsyncIterator[Outcome]:
        msg = "iterate inside its block: async with edit_many(...) as outcomes: async for outcome in outcomes"
        raise TypeError(msg)

    async def __aenter__(self) -> AsyncIterator[Outcome]:
        send, receive = anyio.create_memory_object_stream[Outcome](math.inf)
        self._outcomes = _Outcomes(receive)
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._feed, send)
        return self._outcomes

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._group.cancel_scope.cancel()
        cancelled = kind is not None and issubclass(kind, anyio.get_cancelled_exc_class())
        passed = (kind, error, trace) if cancelled else (None, None, None)
        try:
            await self._group.__aexit__(*passed)
        except BaseExceptionGroup as group:
            if error is None or cancelled:
                raise _single(group) from None
        finally:
            self._outcomes.close()
        return False

    async def _feed(self, send: MemoryObjectSendStream[Outcome]) -> None:
        ahead, jobs = _Ahead(self._run.slots), _lifted(self._jobs)
        async with send, anyio.create_task_group() as workers:
            while True:
                await self._outcomes.room()
                await ahead.room()
                try:
                    job = await anext(jobs)
                except StopAsyncIteration:
                    return
                refusal = self._refusal(job)
                if refusal is None:
                    ahead.count += 1
                    workers.start_soon(self._work, job, send, _Place(ahead))
                else:
                    send.send_nowait(Failed(job, refusal))

    def _refusal(self, job: Job) -> KlingError | None:
        """Why a job is not even begun."""
        if self._run.stopped is not None:
            return self._run.stopped
        if job.key is None:
            return None
        if job.key in self._keys:
            return InvalidInputError("key", f"{job.key!r} came before in this batch: one key is one paid run")
        self._keys.add(job.key)
        return None

    async def _work(self, job: Job, send: MemoryObjectSendStream[Outcome], place: "_Place") -> None:
        try:
            outcome: Outcome = Edited(job, await self._run.edit(job, place))
        except KlingError as error:
            outcome = Failed(job, error)
        finally:
            place.leave()
        send.send_nowait(outcome)


@define(eq=False)
class _Ahead:
    """
    The jobs that are prepared: as many as there are free slots, where it is known how many these are, or a few.
    """

    _slots: AnySlots | None
    count: int = field(default=0, init=False)
    _changed: anyio.Event = field(factory=anyio.Event, init=False)

    @property
    def _most(self) -> int:
        slots = self._slots
        free = max(0, slots.limit - slots.held) if isinstance(slots, Slots) else 0
        return max(AHEAD, min(PREPARED_MOST, free))

    async def room(self) -> None:
        """Return when one more may be prepared, and the one before has begun."""
        await anyio.lowlevel.checkpoint()
        while self.count >= self._most:
            self._changed = anyio.Event()
            await self._changed.wait()

    def left(self, *, prepared: bool) -> None:
        """One of them holds its slot now; or one that did so before has given it back."""
        self.count -= prepared
        self._changed.set()


@define(eq=False)
class _Place:
    """
    What a job holds: a place among those that are prepared ahead, which is left once, and then its slot.

    One object for both, for it is there as long as the task runs, and each costs the collector time.
    """

    _ahead: "_Ahead | None" = None
    _left: bool = field(default=False, init=False)
    _slot: AnySlots | None = field(default=None, init=False)

    def leave(self) -> None:
        """Make room for the next job to be read: once as it is prepared, and once as it has ended."""
        if self._ahead is not None:
            self._ahead.left(prepared=not self._left)
            self._left = True

    async def hold(self, slot: AnySlots) -> None:
        """Take the slot, which is given back at the end of the block."""
        await slot.__aenter__()
        self._slot = slot

    async def __aenter__(self) -> None:
        """Nothing is held yet."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None if self._slot is None else await self._slot.__aexit__(kind, error, trace)


@define(eq=False)
class _Outcomes:
    """
    Outcomes as they come; reading them makes room for further jobs.
    """

    _stream: MemoryObjectReceiveStream[Outcome]
    _read: anyio.Event = field(factory=anyio.Event, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        try:
            outcome = await self._stream.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        self._read.set()
        return outcome

    async def room(self) -> None:
        """Return when few enough outcomes wait for their reader."""
        while self._stream.statistics().current_buffer_used >= UNREAD_MOST:
            self._read = anyio.Event()
            await self._read.wait()

    def close(self) -> None:
        """Let go of the stream."""
        self._stream.close()


@define(eq=False)
class _Lifted:
    """
    An iterator of jobs, read as an asynchronous one.
    """

    _jobs: Iterator[Job]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        try:
            return next(self._jobs)
        except StopIteration:
            raise StopAsyncIteration from None


def _lifted(jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
    return aiter(jobs if isinstance(jobs, AsyncIterable) else _Lifted(iter(jobs)))


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group: what went wrong in our tasks comes out as itself."""
    first = group.exceptions[0]
    return _single(first) if isinstance(first, BaseExceptionGroup) else first
