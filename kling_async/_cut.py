"""
How a call that runs is ended from outside, and how its loop is known again, in the way of the loop it runs on.

Decides which of two scopes a call gets. anyio's heeds every shield, of a caller's own store and transport too; where
nothing but our own code runs, a task of asyncio is cancelled by itself, at a tenth of the cost.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from attrs import define, field


@define(eq=False, repr=False)
class TaskScope:
    """
    As much of `anyio.CancelScope` as it takes to end a task of asyncio: no shield, no deadline, and one cancellation
    where anyio's repeats it.
    """

    task: asyncio.Task[object] = field(init=False)
    """The caller's own task."""
    cancel_called: bool = field(default=False, init=False)
    """Whether it was to be ended."""
    cancelled_caught: bool = field(default=False, init=False)
    """Whether it ended by that alone."""
    _cancelling: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self.task, self._cancelling = task, task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.cancel_called:
            others = self.task.uncancel() > self._cancelling
            self.cancelled_caught = kind is asyncio.CancelledError and not others
        # A pooled connection remembers the context it was opened in, and with it this scope.
        del self.task

    def cancel(self) -> None:
        """
        End it.
        """
        if not self.cancel_called:
            self.cancel_called = True
            self.task.cancel()


Scope = TaskScope | anyio.CancelScope


def ways(loop: object, *, ours: bool) -> tuple[Callable[[], object], Callable[[], Scope]] | None:
    """
    What tells the running loop of asyncio from others, and what makes a scope on it; None for another library's loop.

    Args:
        loop: What the running loop is to its own library.
        ours: Whether nothing but our own code runs under such a scope.
    """
    if not isinstance(loop, asyncio.AbstractEventLoop):
        return None
    return asyncio.get_running_loop, TaskScope if ours else anyio.CancelScope
