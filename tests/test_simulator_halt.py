"""
Work that nobody waits for any more: it ends at its next step, and what others wait for is made by them.
"""

import threading
from concurrent.futures import wait as futures_wait

import anyio
import pytest

from kling_async.simulator import Simulator
from kling_async.simulator import _sight as sight
from kling_async.simulator._halt import HaltedError, haltable, heed
from kling_async.simulator._sight import Kept
from tests.commanding import CLIP
from tests.simulating import Caller
from tests.test_simulator_http import over

pytestmark = pytest.mark.real_clock


@pytest.fixture
def endless(monkeypatch):
    """
    Hands and eyes that never come to an end by themselves; the semaphore counts those that have begun.
    """
    begun = threading.Semaphore(0)

    def work(*_given):
        begun.release()
        while True:
            heed()

    monkeypatch.setattr(sight._hands, "remove", work)
    monkeypatch.setattr(sight._hands, "render_preview", work)
    monkeypatch.setattr(sight._eyes, "segment", lambda frame, _points: frame[..., 0] > 128)
    monkeypatch.setattr(sight._eyes, "track", lambda clip, masks: tuple(masks.values()) * clip.total_frames)
    return begun


def test_work_goes_on_until_it_is_given_up():
    """
    Without an event, and before it is set, a step costs nothing; once it is, the work ends there.
    """
    halt = threading.Event()
    heed()

    def work():
        heed()
        halt.set()
        heed()

    with pytest.raises(HaltedError):
        haltable(halt, work)
    heed()


def test_work_that_was_given_up_before_is_not_begun():
    """
    With the event set nothing is done at all.
    """
    halt, begun = threading.Event(), []
    halt.set()
    with pytest.raises(HaltedError, match="closed"):
        haltable(halt, lambda: begun.append(1))
    assert [] == begun


def test_what_is_done_is_returned():
    """
    Work that is not given up is as if it were called.
    """
    assert 7 == haltable(threading.Event(), lambda: 7)


@pytest.fixture
def shared(monkeypatch):
    """
    Two threads that want the same thing: the first makes it and hangs, the second waits for it.
    """
    kept, halts, made = Kept(1), [threading.Event(), threading.Event()], []
    begun, waiting = threading.Event(), threading.Event()

    def wait(futures, timeout):
        waiting.set()
        return futures_wait(futures, timeout)

    monkeypatch.setattr(sight, "wait", wait)

    def hang():
        begun.set()
        while True:
            heed()

    def want(halt, make):
        try:
            made.append(haltable(halt, lambda: kept.get("key", make)))
        except HaltedError:
            made.append(None)

    works = hang, lambda: 7
    threads = [threading.Thread(target=want, args=given) for given in zip(halts, works, strict=True)]
    for thread, there in zip(threads, (begun, waiting), strict=True):
        thread.start()
        assert there.wait(10)
    yield halts, threads, made
    for halt in halts:
        halt.set()
    for thread in threads:
        thread.join()


def test_who_waits_for_what_is_given_up_makes_it(shared):
    """
    What one asker gives up, another who still wants it makes.
    """
    halts, threads, made = shared
    halts[0].set()
    for thread in threads:
        thread.join()
    assert {None, 7} == set(made)


def test_who_waits_can_give_up_alone(shared):
    """
    A waiter leaves without the maker, who goes on.
    """
    halts, threads, made = shared
    halts[1].set()
    threads[1].join()
    assert ([None], True) == (made, threads[0].is_alive())


async def test_closing_ends_what_is_being_rendered(endless):
    """
    A clip that is being rendered is given up, its task fails and says so, and the simulator can be used on.
    """
    simulator = Simulator(eyes=True, task_seconds=0)
    caller = Caller(simulator.transport())
    session_id = await caller.marked(video_url=simulator.publish(CLIP))
    for _ in range(2):
        created = await caller.create(session_id)
        await anyio.to_thread.run_sync(endless.acquire)
        await anyio.to_thread.run_sync(simulator.close)
        data = (await caller.get(created.data["task_id"])).data
        assert ("failed", True) == (data["task_status"], "closed" in data["task_status_msg"])


async def test_a_server_that_stops_ends_what_it_is_asked_for(endless):
    """
    An answer under way is given up when its server stops, so that leaving the block does not wait for it.
    """
    with Simulator(eyes=True) as simulator:
        async with anyio.create_task_group() as group, simulator.serve() as base_url:
            caller = over(base_url)
            session_id = await caller.marked(video_url=simulator.publish(CLIP))
            group.start_soon(lambda: caller.post("preview", session_id=session_id))
            await anyio.to_thread.run_sync(endless.acquire)
            group.cancel_scope.cancel()


async def test_a_call_that_is_cancelled_gives_its_work_up(endless):
    """
    In one process too, the thread of a cancelled call ends at its next step.
    """
    simulator = Simulator(eyes=True)
    caller = Caller(simulator.transport())
    session_id = await caller.marked(video_url=simulator.publish(CLIP))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: caller.post("preview", session_id=session_id))
        await anyio.to_thread.run_sync(endless.acquire)
        group.cancel_scope.cancel()
