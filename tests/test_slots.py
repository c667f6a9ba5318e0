"""
Slots: first come first served, on no loop in particular.
"""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as some

from kling_async import InvalidInputError, Slots


async def test_no_more_than_the_limit_hold_a_slot_and_the_first_come_is_first_served():
    """
    Ten want three slots; they get them in the order in which they came.
    """
    slots, order, most = Slots(3), [], 0

    async def hold(number):
        nonlocal most
        async with slots:
            order.append(number)
            most = max(most, slots.held)
            await anyio.sleep(100 + number)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(hold, number)
            await anyio.sleep(1)
    assert 3 == most
    assert list(range(10)) == order
    assert (0, "<Slots 0 of 3, 0 waiting>") == (slots.held, repr(slots))


async def test_nobody_overtakes_those_who_wait():
    """
    A slot that comes free goes to the longest waiting, even when another asks in that moment.
    """
    slots, order = Slots(1), []

    async def hold(name):
        async with slots:
            order.append(name)

    async with anyio.create_task_group() as group:
        async with slots:
            group.start_soon(hold, "first")
            await anyio.wait_all_tasks_blocked()
        await hold("second")
    assert ["first", "second"] == order


async def test_a_cancelled_waiter_gives_its_place_up():
    """
    Neither a slot nor a place in the queue is lost.
    """
    slots = Slots(1)
    async with slots:
        with anyio.move_on_after(1):
            async with slots:
                pytest.fail("there was no slot")
        assert "<Slots 1 of 1, 0 waiting>" == repr(slots)
    async with slots:
        assert 1 == slots.held


async def test_a_waiter_cancelled_as_its_turn_comes_passes_the_slot_on():
    """
    Granted and cancelled at once: the next in the queue gets it.
    """
    slots, got = Slots(1), anyio.Event()

    async def wait(scope):
        with scope:
            async with slots:
                pytest.fail("it was cancelled")

    async def next_in_line():
        async with slots:
            got.set()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        async with slots:
            group.start_soon(wait, scope)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(next_in_line)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
        with anyio.fail_after(1):
            await got.wait()
    assert 0 == slots.held


def test_one_object_serves_one_loop_after_another():
    """
    It may stand at module level: nothing of it belongs to a loop.
    """
    slots = Slots(1)

    async def hold():
        async with slots:
            assert 1 == slots.held

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(hold, backend=backend)
    assert 0 == slots.held


async def test_learned_slots_follow_the_account():
    """
    A refusal halves them, a round of ends adds one; plain slots do not move.
    """
    slots = Slots.learned(start=8)
    slots.refused()
    assert 4 == slots.limit
    for _ in range(5):
        async with slots:
            pass
    assert 5 == slots.limit
    for _ in range(9):
        slots.refused()
    assert 1 == slots.limit
    fixed = Slots(4)
    fixed.refused()
    async with fixed:
        pass
    assert 4 == fixed.limit


async def test_what_failed_is_no_sign_of_room():
    """
    Only an end without an error lets learned slots grow.
    """
    slots = Slots.learned(start=1)
    with pytest.raises(KeyError):
        async with slots:
            raise KeyError
    assert 1 == slots.limit


async def test_growing_slots_let_several_waiters_in():
    """
    Room for two is given to two.
    """
    slots, inside = Slots.learned(start=1), []

    async def hold():
        async with slots:
            inside.append(slots.held)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(hold)
    assert 2 == max(inside)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "5"])
def test_a_number_of_slots_is_a_whole_number_from_one(wrong):
    """
    Anything else is told by name.
    """
    with pytest.raises(InvalidInputError, match="slots"):
        Slots(wrong)


@given(limit=some.integers(1, 6), holds=some.lists(some.integers(0, 5), max_size=25))
def test_running_never_exceeds_the_slots(limit, holds):
    """
    Whatever the lengths of the holds and the limit.
    """
    slots, most = Slots(limit), 0

    async def hold(turns):
        nonlocal most
        async with slots:
            most = max(most, slots.held)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()

    async def main():
        async with anyio.create_task_group() as group:
            for turns in holds:
                group.start_soon(hold, turns)

    anyio.run(main)
    assert most <= limit
    assert 0 == slots.held
