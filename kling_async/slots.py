"""
Slots: how many tasks of an account run at once.

A slot is held from a create to its task's end, because that is what the service counts. The slots know no
clock and no event loop: they may stand at module level.
"""

from collections import deque
from types import TracebackType

import anyio
import anyio.lowlevel
from attrs import define, field, setters

from .policy import check_count

__all__ = ("Slots",)


@define(eq=False, on_setattr=setters.NO_OP)
class Slots:
    """
    So many at once, first come first served; reusable under `async with` by any number of tasks.

    Example:
        >>> Slots(5)
        <Slots 0 of 5, 0 waiting>

    Raises:
        InvalidInputError: The number is no whole number from 1.
    """

    _limit: float = field()
    _learns: bool = field(default=False, init=False)
    _held: int = field(default=0, init=False)
    _waiting: deque[anyio.Event] = field(factory=deque, init=False)

    @_limit.validator
    def _check(self, _attribute: object, value: object) -> None:
        check_count("slots", value)

    @classmethod
    def learned(cls, start: int = 5) -> "Slots":
        """
        Slots whose number follows the account: a refusal for a full quota halves it, ends let it grow by one a round.

        Args:
            start: How many at first.

        Raises:
            InvalidInputError: `start` is no whole number from 1.
        """
        slots = cls(start)
        slots._learns = True
        return slots

    def __repr__(self) -> str:
        return f"<Slots {self._held} of {self.limit}, {len(self._waiting)} waiting>"

    @property
    def limit(self) -> int:
        """
        How many may be held at once, for now.
        """
        return int(self._limit)

    @property
    def held(self) -> int:
        """
        How many are held.
        """
        return self._held

    async def __aenter__(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._held < self.limit and not self._waiting:
            self._held += 1
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._learns and kind is None:
            self._limit += 1 / self._limit
        self._release()

    def refused(self) -> None:
        """
        The service said that its quota is full: fewer, where the number is learned.
        """
        if self._learns:
            self._limit = max(1.0, self._limit / 2)

    def _release(self) -> None:
        self._held -= 1
        while self._waiting and self._held < self.limit:
            self._held += 1
            self._waiting.popleft().set()
