"""
What stores outside of this process's memory have in common: rows as text, work in threads, and what nobody hears of.

Knows no database and no rule of the protocol.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Event, Lock, Semaphore
from typing import TypeVar

import anyio
import orjson
from anyio import to_thread
from attrs import define, field

from ._codec import converter
from ._shelter import parting
from ._submit import Abilities, Intent
from .errors import StoreError

T = TypeVar("T")


def read(body: str, kind: type[T]) -> T:
    """
    A value from the text that it was written as.
    """
    return converter().structure(orjson.loads(body), kind)


def written(value: Intent | Abilities) -> str:
    """
    A value as the text that it is read from.
    """
    return orjson.dumps(converter().unstructure(value)).decode()


@define(eq=False, repr=False)
class Threads:
    """
    Threads for work that blocks, so much of it at a time.

    A thread is left to itself when its caller is cancelled: what it has begun it ends, and it begins nothing more.
    """

    most: int
    """How much at a time."""
    _turns: anyio.Semaphore = field(init=False)
    _slots: Semaphore = field(init=False)
    """Of threads: one that nobody waits for any more may still be at it."""

    def __attrs_post_init__(self) -> None:
        self._turns, self._slots = anyio.Semaphore(self.most), Semaphore(self.most)

    async def run(self, work: Callable[[], T]) -> T:
        """
        Do it in a thread.
        """
        left = Event()

        def alone() -> T:
            with self._slots:
                if left.is_set():
                    raise _unheard()
                return work()

        async with self._turns:
            try:
                return await to_thread.run_sync(alone, abandon_on_cancel=True)
            finally:
                left.set()


async def heard(
    run: Callable[[Callable[[], T | None]], Awaitable[T | None]],
    work: Callable[[], T | None],
    undo: Callable[[T], None],
) -> T | None:
    """
    Do work in a thread, and undo it if its caller is cancelled, for then nobody knows of it.

    Args:
        run: How work gets into a thread.
        work: What is to be done.
        undo: Undoes what the work has returned; nothing where that was None. It may be done twice.
    """
    off, turn, done = Event(), Lock(), list[T]()

    def do() -> T | None:
        with turn:
            if off.is_set():
                raise _unheard()
            result = work()
            if result is not None:
                done.append(result)
            # A cancelled caller waits no longer than it may.
            if off.is_set():
                undone()
            return result

    def undone() -> None:
        for result in done:
            undo(result)

    def take_back() -> None:
        with turn:
            undone()

    async def undoing() -> None:
        # What cannot be undone now ends by itself, and must not take the place of the cancellation.
        with suppress(StoreError):
            await run(take_back)

    try:
        return await run(do)
    except anyio.get_cancelled_exc_class():
        off.set()
        await parting(undoing)
        raise


def _unheard() -> StoreError:
    return StoreError("nobody waits for this any more")
