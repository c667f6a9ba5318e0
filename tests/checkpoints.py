"""
Cuts an operation off at its n-th wait, for n = 1, 2, 3 and so on, until it comes through without being cut.

A cut is made as the task begins to wait, or as soon as what it waited for is there and the task has not gone on yet:
there asyncio's own `Task.cancel()` loses what came. It is that call, or the cancellation of a scope.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import anyio.lowlevel
from attrs import define, field

PATIENCE = 10.0
"""Seconds that an engine waits for trio's cancellation at most."""


def natives(backend):
    """
    Kinds of cancellation: of a scope, and on asyncio that loop's own.
    """
    return (False, True) if backend == "asyncio" else (False,)


def cuts(backend, *, kinds=None, deep=False, again=False, engine=False):
    """
    One cut after the other, each to be run once; those of one way end with the first that was not reached.

    Args:
        backend: `asyncio` or `trio`.
        kinds: Of `natives`; all by default.
        deep: Count the waits of tasks that the operation starts as well.
        again: Cancel once more at the wait after it; only asyncio's own cancellations can come twice.
        engine: Count the waits of what is `Stepped` in a bridge's engine, and nothing else.
    """
    numbers = count(1)
    for native in kinds or natives(backend)[again:]:
        for woken in (False, True):
            for nth in count(1):
                cut = Cut(nth, next(numbers), native=native, woken=woken, deep=deep, again=again, engine=engine)
                yield cut
                if not cut.reached:
                    break


@define(eq=False)
class Cut:
    """
    One run of an operation that is cut off at its n-th wait, if it has so many.
    """

    nth: int
    number: int
    """Among all cuts of a sweep, for names."""
    native: bool = field(kw_only=True)
    woken: bool = field(kw_only=True)
    deep: bool = field(kw_only=True, repr=False)
    again: bool = field(kw_only=True, repr=False)
    engine: bool = field(kw_only=True, repr=False)
    waits: int = field(default=0, init=False)
    """How many there were."""
    result: object = field(default=None, init=False, repr=False)
    error: BaseException | None = field(default=None, init=False)
    """What it ended with."""
    cancelled: bool = field(default=False, init=False)
    """It ended with the cancellation that cut it off."""
    left: int = field(default=0, init=False)
    """Tasks that it left behind."""
    _cancel: Callable[[], object] = field(default=None, init=False, repr=False)

    @property
    def reached(self):
        """
        Whether there was an n-th wait.
        """
        return self.waits >= self.nth

    @property
    def notes(self):
        """
        What was noted on the cancellation.
        """
        return "\n".join(getattr(self.error, "__notes__", ()))

    async def run(self, operation):
        """
        Do it, cut off. What it returns is in `result`, the cancellation in `error`; any other error is a failure.
        """
        before = living()
        if not on_asyncio():
            await self._on_trio(operation)
        elif self.native:
            await self._natively(operation)
        else:
            await self._in_a_scope(operation)
        self.left = living() - before
        if self.error is not None and not self.cancelled:
            raise AssertionError(self) from self.error

    def at(self, future):
        """
        A wait of the operation begins.
        """
        self.waits += 1
        if self.waits != self.nth and not (self.again and self.waits == self.nth + 1):
            return
        if self.woken and future is not None:
            future.add_done_callback(lambda _: self._cancel())
        elif self.engine:
            self._cancel()
        else:
            asyncio.get_running_loop().call_soon(self._cancel)

    async def _recorded(self, operation):
        try:
            self.result = await operation()
        except BaseException as error:
            self.error, self.cancelled = error, isinstance(error, anyio.get_cancelled_exc_class())
            raise

    async def _in_a_scope(self, operation):
        with contextlib.suppress(Exception), anyio.CancelScope() as scope:
            self._cancel = scope.cancel
            await self._stepped(operation)

    async def _natively(self, operation):
        task = asyncio.create_task(self._stepped(operation))
        self._cancel = task.cancel
        await asyncio.wait([task])
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()

    async def _stepped(self, operation):
        loop = asyncio.get_running_loop()
        if self.deep:
            loop.set_task_factory(self._task)
        try:
            await Steps(self._recorded(operation), self.at)
        finally:
            loop.set_task_factory(None)

    def _task(self, loop, coroutine, **named):
        async def counted():
            return await Steps(coroutine, self.at)

        return asyncio.Task(counted(), loop=loop, **named)

    async def _on_trio(self, operation):
        import trio

        with contextlib.suppress(Exception), trio.CancelScope() as scope:
            self._cancel = partial(_meanwhile, trio.lowlevel.current_trio_token(), scope.cancel)
            watcher = _Watcher(self, trio.lowlevel.current_task(), scope)
            trio.lowlevel.add_instrument(watcher)
            try:
                await self._recorded(operation)
            finally:
                trio.lowlevel.remove_instrument(watcher)


def _meanwhile(token, cancel):
    """
    From an engine's thread: have trio cancel, and go on only after that.
    """
    done = threading.Event()

    def step():
        cancel()
        done.set()

    token.run_sync_soon(step)
    done.wait(PATIENCE)


@define(eq=False)
class Steps:
    """
    An awaitable that does what a coroutine does, and tells of each of its waits.
    """

    coroutine: object
    told: Callable[[object], None]

    def __await__(self):
        step, given = self.coroutine.send, None
        while True:
            try:
                future = step(given)
            except StopIteration as stop:
                return stop.value
            self.told(future)
            try:
                step, given = self.coroutine.send, (yield future)
            except BaseException as error:  # noqa: BLE001 (handed on as it is)
                step, given = self.coroutine.throw, error


@define(eq=False)
class Stepped:
    """
    A transport in the engine of a bridge, whose waits there a cut counts.
    """

    transport: object
    cut: Cut

    async def exchange(self, request):
        return await Steps(self.transport.exchange(request), self.cut.at)

    async def download(self, url, path, **named):
        return await Steps(self.transport.download(url, path, **named), self.cut.at)

    async def aclose(self):
        await self.transport.aclose()


@define(eq=False)
class _Watcher:
    """
    A trio instrument: knows when a task begins to wait, and when it is about to go on.
    """

    cut: Cut
    task: object
    scope: object

    def after_task_step(self, task):
        if self._counts(task):
            self.cut.waits += 1
            if self.cut.waits == self.cut.nth and not self.cut.woken:
                self.scope.cancel()

    def before_task_step(self, task):
        if self.cut.woken and self.cut.waits == self.cut.nth and self._counts(task):
            self.scope.cancel()

    def _counts(self, task):
        if self.cut.engine:
            return False
        while self.cut.deep and task is not self.task and task.parent_nursery is not None:
            task = task.parent_nursery.parent_task
        return task is self.task


async def called_off(operation, *, native, once=None):
    """
    Do something until all tasks wait, cancel it, and tell how long it took to end then, and how it ended.

    Args:
        operation: It.
        native: Cancel as asyncio does itself.
        once: Wait for this event first.
    """
    ends = []

    async def recorded():
        try:
            ends.append(await operation())
        except BaseException as error:
            ends.append(error)
            raise
        finally:
            ends.append(anyio.current_time())

    async def until():
        if once is not None:
            await once.wait()
        await anyio.wait_all_tasks_blocked()
        return anyio.current_time()

    if native:
        task = asyncio.create_task(recorded())
        began = await until()
        task.cancel()
        await asyncio.wait([task])
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(recorded)
            began = await until()
            group.cancel_scope.cancel()
    end, ended = ends
    return ended - began, end


def on_asyncio():
    """
    Whether the running loop is asyncio's.
    """
    return isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop)


def living():
    """
    How many tasks live on the running loop.
    """
    if on_asyncio():
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


def descriptors():
    """
    How many files and sockets this process holds; 0 where nobody can tell.
    """
    listing = Path("/proc/self/fd")
    return len(os.listdir(listing)) if listing.exists() else 0  # noqa: PTH208 (counting is all)
