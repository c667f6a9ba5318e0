"""
What one task waits at until another calls it, in the way of the loop it runs on.

Ten thousand may wait at once: on asyncio a bare future does it, where an event of anyio weighs a kilobyte.
"""

import asyncio
from collections.abc import Callable, Generator

import anyio
from anyio.lowlevel import current_token
from attrs import define, field


@define(eq=False)
class Bell:
    """
    Rung once at least, and heard by one, with `await`.
    """

    _future: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future(), init=False)

    def __await__(self) -> Generator[object, None, None]:
        return self._future.__await__()

    def ring(self) -> None:
        """
        Wake who waits, or will.
        """
        # It is done, too, where who waited was cancelled.
        if not self._future.done():
            self._future.set_result(None)


@define(eq=False)
class EventBell:
    """
    The same on other loops, where events are small.
    """

    _event: anyio.Event = field(factory=anyio.Event, init=False)

    def __await__(self) -> Generator[object, None, None]:
        return self._event.wait().__await__()

    def ring(self) -> None:
        """
        Wake who waits, or will.
        """
        self._event.set()


AnyBell = Bell | EventBell


def bells() -> Callable[[], AnyBell]:
    """
    What makes them on the running loop.
    """
    return Bell if isinstance(current_token().native_token, asyncio.AbstractEventLoop) else EventBell


def threadsafe() -> Callable[[Callable[[], object]], object]:
    """
    What makes the running loop take a step soon, from whatever thread it is called in.
    """
    native = current_token().native_token
    if isinstance(native, asyncio.AbstractEventLoop):
        return native.call_soon_threadsafe
    from trio.lowlevel import current_trio_token

    return current_trio_token().run_sync_soon
