"""
Looking at a running task until it ends: the same eyes for `watch` and `wait`.

A status that is not known is not an end, a status that steps back is not believed, and there is no limit
of its own: deadlines are the caller's scopes.
"""

from collections.abc import Awaitable, Callable

from attrs import define, field

from ._exchange import log
from ._poller import Poller, Seat
from .errors import NotFoundError, ServerError, ThrottledError, TLSError, TransportError
from .models import PROCESSING, SUBMITTED, SUCCEED, Task

UNSEEN_MOST = 3
"""Looks that may not find a task just created: gateways answer `task_not_exist` for a moment."""
EMPTY_MOST = 3
"""Looks that may find a success without its video."""
_RANK = {SUBMITTED: 0, PROCESSING: 1}


@define(eq=False, repr=False)
class Looks:
    """
    The looks at one task, in the rhythm of the policy.
    """

    poller: Poller
    """Says when to look."""
    seat: Seat
    """Its place there."""
    tell: Callable[[Task], None]
    """Told of each change of status."""
    _empty: int = field(default=0, init=False)
    _warned: bool = field(default=False, init=False)

    @property
    def task_id(self) -> str:
        """
        The task's id.
        """
        return self.seat.task_id

    @property
    def seen(self) -> Task | None:
        """
        The task as last seen.
        """
        return self.seat.seen

    async def next(self, *, at_once: bool = False) -> Task:
        """
        The task at the next look that shows it; a fault that passes only costs a look.

        Args:
            at_once: Look first and wait only after a look that failed.
        """
        while True:
            shown = await self.poller.pause(self.seat, at_once=at_once)
            at_once = False
            task = await self._look() if shown is None else self._believed(shown)
            if task is not None:
                return task

    async def _look(self) -> Task | None:
        try:
            task = await self.poller.look(self.seat)
        except TLSError:
            raise
        except NotFoundError:
            self.seat.unseen += 1
            if self.seen is None or self.seat.unseen > UNSEEN_MOST:
                raise
            return None
        except (TransportError, ServerError, ThrottledError) as error:
            self._warn(f"cannot be looked at for now ({type(error).__name__})")
            return None
        self.seat.unseen = 0
        return self._believed(task)

    def _believed(self, task: Task) -> Task | None:
        if task.status == SUCCEED and not task.has_video and self._empty < EMPTY_MOST:
            self._empty += 1
            return None
        known = _RANK.get(self.seen.status, -1) if self.seen else -1
        if _RANK.get(task.status, known) < known:
            return self.seen
        if task.status not in _RANK and not task.done:
            self._warn(f"has the unknown status {task.status!r:.40}, taken for running")
        if self.seen is None or task.status != self.seen.status:
            self.tell(task)
        self.seat.seen = task
        return task

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("task %s %s", self.task_id, text)


@define(eq=False, repr=False)
class Watch:
    """
    The states of a task: the present one at once, each change of status, the final one, end.

    A plain iterator: leaving it early leaves nothing behind.
    """

    _looks: Looks
    _guarded: Callable[[Callable[[], Awaitable[Task]]], Awaitable[Task]] = field(repr=False)
    _told: str | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> Task:
        if self._ended:
            raise StopAsyncIteration
        task = await self._guarded(self._changed)
        self._told = task.status
        self._ended = task.done
        return task

    async def _changed(self) -> Task:
        seen = self._looks.seen
        if seen is not None and seen.done:
            return seen
        task = await self._looks.next(at_once=self._told is None)
        while task.status == self._told:
            task = await self._looks.next()
        return task
