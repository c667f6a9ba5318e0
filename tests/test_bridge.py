"""
From trio to asyncio and back: the lanes as plain objects, the engine with the test as its trio, and real threads.
"""

import asyncio
import contextvars
import random
import signal
import subprocess
import sys
import threading
from functools import partial

import outcome
import pytest
import trio
import trio.testing

from kling_async._bridge import Bridge, Call, Engine, Lane
from kling_async.errors import ClosedError, LostReplyError
from kling_async.transport import Request, Response, Saved

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"]),
]

ASK = Request("GET", "https://api.example/x")
NOTE = contextvars.ContextVar("NOTE", default="unset")
FILE = Saved(3, "0" * 64)


class Far:
    """
    A transport for the other side: answers at once, waits, fails or is stubborn, as the URL says.
    """

    def __init__(self):
        self.began = threading.Event()
        self.ended = []
        self.closed = False
        self.loop = asyncio.get_running_loop()
        self.go = asyncio.Event()
        self.running = 0

    def release(self):
        self.loop.call_soon_threadsafe(self.go.set)

    async def exchange(self, request):
        self.running += 1
        self.began.set()
        try:
            return await getattr(self, request.url)(request)
        except BaseException as error:
            self.ended.append(error)
            raise
        finally:
            self.running -= 1

    async def answer(self, request):
        return Response(200, {"thread": threading.current_thread().name, "note": NOTE.get()}, request.body)

    async def wait(self, request):
        await self.go.wait()
        return Response(200, body=request.body)

    async def fail(self, request):
        raise LostReplyError("as the far side has it")

    async def stubborn(self, request):
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            return Response(200, body=b"after all")

    async def break_off(self, request):
        raise asyncio.CancelledError

    async def later(self, request):
        await asyncio.sleep(random.random() * 0.02)
        return Response(200, body=request.body)

    async def download(self, url, path, *, overwrite=False, progress=None):
        self.running += 1
        try:
            for done in (1, 2, 3):
                if progress is not None:
                    progress(done, 3)
            if url == "wait":
                await self.go.wait()
            return FILE
        finally:
            self.running -= 1

    async def aclose(self):
        self.closed = True


def ask(url, body=b""):
    return Request("GET", url, body=body)


@pytest.fixture
async def bridge():
    bridge = await Bridge.open(Far)
    yield bridge
    await bridge.aclose()


def far_of(bridge):
    return bridge._engine.transport


class TestLane:
    """
    One direction, without threads.
    """

    def test_one_wakeup_for_all_that_gathered(self, anyio_backend):
        """
        However many steps are put in, the other side is woken once until it has looked.
        """
        woken = []
        lane = Lane(partial(woken.append, "woken"), woken=False)
        for step in range(5):
            lane.put(step)
        assert ["woken"] == woken
        assert [0, 1, 2, 3, 4] == list(lane.take())
        lane.put(5)
        assert ["woken", "woken"] == woken
        assert [5] == list(lane.take())

    def test_step_put_in_while_taking_is_taken(self, anyio_backend):
        """
        What arrives while the other side is at it is not forgotten, at worst for one wakeup too many.
        """
        woken = []
        lane = Lane(partial(woken.append, "woken"), woken=False)
        lane.put(1)
        taken = []
        for step in lane.take():
            taken.append(step)
            if step < 3:
                lane.put(step + 1)
        assert [1, 2, 3] == taken
        assert [] == list(lane.take())

    def test_side_that_has_not_begun_is_not_woken(self, anyio_backend):
        """
        A lane starts as if woken: its reader looks by itself when it begins.
        """
        lane = Lane(None)
        lane.put(1)
        assert [1] == list(lane.take())


class TestEngine:
    """
    The asyncio side with the test in the place of trio: orders are put in, reports are read, no thread takes part.
    """

    @pytest.fixture
    def drive(self):
        def drive(script):
            reports = []
            engine = Engine(Far, Lane(lambda: None), lambda call, result: reports.append((call, result)))

            async def main():
                life = asyncio.create_task(engine.main())
                await asyncio.sleep(0)
                await engine.open(None)
                await script(engine)
                engine.stopping.set()
                await life

            asyncio.run(main())
            for step in engine.reports.take():
                step()
            assert set() == engine._tasks
            assert engine.transport.closed
            return reports

        return drive

    def call(self, engine, url):
        return Call(lambda _: engine.transport.exchange(ask(url)), task=None)

    def test_result_and_error_are_reported(self, anyio_backend, drive):
        """
        A call that returns reports its value, one that raises its error.
        """

        async def script(engine):
            for url in ("answer", "fail"):
                engine.orders.put(partial(engine.start, self.call(engine, url)))
            await asyncio.sleep(0.01)

        (_, value), (_, error) = drive(script)
        assert 200 == value.unwrap().status
        with pytest.raises(LostReplyError, match="as the far side has it"):
            error.unwrap()

    def test_call_cancelled_in_the_queue_never_starts(self, anyio_backend, drive):
        """
        Cancelled before the engine looked, a call is reported as cancelled and was never begun.
        """
        began = []

        async def script(engine):
            call = self.call(engine, "answer")
            engine.orders.put(partial(engine.start, call))
            call.raise_cancel = "set"
            await asyncio.sleep(0.01)
            engine.orders.put(partial(engine.cancel, call))
            began.append(engine.transport.began.is_set())

        assert [None] == [result for _, result in drive(script)]
        assert [False] == began

    def test_call_cancelled_under_way_is_reported_when_it_has_ended(self, anyio_backend, drive):
        """
        Cancelling reaches the task, and the report follows its end.
        """

        async def script(engine):
            call = self.call(engine, "wait")
            engine.orders.put(partial(engine.start, call))
            await asyncio.sleep(0.01)
            assert [] == list(engine.reports.take())
            engine.orders.put(partial(engine.cancel, call))

        assert [None] == [result for _, result in drive(script)]

    def test_call_that_ended_before_the_cancel_came_keeps_its_result(self, anyio_backend, drive):
        """
        Finished and cancelled together delivers the result, once.
        """

        async def script(engine):
            call = self.call(engine, "answer")
            engine.start(call)
            await asyncio.sleep(0)
            engine.cancel(call)
            await asyncio.sleep(0.01)
            engine.cancel(call)

        (report,) = drive(script)
        assert 200 == report[1].unwrap().status

    def test_call_that_comes_at_the_end_is_turned_away(self, anyio_backend, drive):
        """
        After the order to stop nothing starts; calls under way are cancelled and reported.
        """

        async def script(engine):
            async def close():
                engine.start(self.call(engine, "answer"))
                await asyncio.sleep(0.01)
                engine.transport.closed = True

            engine.transport.aclose = close
            engine.start(self.call(engine, "wait"))
            await asyncio.sleep(0)

        assert [None, None] == [result for _, result in drive(script)]


async def busy(bridge):
    """
    Keep the engine's loop from turning until the event that comes back is set.
    """
    held, go = threading.Event(), threading.Event()
    far_of(bridge).loop.call_soon_threadsafe(lambda: (held.set(), go.wait(10)))
    await trio.to_thread.run_sync(held.wait)
    return go


async def test_call_crosses_with_its_context(bridge):
    """
    A call runs in the engine's thread with the caller's context variables, and its result comes back.
    """
    NOTE.set("mine")
    got = await bridge.exchange(ask("answer", b"body"))
    assert {"thread": "kling_async engine", "note": "mine"} == got.headers
    assert b"body" == got.body


async def test_each_call_has_the_context_of_its_own_caller(bridge):
    """
    Calls that cross in one batch do not share their context variables.
    """
    got = {}

    async def one(name):
        NOTE.set(name)
        got[name] = (await bridge.exchange(ask("answer"))).headers["note"]

    go = await busy(bridge)
    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(one, name)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert {"a": "a", "b": "b", "c": "c"} == got


async def test_error_crosses_as_itself(bridge):
    """
    What the transport raises is what the caller gets.
    """
    with pytest.raises(LostReplyError, match="as the far side has it") as caught:
        await bridge.exchange(ask("fail"))
    assert [caught.value] == far_of(bridge).ended


async def test_two_hundred_calls_at_once(bridge):
    """
    Each of two hundred concurrent calls gets its own answer.
    """
    got = {}

    async def one(number):
        got[number] = (await bridge.exchange(ask("later", b"%d" % number))).body

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
    assert {number: b"%d" % number for number in range(200)} == got


async def began(bridge):
    await trio.to_thread.run_sync(far_of(bridge).began.wait)


async def test_cancelling_waits_for_the_engine(bridge):
    """
    A cancelled call ends with trio's Cancelled, after the task there has ended with asyncio's.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.exchange, ask("wait"))
        await began(bridge)
        nursery.cancel_scope.cancel()
    assert [asyncio.CancelledError] == [type(error) for error in far_of(bridge).ended]
    assert 0 == far_of(bridge).running
    assert 200 == (await bridge.exchange(ask("answer"))).status


async def test_call_of_a_cancelled_scope_does_not_cross(bridge):
    """
    Who is cancelled already sends nothing.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        await bridge.exchange(ask("answer"))
    assert scope.cancelled_caught
    assert not far_of(bridge).began.is_set()


async def test_call_cancelled_while_queued_is_never_started(bridge):
    """
    With the engine busy elsewhere, a call that is cancelled in the queue is never begun.
    """
    go = await busy(bridge)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.exchange, ask("answer"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        go.set()
    assert not far_of(bridge).began.is_set()


async def test_result_that_beats_the_cancellation_is_delivered(bridge):
    """
    A call that ends with a result although it was cancelled delivers it.
    """
    got = []

    async def one():
        got.append(await bridge.exchange(ask("stubborn")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await began(bridge)
        nursery.cancel_scope.cancel()
    assert [b"after all"] == [reply.body for reply in got]


async def test_foreign_cancellation_does_not_reach_trio(bridge):
    """
    A CancelledError that nobody here asked for is LostReplyError: the call may have been sent.
    """
    with pytest.raises(LostReplyError, match="cut off inside the engine"):
        await bridge.exchange(ask("break_off"))


async def test_closing_ends_calls_and_the_thread():
    """
    Closing, twice if need be, ends calls under way and later ones with ClosedError, and joins the thread.
    """
    before = threading.active_count()
    bridge = await Bridge.open(Far)
    far = far_of(bridge)
    seen = []

    async def one():
        try:
            await bridge.exchange(ask("wait"))
        except ClosedError as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        while not far.began.is_set():
            await trio.lowlevel.checkpoint()
        await bridge.aclose()
    await bridge.aclose()
    assert 1 == len(seen)
    assert far.closed
    assert before == threading.active_count()
    with pytest.raises(ClosedError):
        await bridge.exchange(ask("answer"))


async def test_closing_is_not_cancelled():
    """
    In a cancelled scope closing still ends the thread before it returns.
    """
    bridge = await Bridge.open(Far)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bridge.aclose()
    assert not bridge._thread.is_alive()


async def test_call_cancelled_and_closed_at_once_is_cancelled():
    """
    Closing does not hide a cancellation.
    """
    bridge = await Bridge.open(Far)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.exchange, ask("wait"))
            await began(bridge)
            nursery.start_soon(bridge.aclose)
            scope.cancel()
    assert scope.cancelled_caught
    assert not bridge._thread.is_alive()


async def test_transport_that_cannot_be_made_is_the_callers_error():
    """
    What the factory raises comes out of opening, and no thread stays.
    """
    before = threading.active_count()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Bridge.open(fail)
    assert before == threading.active_count()


async def test_loop_that_cannot_be_made_is_the_callers_error(monkeypatch):
    """
    Where the thread gets no event loop, opening raises the reason, and no thread stays.
    """
    before = threading.active_count()

    def fail():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", fail)
    monkeypatch.setattr("asyncio.runners.events.new_event_loop", fail)
    with pytest.raises(OSError, match="Too many open files"):
        await Bridge.open(Far)
    assert before == threading.active_count()


async def test_transport_that_cannot_be_closed_is_told_once():
    """
    What closing the transport raises comes out of the bridge's closing, the first time; the thread ends all the same.
    """

    class Sticky(Far):
        async def aclose(self):
            raise ZeroDivisionError

    bridge = await Bridge.open(Sticky)
    with pytest.raises(ZeroDivisionError):
        await bridge.aclose()
    await bridge.aclose()
    assert not bridge._thread.is_alive()


async def test_opening_that_is_cancelled_leaves_no_thread():
    """
    Cancelled while it opens, a bridge is gone.
    """
    before = threading.active_count()
    with trio.CancelScope() as scope:
        scope.cancel()
        await Bridge.open(Far)
    assert scope.cancelled_caught
    assert before == threading.active_count()


def test_run_that_ends_takes_the_engine_along(anyio_backend):
    """
    A trio run that ends with its bridge open ends the thread, its loop and its transport.
    """
    left = []

    async def main():
        left.append(await Bridge.open(Far))
        await left[0].exchange(ask("answer"))

    trio.run(main)
    (bridge,) = left
    assert not bridge._thread.is_alive()
    assert far_of(bridge).closed
    assert far_of(bridge).loop.is_closed()


def test_run_that_fails_takes_the_engine_along(anyio_backend):
    """
    An error that unwinds the run with calls under way leaves neither thread nor task.
    """
    left = []

    async def main():
        left.append(await Bridge.open(Far))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left[0].exchange, ask("wait"))
            await began(left[0])
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        trio.run(main)
    assert not left[0]._thread.is_alive()
    assert 0 == far_of(left[0]).running


BREAKDOWN = """
import asyncio, threading, time, trio
from kling_async._bridge import Bridge

class Broken(trio.abc.Clock):
    down = False
    def start_clock(self): ...
    def current_time(self):
        return time.monotonic()
    def deadline_to_sleep_time(self, deadline):
        if self.down:
            raise ZeroDivisionError
        return 0.01

class Far:
    def __init__(self):
        self.began, self.closed = threading.Event(), False
    async def exchange(self, request):
        self.began.set()
        await asyncio.Event().wait()
    async def aclose(self):
        self.closed = True

async def main():
    global bridge
    bridge = await Bridge.open(Far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.exchange, None)
        await trio.to_thread.run_sync(bridge._engine.transport.began.wait)
        Broken.down = True

try:
    trio.run(main, clock=Broken())
except trio.TrioInternalError:
    print("broken down", bridge._thread.is_alive(), bridge._engine.transport.closed)
"""


def test_run_that_breaks_down_takes_the_engine_along(anyio_backend):
    """
    Even when trio itself breaks down, with a call under way, the thread ends and the transport is closed.
    """
    done = subprocess.run([sys.executable, "-c", BREAKDOWN], capture_output=True, text=True, timeout=15, check=True)
    assert "broken down False True\n" == done.stdout


def test_report_to_a_run_that_has_finished_stops_the_engine(anyio_backend):
    """
    A report that nobody can take any more is no error, and stops the engine.
    """
    left = []

    async def main():
        left.append(Bridge(Far))

    trio.run(main)
    left[0]._signal(left[0]._read)
    assert left[0]._engine.stopping.is_set()


async def test_engine_that_ends_by_itself_settles_every_call(bridge):
    """
    A loop that is stopped from inside ends the calls that wait for it.
    """
    seen = []

    async def one():
        try:
            await bridge.exchange(ask("wait"))
        except ClosedError as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await began(bridge)
        far_of(bridge).loop.call_soon_threadsafe(bridge._engine.stopping.set)
    assert 1 == len(seen)


async def test_reports_of_the_last_moment_are_read_at_the_end():
    """
    A report that the engine had no time to announce counts before the calls left over are settled.
    """
    bridge = Bridge(Far)
    seen = []
    bridge._reports.woken = True
    bridge._reports.put(partial(seen.append, "last"))
    bridge._end(outcome.Value(None))
    assert ["last"] == seen


def test_interrupt_ends_a_call(anyio_backend):
    """
    Ctrl-C during a call comes out as KeyboardInterrupt, and nothing stays.
    """
    left = []

    async def main():
        left.append(await Bridge.open(Far))

        async def interrupt():
            await began(left[0])
            signal.raise_signal(signal.SIGINT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            await left[0].exchange(ask("wait"))

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main, strict_exception_groups=True)
    assert caught.group_contains(KeyboardInterrupt)
    assert not left[0]._thread.is_alive()


async def test_progress_is_told_here(bridge, tmp_path):
    """
    Progress is called in the caller's thread, with its context variables, in order and before the result.
    """
    NOTE.set("mine")
    seen = []
    here = threading.get_ident()

    def progress(done, total):
        seen.append((done, total, threading.get_ident() == here, NOTE.get()))

    assert FILE == await bridge.download("answer", tmp_path, progress=progress)
    assert [(done, 3, True, "mine") for done in (1, 2, 3)] == seen
    assert FILE == await bridge.download("answer", tmp_path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("url", ["wait", "answer"])
async def test_progress_that_raises_ends_the_download(bridge, tmp_path, error, url):
    """
    What progress raises comes out of the download, once, and the download there has ended.
    """
    seen = []

    def progress(done, total):
        seen.append(done)
        raise error

    with pytest.raises(error):
        await bridge.download(url, tmp_path, progress=progress)
    assert [1] == seen
    assert 0 == far_of(bridge).running


async def test_cancellation_storm(bridge):
    """
    600 calls, most with tiny deadlines: each its own answer or a cancellation, no task left there, usable after.
    """
    outcomes = []

    async def one(number):
        with trio.move_on_after(random.random() * 0.03 if number % 10 else 10) as scope:
            got = await bridge.exchange(ask("wait" if number % 10 == 1 else "later", b"%d" % number))
            outcomes.append(got.body == b"%d" % number)
        if scope.cancelled_caught:
            outcomes.append(None)

    async with trio.open_nursery() as nursery:
        for number in range(600):
            nursery.start_soon(one, number)
    assert 600 == len(outcomes)
    assert {True, None} == set(outcomes)
    assert 0 == far_of(bridge).running
    assert set() == bridge._engine._tasks
    assert set() == bridge._calls
    assert b"last" == (await bridge.exchange(ask("answer", b"last"))).body
