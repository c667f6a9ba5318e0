"""
Looking at a running task until it ends: the same eyes for `watch` and `wait`.

A status that is not known is not an end, a status that steps back is not believed, and there is no limit
of its own: deadlines are the caller's scopes.
"""

from collections.abc import Awaitable, Callable

import anyio
from attrs import define, field

from ._exchange import log
from ._inbox import Ear
from .errors import NotFoundError, ServerError, ThrottledError, TLSError, TransportError
from .models import PROCESSING, SUBMITTED, SUCCEED, Task
from .policy import PollPolicy

UNSEEN_MOST = 3
"""Looks that may not find a task just created: gateways answer `task_not_exist` for a moment."""
EMPTY_MOST = 3
"""Looks that may find a success without its video."""
_RANK = {SUBMITTED: 0, PROCESSING: 1}


@define
class Looks:
    """
    The looks at one task, in the rhythm of the policy.
    """

    task_id: str
    """The task."""
    look: Callable[[str], Awaitable[Task]]
    """Looks once."""
    policy: PollPolicy
    """When to look."""
    chance: Callable[[], float]
    """From 0 to 1."""
    tell: Callable[[Task], None]
    """Told of each change of status."""
    seen: Task | None = None
    """The task as last seen."""
    ear: Ear | None = None
    """What hears of hints, which cut a pause short."""
    _count: int = field(default=0, init=False)
    _unseen: int = field(default=0, init=False)
    _empty: int = field(default=0, init=False)
    _warned: bool = field(default=False, init=False)

    async def next(self, *, at_once: bool = False) -> Task:
        """
        The task at the next look that shows it; a fault that passes only costs a look.

        Args:
            at_once: Look first and wait only after a look that failed.
        """
        while True:
            if not at_once:
                await self._pause()
            at_once = False
            if self.ear is not None:
                self.ear.looking(*self._names)
            task = await self._look()
            if task is not None:
                return task

    @property
    def _names(self) -> tuple[str | None, ...]:
        return self.task_id, self.seen.external_task_id if self.seen is not None else None

    async def _pause(self) -> None:
        """A hint begins the rhythm anew: the service's own query may lag behind what it told."""
        seconds = self.policy.delay(self._count, chance=self.chance())
        self._count += 1
        if self.ear is None:
            await anyio.sleep(seconds)
        elif await self.ear.pause(seconds, *self._names):
            self._count = 0

    async def _look(self) -> Task | None:
        try:
            task = await self.look(self.task_id)
        except TLSError:
            raise
        except NotFoundError:
            self._unseen += 1
            if self.seen is None or self._unseen > UNSEEN_MOST:
                raise
            return None
        except (TransportError, ServerError, ThrottledError) as error:
            self._warn(f"cannot be looked at for now ({type(error).__name__})")
            return None
        self._unseen = 0
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
        self.seen = task
        return task

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("task %s %s", self.task_id, text)


@define
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
