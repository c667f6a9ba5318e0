"""
Work that may be given up while it goes on, for a thread cannot be stopped from outside.

Decides how that is asked for and noticed: who runs work in a thread hands an event with it, and the work looks at it
between its steps. Knows nothing of what the work is.
"""

from collections.abc import Callable
from contextvars import ContextVar
from threading import Event
from typing import Final, TypeVar

T = TypeVar("T")

_CURRENT: Final[ContextVar[Event | None]] = ContextVar("_CURRENT", default=None)


class HaltedError(Exception):
    """
    Nobody waits for this work any more. It never leaves the simulator but as the end of a task.
    """

    def __init__(self) -> None:
        super().__init__("the simulator was closed meanwhile")


def haltable(halt: Event, work: Callable[[], T]) -> T:
    """
    Do work, unless or until it is to be given up.

    Args:
        halt: Set as soon as nobody waits for it any more.
        work: It.

    Raises:
        HaltedError: It was given up.
    """
    token = _CURRENT.set(halt)
    try:
        heed()
        return work()
    finally:
        _CURRENT.reset(token)


def heed() -> None:
    """
    Called by long work between two steps.

    Raises:
        HaltedError: It is to be given up; what is under way is left as it is.
    """
    halt = _CURRENT.get()
    if halt is not None and halt.is_set():
        raise HaltedError
