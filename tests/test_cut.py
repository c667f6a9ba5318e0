"""
The end of a running call from outside, on asyncio by its task alone.
"""

import asyncio

import anyio
import pytest

from kling_async._cut import TaskScope, native, ways

ASYNCIO = pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])


async def cut(body, *, before=lambda scope, task: None):
    """
    Run the body under a scope in a task of its own, cut it off, and return scope and task.
    """
    scope = TaskScope()

    async def run():
        with scope:
            await body()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    before(scope, task)
    scope.cancel()
    scope.cancel()
    await asyncio.wait([task])
    return scope, task


@ASYNCIO
async def test_what_is_cut_off_ends_by_that_alone():
    """
    The cancellation comes once, is told of, and is taken back from the task.
    """
    scope, task = await cut(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert task.cancelled()
    assert 0 == task.cancelling()


@ASYNCIO
async def test_another_cancellation_goes_first():
    """
    Cancelled by its owner and cut off at once, it ends as cancelled by its owner.
    """
    scope, task = await cut(anyio.sleep_forever, before=lambda _, task: task.cancel())
    assert not scope.cancelled_caught
    assert task.cancelled()
    assert 1 == task.cancelling()


@ASYNCIO
async def test_what_ends_in_its_own_way_is_not_taken_for_cut_off():
    """
    An error of its own, or a result in spite of the cut, stays what it is.
    """

    async def fail():
        try:
            await anyio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def finish():
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            return

    scope, task = await cut(fail)
    assert isinstance(task.exception(), ZeroDivisionError)
    assert not scope.cancelled_caught
    scope, task = await cut(finish)
    assert task.result() is None
    assert not scope.cancelled_caught
    assert 0 == task.cancelling()


async def test_each_loop_is_known_and_has_its_scope():
    """
    Only on asyncio, and only where nothing but our own code runs, does a task stand for a scope.
    """
    running, scope = ways(ours=True)
    assert native() is running()
    on_asyncio = isinstance(native(), asyncio.AbstractEventLoop)
    assert (TaskScope if on_asyncio else anyio.CancelScope) is scope
    running, scope = ways(ours=False)
    assert native() is running()
    assert anyio.CancelScope is scope
