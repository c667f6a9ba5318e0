"""
Work in threads for stores, and what becomes of it when its caller is cancelled.
"""

from datetime import UTC, datetime
from functools import partial
from threading import Event

import anyio
import pytest
from anyio import to_thread

from kling_async import StoreError
from kling_async._stored import Threads, heard, read, written
from kling_async.stores import Abilities, Intent
from tests.checkpoints import called_off, natives

pytestmark = pytest.mark.real_clock


def test_a_row_is_read_as_it_was_written():
    """
    Intents and what was learned of hosts, with their times.
    """
    now = datetime(2026, 11, 20, 1, 2, 3, 456789, tzinfo=UTC)
    intent = Intent(external_task_id="order-1", payload="ab", base_url="https://h", session_id="1", created_at=now)
    for value in (intent, Abilities(finds=True)):
        assert value == read(written(value), type(value))


class Work:
    """
    Work that can be seen to begin, and ends when it is told to.
    """

    def __init__(self, result=1):
        self.result, self.began, self.may_end, self.ended = result, Event(), Event(), Event()
        self.undone = []

    def __call__(self):
        self.began.set()
        assert self.may_end.wait(10)
        self.ended.set()
        return self.result

    def undo(self, result):
        self.undone.append(result)

    @property
    def seen(self):
        """
        An event of the loop for its beginning, as `called_off` waits for one.
        """
        return Seen(self.began)


class Seen:
    """
    An event of threads that a loop waits for.
    """

    def __init__(self, event):
        self.event = event

    async def wait(self):
        assert await to_thread.run_sync(self.event.wait, 10)


async def test_so_much_work_at_a_time():
    """
    Two threads are at it; the third begins when one of them has ended.
    """
    threads, works = Threads(2), [Work(number) for number in range(3)]
    async with anyio.create_task_group() as group:
        for work in works[:2]:
            group.start_soon(threads.run, work)
            await Seen(work.began).wait()
        group.start_soon(threads.run, works[2])
        await anyio.wait_all_tasks_blocked()
        assert not works[2].began.is_set()
        works[0].may_end.set()
        await Seen(works[2].began).wait()
        for work in works[1:]:
            work.may_end.set()


async def test_work_that_was_begun_is_ended_and_holds_its_place(anyio_backend_name):
    """
    Its caller goes at once; what comes after it waits for the thread.
    """
    for native in natives(anyio_backend_name):
        threads, work, after = Threads(1), Work(), Work()
        after.may_end.set()
        _, end = await called_off(partial(threads.run, work), native=native, once=work.seen)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        async with anyio.create_task_group() as group:
            group.start_soon(threads.run, after)
            await anyio.wait_all_tasks_blocked()
            assert not after.began.is_set()
            work.may_end.set()
        assert work.ended.is_set()
        assert after.ended.is_set()


async def test_what_is_heard_of_stays():
    """
    Whoever gets the result keeps it; none is none.
    """
    threads, work, none = Threads(1), Work(7), Work(None)
    work.may_end.set()
    none.may_end.set()
    assert 7 == await heard(threads.run, work, work.undo)
    assert await heard(threads.run, none, none.undo) is None
    assert [] == work.undone + none.undone


async def test_what_nobody_hears_of_is_undone(anyio_backend_name, monkeypatch):
    """
    By the one who was cancelled, as soon as the thread has ended; nothing is undone where nothing was done.
    """
    for native in natives(anyio_backend_name):
        for result, undone in ((7, {7}), (None, set())):
            threads, work = Threads(2), Work(result)
            # The work ends only once undoing it has begun, which waits for it.
            begun = partial(threads.run, work.may_end.set)
            monkeypatch.setattr("kling_async._stored.parting", partial(after, begun))
            _, end = await called_off(partial(heard, threads.run, work, work.undo), native=native, once=work.seen)
            assert isinstance(end, anyio.get_cancelled_exc_class())
            assert undone == set(work.undone)


async def after(begun, work):
    """
    The shelter of the last work, with something before it.
    """
    from kling_async._shelter import parting

    await parting(begun)
    await parting(work)


async def test_a_thread_undoes_its_own_work_where_nobody_waited_so_long(anyio_backend_name, monkeypatch):
    """
    A cancelled caller waits no longer than it may; what is done after that does not stay either.
    """
    monkeypatch.setattr("kling_async._shelter.GRACE", 0.01)
    for native in natives(anyio_backend_name):
        threads, work, undone = Threads(1), Work(7), Event()

        def undo(result, work=work, undone=undone):
            work.undo(result)
            undone.set()

        _, end = await called_off(partial(heard, threads.run, work, undo), native=native, once=work.seen)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        assert [] == work.undone
        work.may_end.set()
        await Seen(undone).wait()
        assert {7} == set(work.undone)


async def test_work_that_was_not_begun_never_is(anyio_backend_name):
    """
    Neither when its turn comes after its caller has gone, nor after it was undone.
    """
    for native in natives(anyio_backend_name):
        threads, work = Threads(1), Work()
        work.may_end.set()
        with threads._slots:
            _, end = await called_off(partial(threads.run, work), native=native)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        assert 1 == await threads.run(lambda: 1)
        assert not work.began.is_set()


async def test_work_that_is_overtaken_by_its_undoing_is_not_done(anyio_backend_name):
    """
    Threads do not run in the order in which they were asked.
    """
    for native in natives(anyio_backend_name):
        work, kept, asked = Work(), [], anyio.Event()
        work.may_end.set()

        async def late(do, kept=kept, asked=asked):
            if not kept:
                kept.append(do)
                asked.set()
                await anyio.sleep_forever()
            return do()

        _, end = await called_off(partial(heard, late, work, work.undo), native=native, once=asked)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        with pytest.raises(StoreError, match="nobody waits"):
            kept[0]()
        assert not work.began.is_set()


async def test_undoing_that_fails_does_not_take_the_place_of_the_cancellation(anyio_backend_name):
    """
    A lease ends what could not be given back.
    """
    for native in natives(anyio_backend_name):
        asked, tries = anyio.Event(), []

        async def broken(_work, asked=asked, tries=tries):
            tries.append(1)
            if len(tries) == 1:
                asked.set()
                await anyio.sleep_forever()
            raise StoreError("the disk is full")

        _, end = await called_off(partial(heard, broken, Work(), print), native=native, once=asked)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        assert len(tries) >= 2
