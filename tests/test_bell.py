"""
What one task waits at until another calls it.
"""

import asyncio

import anyio
import pytest

from kling_async._bell import Bell, EventBell, bells, threadsafe


@pytest.fixture
async def bell():
    return bells()()


async def heard(bell):
    await bell


async def test_a_loop_has_its_own_kind_of_bell(bell, anyio_backend_name):
    """
    A bare future on asyncio.
    """
    assert {"asyncio": Bell, "trio": EventBell}[anyio_backend_name] is type(bell)


async def test_who_waits_is_woken_by_the_ring(bell):
    """
    And rings after the first do nothing.
    """
    async with anyio.create_task_group() as group:
        group.start_soon(heard, bell)
        await anyio.wait_all_tasks_blocked()
        bell.ring()
        bell.ring()


async def test_a_ring_before_is_heard(bell):
    """
    However early it came.
    """
    bell.ring()
    await bell


async def test_a_ring_after_who_waited_was_cancelled_is_no_error(bell):
    """
    Who goes away need not say so.
    """
    with anyio.move_on_after(1) as scope:
        await bell
    assert scope.cancelled_caught
    bell.ring()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_bell_hears_of_native_cancellation(bell):
    """
    A task that is cancelled by asyncio alone ends at it.
    """
    task = asyncio.ensure_future(heard(bell))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bell.ring()


@pytest.mark.real_clock
async def test_a_bell_can_be_rung_from_another_thread(bell):
    """
    By what the loop takes steps from.
    """
    soon = threadsafe()
    await anyio.to_thread.run_sync(soon, bell.ring)
    await bell
