"""
Slots: how many tasks of an account run at once, as many as is said or as the account is found to allow.

A slot is held from a create to its task's end: that is what the service counts. Slots belong to no event loop.
"""

from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from operator import attrgetter
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from attrs import Factory, define, field, setters

from .policy import check_count

__all__ = ("Slots",)

TRIED_MOST = 24
"""Ends at most between two tries of one more than is known to have room; two rounds of all, where that is more."""
CUTS = (0, 1, 2, 4, 5)
"""Tenths that the first, second and each further refusal in a row takes off, if it says less than was known."""
SMALL = 12
"""Who has less than others tries one more after fewer rounds: what he has, divided by this."""
UNSEEN = 10
"""As many others are taken to run where they fill an account in which nothing of ours runs."""
HASTE = 10.0
"""Seconds, for each slot that he is known to have room for, after which he tries in any case."""


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

    _limit: int = field()
    _held: int = field(default=0, init=False)
    _waiting: deque[anyio.Event] = field(factory=deque, init=False)

    @_limit.validator
    def _check(self, _attribute: object, value: object) -> None:
        check_count("slots", value)

    @classmethod
    def learned(cls, start: int = 5) -> "Slots":
        """
        Slots that find the account's quota with `edit` and `edit_many`, and follow it when it changes.

        Each create that is accepted while all are held shows room for one more, until one is refused (1303), which
        costs nothing. From there on one more is tried now and then; a refusal with fewer of them running takes some
        off, each further one more. Who was refused gives the slot back and is the first to get one again. Clients of
        one account come to share its quota.

        What runs in the account as the first job comes counts as a part of `start`, where the host lists tasks: that
        takes one request. Jobs that go on with a task of an earlier run hold a slot too, without waiting for it.
        Flows of your own, under `async with`, call `refused` when they are.

        Args:
            start: How many tasks the account is taken to allow at first; it is no bound.

        Raises:
            InvalidInputError: `start` is no whole number from 1.
        """
        return LearnedSlots(start)

    def __repr__(self) -> str:
        return f"<Slots {self._held} of {self.limit}, {self._queued()} waiting>"

    @property
    def limit(self) -> int:
        """
        How many may be held at once, for now.
        """
        return self._limit

    @property
    def held(self) -> int:
        """
        How many are held.
        """
        return self._held

    async def __aenter__(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._held < self._limit and not self._waiting:
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
        self._release()

    def refused(self) -> None:
        """
        The service said that its quota is full: fewer, where the number is learned.
        """

    def _queued(self) -> int:
        return len(self._waiting)

    def _release(self) -> None:
        self._held -= 1
        if self._waiting:
            self._held += 1
            self._waiting.popleft().set()


@define(eq=False)
class Quota:
    """
    What is believed of a quota from what was accepted, refused and ended: numbers alone, without a clock.

    A search goes up by one with each create that is accepted and ends at the first refusal; one more is then tried
    every so many ends, and accepted twice it begins a search. Refusals that say less than was known, with nothing
    accepted in between, take ever more off, for nobody tells how far the quota was lowered. A place that is lost is
    counted as another's, and one that is gained as taken from there.
    """

    level: int
    """How many tasks of ours are believed to have room."""
    _others: int = field(default=0, init=False)
    _searching: bool = field(default=True, init=False)
    _hopeful: bool = field(default=False, init=False)
    _strikes: int = field(default=0, init=False)
    _ends: int = field(default=0, init=False)
    _rounds: int = field(default=1, init=False)
    _late: int = field(default=0, init=False)

    @property
    def small(self) -> bool:
        """Whether others have more than we."""
        return self.level < self._others

    @property
    def limit(self) -> int:
        """How many may be held: the level, or one more where that is to be tried."""
        apart = self.level * self.level // SMALL if self.small else self.level * self._rounds
        most = max(TRIED_MOST, 2 * self.level)
        return self.level + (not self._searching and self._ends >= max(1, min(apart, most)))

    def admits(self, running: int, underway: int) -> bool:
        """Whether one more create may begin; while refusals say less than was known, one at a time."""
        return running + underway < self.limit and not (self._strikes and underway)

    def accepted(self, running: int, underway: int) -> None:
        """A create was accepted; so many run with it, and so many others are underway."""
        if self._is_late(underway):
            return
        self._strikes, level = 0, self.level
        if self._hopeful and running >= level:
            self._searching, self._hopeful = True, False
        elif running > level:
            self.level, self._hopeful, self._ends = running, True, 0
        if self._searching:
            self.level, self._rounds = max(level, running + 1), 1
        self._others = max(0, self._others + level - self.level)

    def refused(self, running: int, underway: int) -> None:
        """A create was refused; so many run, and so many others are underway."""
        room, level = running + underway, self.level
        self._ends = 0
        if not room:
            self._others = max(self._others, UNSEEN)
        if self._is_late(underway):
            self.level = max(1, min(level, room))
            return
        self._late = underway
        if room >= level:
            self._searching, self._rounds = False, min(2 * self._rounds, TRIED_MOST)
            return
        if not self._searching and not self._hopeful and not self._strikes:
            self._others += level - room
        self._rounds = self._rounds if self._hopeful else 1
        cut = CUTS[min(self._strikes, len(CUTS) - 1)]
        self._strikes, self._hopeful = self._strikes + 1, False
        self.level = max(1, room - room * cut // 10)
        self._searching = self.level != room

    def ended(self) -> None:
        """A task has ended."""
        self._ends += 1

    def shown(self, running: int, others: int) -> None:
        """So many of ours are seen to run, and so many more of others than before, for which room is left."""
        others = max(others, -self._others)
        self.level, self._others = max(1, self.level - others, running), self._others + others

    def _is_late(self, underway: int) -> bool:
        """Whether it was underway already as the last refusal came, beyond which it tells little."""
        late = min(self._late, underway + 1)
        self._late = max(0, late - 1)
        return late > 0


@define(eq=False)
class Slot:
    """
    One slot, from the wish for it to its task's end; its holder tells how the create came out.
    """

    _slots: "LearnedSlots"
    _seen: Callable[[], Awaitable[int]] | None = None
    number: int = field(default=0, init=False)
    """The place in line, from 1 once it is in it."""
    ready: bool = field(default=True, init=False)
    """Whether it may be given now."""
    given: anyio.Event = field(init=False)
    """Set when it is given."""
    runs: bool = field(default=False, init=False)
    """Whether it is held for a task that runs."""

    async def __aenter__(self) -> Self:
        await anyio.lowlevel.checkpoint()
        self._slots.queue(self)
        try:
            await self._slots.look(self._seen)
            await self.given.wait()
        except BaseException:
            self._slots.leave(self)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slots.leave(self)

    def accepted(self) -> None:
        """Its create was accepted."""
        self.runs = True
        self._slots.accepted()

    async def refused(self, *, pause: float, alone: float, most: float) -> None:
        """
        Its create was refused for a full quota: give it back, and wait for it again at the old place in line.

        Args:
            pause: Seconds before it may be given again.
            alone: The same where no task runs here, whose end could make room.
            most: Seconds without a move here after which it is taken all the same: others' ends are not seen.
        """
        self.ready = False
        self._slots.put_back(self)
        await anyio.sleep(pause if self._slots.running else alone)
        self.ready = True
        self._slots.admit()
        while not self.given.is_set():
            moves = self._slots.moves
            with anyio.move_on_after(self._slots.patience(most)):
                await self.given.wait()
            if moves == self._slots.moves:
                self._slots.insist(self)


@define(eq=False, repr=False, on_setattr=setters.NO_OP)
class LearnedSlots(Slots):
    """
    Slots whose number follows the account.
    """

    running: int = field(default=0, init=False)
    """How many of those held are for tasks that run; the others are for creates that are underway."""
    moves: int = field(default=0, init=False)
    """How often one was given or came free."""
    _quota: Quota = field(default=Factory(lambda self: Quota(self._limit), takes_self=True), init=False)
    _looked: bool = field(default=False, init=False)
    _shut: bool = field(default=True, init=False)
    _line: list[Slot] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=partial(count, 1), init=False)
    _unnamed: list[Slot] = field(factory=list, init=False)

    @property
    def limit(self) -> int:
        """How many may be held at once, for now."""
        return self._quota.limit

    def patience(self, most: float) -> float:
        """Seconds without a move after which one more is tried in any case."""
        return min(most, HASTE * self._quota.level) if self._quota.small else most

    def slot(self, seen: Callable[[], Awaitable[int]] | None = None) -> Slot:
        """One of them, for `async with`; the first asks `seen` how many tasks of the account run already."""
        return Slot(self, seen)

    def queue(self, slot: Slot) -> None:
        """Put it in line, at the end or where it was before."""
        slot.number, slot.given = slot.number or next(self._numbers), anyio.Event()
        insort(self._line, slot, key=attrgetter("number"))
        self.admit()

    def admit(self) -> None:
        """Give what there is room for, to none before those who came earlier."""
        line, quota = self._line, self._quota
        while line and line[0].ready and not self._shut and quota.admits(self.running, self._held - self.running):
            self.insist(line[0])

    def insist(self, slot: Slot) -> None:
        """Give it if it is the first in line, whatever the quota is taken for."""
        if self._line[0] is slot:
            del self._line[0]
            self._held, self.moves = self._held + 1, self.moves + 1
            slot.given.set()

    def accepted(self) -> None:
        """One more create was accepted."""
        self.running += 1
        self._quota.accepted(self.running, self._held - self.running)
        self.admit()

    def put_back(self, slot: Slot) -> None:
        """Take it back from one whose create was refused, and put it in line."""
        self._held -= 1
        self._quota.refused(self.running, self._held - self.running)
        self.queue(slot)

    def leave(self, slot: Slot) -> None:
        """Take it back, or the wish for it."""
        if slot.runs:
            self._ended()
        elif slot.given.is_set():
            self._release()
        else:
            self._line.remove(slot)
            self.admit()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """One beyond what there is room for, for a task of an earlier run."""
        self._held, self.running = self._held + 1, self.running + 1
        self._quota.shown(self.running, -1)
        try:
            yield
        finally:
            self._ended()

    async def look(self, seen: Callable[[], Awaitable[int]] | None) -> None:
        """Leave room for what runs already: looked at once, and no slot is given before."""
        if self._looked:
            return
        self._looked = True
        try:
            if seen is not None:
                self._quota.shown(self.running, max(0, await seen() - self.running))
        finally:
            self._shut = False
            self.admit()

    async def __aenter__(self) -> None:
        slot = self.slot()
        await slot.__aenter__()
        slot.runs, self.running = True, self.running + 1
        self._unnamed.append(slot)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._quota.accepted(min(self.running, self.limit), 0)
        self.leave(self._unnamed.pop())

    def refused(self) -> None:
        """The service said that its quota is full: fewer, unless it was only tried whether there is room for more."""
        self._quota.refused(max(0, min(self._held, self.limit) - 1), 0)

    def _queued(self) -> int:
        return len(self._line)

    def _ended(self) -> None:
        self.running -= 1
        self._quota.ended()
        self._release()

    def _release(self) -> None:
        self._held, self.moves = self._held - 1, self.moves + 1
        self.admit()
