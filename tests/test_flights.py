"""
Calls under way: deadlines, closing, and whose cancellation it is.
"""

import asyncio

import pytest

from kling_async._flights import Flight, Flights, Turns, current
from kling_async.errors import ClosedError

pytestmark = pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])


class Wire:
    """
    A connection that says whether it is closing, and notes that it was aborted.
    """

    def __init__(self, *, closing):
        self.closing = closing
        self.aborted = False

    def is_closing(self):
        return self.closing

    def abort(self):
        self.aborted = True


async def fly(flights, seconds, *, wire=None, until=None):
    with Flight(flights, seconds) as flight:
        flight.wire = wire
        await (until or asyncio.Event()).wait()


async def test_time_that_is_over_is_a_timeout_error():
    """
    Each call ends at its own deadline, in whatever order the deadlines fall.
    """
    flights = Flights()
    calls = [asyncio.create_task(fly(flights, seconds)) for seconds in (0.03, 0.01, 0.02)]
    for call, words in zip(calls, ("0.03 s", "0.01 s", "0.02 s"), strict=True):
        with pytest.raises(TimeoutError, match=words):
            await call
    assert {} == flights.aloft


async def test_timer_rests_when_nothing_has_a_deadline():
    """
    The one timer is armed by a deadline, and not again when only calls without one are left.
    """
    flights = Flights()
    landed = asyncio.Event()
    endless = asyncio.create_task(fly(flights, float("inf"), until=landed))
    await asyncio.sleep(0)
    assert flights.timer is None
    with pytest.raises(TimeoutError):
        await fly(flights, 0.001)
    assert flights.timer is None
    landed.set()
    await endless


async def test_closing_ends_all_and_lets_nothing_in():
    """
    Closing waits until every call has ended with ClosedError; then nothing may start.
    """
    flights = Flights()
    calls = [asyncio.create_task(fly(flights, seconds)) for seconds in (5, float("inf"))]
    await asyncio.sleep(0)
    await flights.close()
    for call in calls:
        with pytest.raises(ClosedError, match="while this call was under way"):
            await call
    with pytest.raises(ClosedError, match="open a new one"):
        await fly(flights, 1)
    await flights.close()


async def test_first_verdict_stands():
    """
    A call that is out of time is not told that it was closed a moment later.
    """
    flights = Flights()
    call = asyncio.create_task(fly(flights, 5))
    await asyncio.sleep(0)
    (flight,) = flights.aloft
    flight.cut(TimeoutError("first"))
    await flights.close()
    with pytest.raises(TimeoutError, match="first"):
        await call
    assert 0 == call.cancelling()


async def test_result_that_was_there_already_is_not_lost():
    """
    A call that swallows the cut and returns keeps its result, and leaves no cancellation behind.
    """
    flights = Flights()

    async def stubborn():
        with Flight(flights):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "done"

    call = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await flights.close()
    assert "done" == await call
    assert 0 == call.cancelling()


async def test_cancellation_from_outside_goes_first():
    """
    Cut off and cancelled by its owner at once, a call ends cancelled.
    """
    flights = Flights()
    call = asyncio.create_task(fly(flights, 5))
    await asyncio.sleep(0)
    closing = asyncio.create_task(flights.close())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await closing


@pytest.mark.parametrize("closing", [True, False])
async def test_only_a_closing_connection_is_aborted(closing):
    """
    What a failed call left closing is aborted with its unsent bytes; one that went back to the pool is left alone.
    """
    wire = Wire(closing=closing)
    with pytest.raises(TimeoutError):
        await fly(Flights(), 0.001, wire=wire)
    assert closing == wire.aborted


async def test_current_is_the_innermost():
    """
    Code knows the call that it runs for, and the outer one again after it.
    """
    flights = Flights()
    with Flight(flights) as outer:
        with Flight(flights) as inner:
            assert inner is current()
        assert outer is current()


async def test_a_short_deadline_is_kept_beside_a_long_one():
    """
    A download's hour does not put off the seconds of an exchange, whether it is still under way or long over.
    """
    flights, landed = Flights(), asyncio.Event()
    long = asyncio.create_task(fly(flights, 3600, until=landed))
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"0\.01 s have passed"):
            await asyncio.wait_for(fly(flights, 0.01), 5)
        landed.set()
        await long
    await flights.close()


async def test_turns_are_taken_in_the_order_of_asking():
    """
    Whoever leaves hands the turn to the first in line; with nobody there it is free again.
    """
    turns, came = Turns(0), []

    async def ask(name):
        await turns.come()
        came.append(name)

    asking = [asyncio.create_task(ask(name)) for name in "abc"]
    await asyncio.sleep(0)
    for _ in range(4):
        turns.leave()
    await asyncio.wait(asking)
    assert ["a", "b", "c"] == came
    assert 1 == turns.free


@pytest.mark.parametrize("came", [True, False])
async def test_a_turn_that_is_wanted_no_more_goes_to_the_next(came):
    """
    Cancelled while it waits, or at the very moment that its turn came, a call leaves the turn to others.
    """
    turns = Turns(0)
    first, second = (asyncio.create_task(turns.come()) for _ in range(2))
    await asyncio.sleep(0)
    if came:
        turns.leave()
        first.cancel()
    else:
        first.cancel()
        turns.leave()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert not second.cancelled()
    assert 0 == turns.free
    turns.leave()
    assert 1 == turns.free
