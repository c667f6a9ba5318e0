"""
The end of a running call from outside, on asyncio by its task alone.
"""

import asyncio

import anyio
import pytest
from anyio.lowlevel import current_token

from kling_async._cut import TaskScope, ways

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


async def test_a_loop_of_asyncio_is_known_and_has_its_scope():
    """
    Only there, and only where nothing but our own code runs, does a task stand for a scope.
    """
    loop = current_token().native_token
    if not isinstance(loop, asyncio.AbstractEventLoop):
        assert ways(loop, ours=True) is None
        return
    for ours, expected in ((True, TaskScope), (False, anyio.CancelScope)):
        running, scope = ways(loop, ours=ours)
        assert loop is running()
        assert expected is scope
