"""
From trio to a transport that lives in an asyncio loop, in a thread of its own.

Decides how calls, results and cancellations cross: a deque each way, and one wakeup for all that gathered in it since
the last. Refuses to know what the transport behind it does. Four rules hold at every crossing:

- Only trio's thread touches trio's tasks, only the engine's thread touches asyncio's.
- A call is settled once, on trio's side, by a report from the engine or by the engine's end.
- Cancelling waits for the engine: a call that was still queued is never started, one that finished anyway delivers.
- A `CancelledError` of asyncio stays in its thread.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

import outcome
import sniffio
import trio
from attrs import define, field
from trio.lowlevel import Abort, Task

from .errors import ClosedError, LostReplyError
from .transport import Progress, Request, Response, Saved, Transport

T = TypeVar("T")
Step = Callable[[], object]

GRACE: Final = 10.0
"""Seconds that the end of trio's run waits for the engine's, at most."""


@define(eq=False, repr=False)
class Lane:
    """
    One direction: steps that the other side shall take.

    `wake` is called by whoever puts a step in while nobody has been woken yet; the woken side takes all there is. It
    starts as if woken, for a side that has yet to begin and will look by itself.
    """

    wake: Callable[[], None]
    """Wakes the other side; called on this one."""
    woken: bool = True
    """It was woken and has not looked yet."""
    _steps: deque[Step] = field(factory=deque)

    def put(self, step: Step) -> None:
        """
        Append one step; from the one thread that feeds this lane.
        """
        self._steps.append(step)
        if not self.woken:
            self.woken = True
            self.wake()

    def take(self) -> Iterator[Step]:
        """
        All steps there are; from the one thread that this lane feeds.
        """
        # Before the first step is taken: one put in after this moment wakes again, one put in before is still seen.
        self.woken = False
        while self._steps:
            yield self._steps.popleft()


@define(eq=False, repr=False)
class Call:
    """
    One call on its way through; each field says which side writes it.
    """

    start: Callable[["Call"], Coroutine[object, object, object]]
    """What to run, there."""
    task: Task
    """Who waits, here."""
    context: Context = field(factory=copy_context)
    """The caller's context variables."""
    raise_cancel: Callable[[], NoReturn] | None = None
    """Written here: the caller was cancelled."""
    broken: outcome.Error | None = None
    """Written here: what the caller's `progress` raised."""
    running: asyncio.Task[object] | None = None
    """Written there: it has begun."""


@define(eq=False, repr=False)
class Engine:
    """
    The asyncio side: one task for each call, until told to stop.
    """

    factory: Callable[[], Transport]
    """Makes the transport, in the loop."""
    reports: Lane
    """To trio."""
    settle: Callable[[Call, outcome.Outcome[object] | None], None]
    """The report about one call; None stands for "cancelled"."""
    orders: Lane = field(init=False)
    """From trio."""
    stopping: asyncio.Event = field(factory=asyncio.Event)
    """The order to stop; after it nothing starts."""
    _transport: Transport | None = None
    loop: asyncio.AbstractEventLoop = field(init=False)
    """Known from the start of `main` on."""
    _tasks: set[asyncio.Task[object]] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.orders = Lane(self._wake)

    def _wake(self) -> None:
        # A loop that is closed has reported its end, and that settles every call.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.obey)

    def obey(self) -> None:
        """
        Take the steps that trio has ordered.
        """
        for step in self.orders.take():
            step()

    @property
    def transport(self) -> Transport:
        """
        The one behind the bridge; made before any call can start.
        """
        assert self._transport is not None
        return self._transport

    async def open(self, _: Call) -> None:
        """
        The first call of all: make the transport.
        """
        self._transport = self.factory()

    async def main(self) -> None:
        """
        The life of the loop; it leaves no task and no connection.
        """
        self.loop = asyncio.get_running_loop()
        self.obey()
        await self.stopping.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._transport is not None:
            await self._transport.aclose()

    def start(self, call: Call) -> None:
        """
        Begin a call, unless its caller has gone or the end has come.
        """
        if call.raise_cancel is not None or self.stopping.is_set():
            self.reports.put(partial(self.settle, call, None))
            return
        call.running = self.loop.create_task(call.start(call), context=call.context)
        self._tasks.add(call.running)
        call.running.add_done_callback(partial(self._finish, call))

    def cancel(self, call: Call) -> None:
        """
        Cancel a call; one that never started has been reported, one that is done reports what it has.
        """
        if call.running is not None:
            call.running.cancel()

    def _finish(self, call: Call, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        result: outcome.Outcome[object] | None = None
        if not task.cancelled():
            error = task.exception()
            result = outcome.Error(error) if error is not None else outcome.Value(task.result())
        self.reports.put(partial(self.settle, call, result))


@define(eq=False, repr=False)
class Curtain(trio.abc.Instrument):
    """
    The end of trio's run with a bridge still open: however it came, even by a breakdown, the engine ends too.
    """

    engine: Engine
    """What is told to stop."""
    thread: threading.Thread
    """What is waited for."""

    def after_run(self) -> None:
        """
        Nobody waits on trio's side any more, so this may block, though not for ever.
        """
        self.engine.orders.put(self.engine.stopping.set)
        self.thread.join(GRACE)


@define(eq=False, repr=False)
class Bridge:
    """
    The trio side: a Transport whose calls wait here and run there.
    """

    _token: trio.lowlevel.TrioToken = field(factory=trio.lowlevel.current_trio_token, init=False)
    _calls: set[Call] = field(factory=set, init=False)
    _closed: bool = field(default=False, init=False)
    _life: outcome.Outcome[None] = field(factory=lambda: outcome.Value(None), init=False)
    _gone: trio.Event = field(factory=trio.Event, init=False)
    _reports: Lane = field(init=False)
    _engine: Engine = field(init=False)
    _thread: threading.Thread = field(init=False)
    _curtain: Curtain = field(init=False)
    factory: Callable[[], Transport]
    """Makes the transport behind, in the engine's loop."""

    def __attrs_post_init__(self) -> None:
        self._reports = Lane(self._wake, woken=False)
        self._engine = Engine(self.factory, self._reports, self._settle)
        # A daemon, so that a thread stuck in somebody's name resolution cannot keep the interpreter from its end.
        self._thread = threading.Thread(target=self._run, name="kling_async engine", daemon=True)
        self._curtain = Curtain(self._engine, self._thread)

    @classmethod
    async def open(cls, factory: Callable[[], Transport]) -> Self:
        """
        Start the engine, and in it the transport that `factory` makes.
        """
        bridge = cls(factory)
        bridge._thread.start()
        trio.lowlevel.add_instrument(bridge._curtain)
        try:
            await bridge._call(bridge._engine.open)
        except BaseException:
            await bridge.aclose()
            raise
        return bridge

    async def exchange(self, request: Request) -> Response:
        """
        As the transport behind: its result, its errors. Cancelled, it waits until the engine has let go.
        """
        return await self._call(lambda _: self._engine.transport.exchange(request))

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """
        As the transport behind; `progress` is called in the caller's thread, and what it raises ends the download.
        """
        # A context of its own: the call's is in use in the other thread at that moment.
        here = copy_context()

        def fetch(call: Call) -> Coroutine[object, object, Saved]:
            def relay(done: int, total: int | None) -> None:
                assert progress is not None
                self._reports.put(partial(self._tell, call, lambda: here.run(progress, done, total)))

            told = relay if progress is not None else None
            return self._engine.transport.download(url, path, overwrite=overwrite, progress=told)

        return await self._call(fetch)

    async def aclose(self) -> None:
        """
        End the calls under way with ClosedError, then the loop and its thread; not to be cancelled.

        An error that ended the engine comes out here, once.
        """
        self._closed = True
        self._engine.orders.put(self._engine.stopping.set)
        with trio.CancelScope(shield=True):
            await self._gone.wait()
        self._thread.join()
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self._curtain)
        life, self._life = self._life, outcome.Value(None)
        life.unwrap()

    # Interrupted between the order and the wait, a task would be rescheduled that does not wait.
    @trio.lowlevel.enable_ki_protection
    async def _call(self, start: Callable[[Call], Coroutine[object, object, T]]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise ClosedError("the transport is closed: open a new one")
        call = Call(start, trio.lowlevel.current_task())

        def abort(raise_cancel: Callable[[], NoReturn]) -> Abort:
            call.raise_cancel = raise_cancel
            self._engine.orders.put(partial(self._engine.cancel, call))
            return Abort.FAILED

        self._calls.add(call)
        self._engine.orders.put(partial(self._engine.start, call))
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def _settle(self, call: Call, result: outcome.Outcome[object] | None) -> None:
        self._calls.discard(call)
        if call.broken is not None:
            result = call.broken
        elif result is None and call.raise_cancel is not None:
            result = outcome.capture(call.raise_cancel)
        elif result is None and self._engine.stopping.is_set():
            result = outcome.Error(ClosedError("the transport was closed while this call was under way"))
        elif result is None:
            result = outcome.Error(LostReplyError("the call was cut off inside the engine; nobody here cancelled it"))
        trio.lowlevel.reschedule(call.task, result)

    def _tell(self, call: Call, report: Step) -> None:
        if call.broken is None:
            told = outcome.capture(report)
            if isinstance(told, outcome.Error):
                call.broken = told
                self._engine.orders.put(partial(self._engine.cancel, call))

    def _wake(self) -> None:
        # Not at once, but after this turn of the loop: one wakeup then tells of all that ended in it.
        self._engine.loop.call_soon(self._signal, self._read)

    def _signal(self, step: Step) -> None:
        try:
            self._token.run_sync_soon(step)
        except (trio.RunFinishedError, OSError):  # an OSError where trio broke down instead of finishing
            self._engine.stopping.set()

    def _read(self) -> None:
        for step in self._reports.take():
            step()

    def _run(self) -> None:
        # The callers' contexts may say "trio", as those under anyio.run() do; the thread's word goes first.
        sniffio.thread_local.name = "asyncio"
        life = outcome.capture(self._live)
        self._engine.stopping.set()
        self._signal(partial(self._end, life))

    def _live(self) -> None:
        with asyncio.Runner() as runner:
            runner.get_loop()  # raises, where there can be none, before there is a coroutine
            runner.run(self._engine.main())

    def _end(self, life: outcome.Outcome[None]) -> None:
        self._read()
        self._closed = True
        self._life = life
        for call in tuple(self._calls):
            self._settle(call, outcome.Error(life.error) if isinstance(life, outcome.Error) else None)
        self._gone.set()
