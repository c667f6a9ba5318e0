"""
A walk over a list that has neither a total nor a next marker: a short page is its end.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from attrs import define, field

from .models import Task

PAGES_MOST = 1000


@define(eq=False, repr=False)
class Pages:
    """
    Tasks, page by page. A plain iterator: leaving it early leaves nothing behind.
    """

    _page: Callable[[int, int], Awaitable[tuple[Task, ...]]]
    _size: int
    _number: int = field(default=0, init=False)
    _left: deque[Task] = field(factory=deque, init=False)
    _last: bool = field(default=False, init=False)

    def __aiter__(self) -> "Pages":
        return self

    async def __anext__(self) -> Task:
        while not self._left:
            if self._last:
                raise StopAsyncIteration
            self._number += 1
            tasks = await self._page(self._number, self._size)
            self._last = len(tasks) < self._size or self._number == PAGES_MOST
            self._left.extend(tasks)
        return self._left.popleft()
