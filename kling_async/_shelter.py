"""
Local work that is done to its end, even while its caller is being cancelled.

A scope that shields keeps off other scopes alone: asyncio's own `Task.cancel()`, as which Ctrl-C and `asyncio.timeout`
arrive, goes through it. So what is cut off is done once more. Decides how long that may take.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

GRACE: Final = 2.5
"""Seconds that it may hold up a cancellation: two may follow each other, and five are promised."""


async def sheltered(work: Callable[[], Awaitable[T]]) -> T:
    """
    Do it, however long it takes; cut off, do it once more, for the grace at most, and let the cancellation go on.

    Args:
        work: May be stopped anywhere and be done twice.
    """
    try:
        return await work()
    except anyio.get_cancelled_exc_class():
        await _regardless(work)
        raise


async def parting(work: Callable[[], Awaitable[object]]) -> None:
    """
    The same as the last thing before an exception goes on. Where that is a cancellation or Ctrl-C, it is done once, for
    the grace at most, and the exception goes on as it is, with its notes.

    Args:
        work: May be stopped anywhere and be done twice.
    """
    leaving = sys.exception()
    if leaving is None or isinstance(leaving, Exception):
        await sheltered(work)
    else:
        # Ctrl-C too, for it may have struck inside of what the work waits for.
        await _regardless(work)


async def _regardless(work: Callable[[], Awaitable[object]]) -> None:
    with anyio.move_on_after(GRACE, shield=True) as grace:
        while True:
            try:
                await work()
            except anyio.get_cancelled_exc_class():
                if grace.cancel_called:
                    raise
            else:
                return
