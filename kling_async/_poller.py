"""
One poller for all who wait for tasks of a client: pages of the list where the host has one, single looks else.

Decides when a task is looked at, and whether by a page or alone; what a look means is `_watch.py`'s. It has no task of
its own: one of those who wait keeps the time and reads the pages for all, and as it goes another takes its place.
A page only ever saves a look: what it does not show, or not plainly, is looked at alone.
"""

from collections.abc import Callable, Iterable
from copy import copy
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from attrs import Factory, define, field

from ._endpoints import GET
from ._exchange import Exchange
from ._inbox import Ear, Inbox, calmer
from ._listing import PAGE_SIZE, Listing, Page, Row, rested
from .errors import AuthenticationError, KlingError, TLSError
from .models import FAILED, SUCCEED, Task
from .policy import PollPolicy

if TYPE_CHECKING:
    from ._bell import AnyBell

WORTH = 8
"""Tasks that a page should show to be worth its bytes; fewer are looked at alone."""
PAGES_LEAST, PAGES_MOST = 20, 1000
"""Pages that are searched at most for few tasks, and the last one that a service answers."""
AT_ONCE = 32
"""Looks at single tasks that are underway at once, so that connections are left for what costs money."""


@define(eq=False)
class Seat:
    """
    One who waits for a task: what it has seen of it, and when it is to look next.
    """

    task_id: str
    """The task."""
    policy: PollPolicy
    """When to look."""
    seen: Task | None = None
    """The task as last seen."""
    ear: Ear | None = None
    """What hears of hints, which bring a look forward."""
    looks: int = field(default=0, init=False)
    """How many pauses there were since the rhythm began."""
    unseen: int = field(default=0, init=False)
    """How many looks in a row did not find it."""
    due: float = field(default=0.0, init=False)
    """When it is to look."""
    half: float = field(default=0.0, init=False)
    """When half of its pause is over: from then on a page that shows its task counts as its look."""
    missed: int = field(default=0, init=False)
    """How many searches in a row did not show its task."""
    alone_until: float = field(default=-inf, init=False)
    """Until then the list is not searched for it."""
    turn: "AnyBell" = field(init=False)
    """Rung when it is called, or is to keep the time."""
    wake: Callable[[], None] | None = field(default=None, init=False)
    """What its ear calls at a hint, while it pauses."""
    called: bool = field(default=False, init=False)
    """Its pause is over."""
    shown: Task | KlingError | None = field(default=None, init=False)
    """What it was shown; else it looks itself."""

    @property
    def names(self) -> tuple[str | None, ...]:
        """
        The ids by which hints name the task.
        """
        return self.task_id, self.seen.external_task_id if self.seen is not None else None

    def plan(self, now: float, pause: float) -> None:
        """
        Begin the next pause.
        """
        self.looks += 1
        self.due, self.half = now + pause, now + pause / 2
        if self.ear is not None:
            self.heed(now)

    def heed(self, now: float) -> None:
        """
        Let a hint bring the look forward; the rhythm begins anew, for the service's query may lag behind its hint.
        """
        earliest = self.ear.earliest(*self.names) if self.ear is not None else None
        if earliest is not None:
            self.due, self.looks = min(self.due, max(now, earliest)), 0
            self.half = min(self.half, self.due)

    def call(self, shown: Task | KlingError | None) -> None:
        """
        End its pause.
        """
        self.called, self.shown = True, shown
        self.turn.ring()

    def listen(self, hinted: Callable[["Seat"], None]) -> None:
        """
        Have this called at each hint about the task.
        """
        if self.ear is not None:
            self.wake = partial(hinted, self)
            self.ear.listen(self.wake, *self.names)

    def leave(self) -> None:
        """
        Have nothing called any more.
        """
        if self.ear is not None and self.wake is not None:
            self.ear.leave(self.wake, *self.names)
            self.wake = None


@define(eq=False)
class Poller:
    """
    Those who wait, in the order of their coming, and the one among them that keeps the time for all.
    """

    _exchange: Callable[[], Exchange]
    _policy: PollPolicy
    _inbox: Inbox | None
    _listing: Listing = field(default=Factory(lambda self: Listing(self._exchange), takes_self=True), init=False)
    _alone: anyio.Semaphore | None = field(default=None, init=False)
    _bell: "Callable[[], AnyBell] | None" = field(default=None, init=False)
    _seats: dict[Seat, None] = field(factory=dict, init=False)
    _by_id: dict[str, tuple[Seat, ...]] = field(factory=dict, init=False)
    _times: list[float] = field(factory=list, init=False)
    _timers: dict[float, list[Seat]] = field(factory=dict, init=False)
    _leader: Seat | None = field(default=None, init=False)
    _until: float = field(default=inf, init=False)
    _stirred: anyio.Event | None = field(default=None, init=False)

    def seat(self, task_id: str, seen: Task | None) -> Seat:
        """
        A seat for one who will wait; it is taken with the first pause, and given back after each.
        """
        if self._inbox is None:
            return Seat(task_id, self._policy, seen)
        return Seat(task_id, calmer(self._policy), seen, Ear(self._inbox))

    async def look(self, seat: Seat) -> Task:
        """
        Look at one task.

        Raises:
            KlingError: It cannot be seen.
        """
        # Made here, for a client may be made before there is a loop, or on another one.
        self._alone = self._alone or anyio.Semaphore(AT_ONCE, fast_acquire=True)
        async with self._alone:
            if seat.ear is not None:
                seat.ear.looking(*seat.names)
            return await self._exchange()(GET, path=GET.at(seat.task_id))

    async def pause(self, seat: Seat, *, at_once: bool = False) -> Task | None:
        """
        Return when it is time to look, or with the task where a page has shown it meanwhile.

        Args:
            seat: Whose pause it is.
            at_once: It is time already.

        Raises:
            AuthenticationError: The key was refused, for the list and for a task.
            TLSError: So was the host's certificate.
        """
        now = anyio.current_time()
        seat.turn, seat.called, seat.shown = self._new_bell(), False, None
        seat.due = seat.half = now
        if not at_once:
            seat.plan(now, self._drawn(seat))
        seat.listen(self._hinted)
        self._enter(seat)
        try:
            while not seat.called:
                self._leader = self._leader or seat
                await (self._lead(seat) if self._leader is seat else seat.turn)
        finally:
            seat.leave()
            self._leave(seat)
        if isinstance(seat.shown, KlingError):
            raise seat.shown
        return seat.shown

    def _new_bell(self) -> "AnyBell":
        if self._bell is None:
            from ._bell import bells

            self._bell = bells()
        return self._bell()

    def _drawn(self, seat: Seat) -> float:
        return seat.policy.delay(seat.looks, chance=self._exchange().chance())

    def _enter(self, seat: Seat) -> None:
        self._seats[seat] = None
        self._by_id[seat.task_id] = (*self._by_id.get(seat.task_id, ()), seat)
        self._set_timer(seat)

    def _leave(self, seat: Seat) -> None:
        """Go, called or cut off. Who keeps the time, or was about to, names another: so it never stands still."""
        self._drop(seat)
        if self._leader is seat:
            self._leader = next(iter(self._seats), None)
            if self._leader is not None:
                self._leader.turn.ring()

    def _drop(self, seat: Seat) -> None:
        if seat in self._seats:
            del self._seats[seat]
            seats = self._by_id.pop(seat.task_id)
            if len(seats) > 1:
                self._by_id[seat.task_id] = tuple(other for other in seats if other is not seat)

    def _call(self, seat: Seat, shown: Task | KlingError | None = None) -> None:
        self._drop(seat)
        seat.call(shown)

    def _hinted(self, seat: Seat) -> None:
        seat.heed(anyio.current_time())
        self._set_timer(seat)

    def _set_timer(self, seat: Seat) -> None:
        if seat.due in self._timers:
            self._timers[seat.due].append(seat)
        else:
            self._timers[seat.due] = [seat]
            heappush(self._times, seat.due)
        if self._stirred is not None and seat.due < self._until:
            self._stirred.set()

    def _reset_timers(self) -> None:
        self._timers = {}
        for seat in self._seats:
            self._timers.setdefault(seat.due, []).append(seat)
        self._times = sorted(self._timers)  # which is a heap

    def _due(self, now: float) -> list[Seat]:
        """Those whose time it is. Timers of those who left, or were put off, are dropped on the way."""
        due: list[Seat] = []
        while self._times:
            at = self._times[0]
            there = (seat for seat in self._timers[at] if seat.due == at and seat in self._seats)
            if at > now and any(there):
                break
            due += dict.fromkeys(there)
            heappop(self._times)
            del self._timers[at]
        return due

    async def _lead(self, seat: Seat) -> None:
        """Keep the time for all until this one is called itself."""
        # Those who come at the same moment are looked at together.
        await anyio.lowlevel.checkpoint()
        while not seat.called:
            due = self._due(anyio.current_time())
            if due:
                await self._round(due)
                continue
            self._until, self._stirred = self._times[0], anyio.Event()
            try:
                with anyio.CancelScope(deadline=self._until):
                    await self._stirred.wait()
            finally:
                self._stirred = None

    async def _round(self, due: Iterable[Seat]) -> None:
        """Look at those that are due: in the list, with all whose pause is half over, if these are many; else alone."""
        now = anyio.current_time()
        if self._listing.open(now) and any(seat.alone_until <= now for seat in due):
            wanted = [seat for seat in self._seats if seat.half <= now and seat.alone_until <= now]
            left = {seat.task_id for seat in wanted}
            if len(left) > WORTH:
                try:
                    await self._search(wanted, left)
                finally:
                    self._reset_timers()
                return
        for seat in due:
            self._call(seat)

    async def _search(self, wanted: list[Seat], left: set[str]) -> None:
        """Read pages until all are found; those that are not, and are due, are looked at alone in the next round."""
        most = min(PAGES_MOST, len(left) // WORTH, PAGES_LEAST + 2 * len(left) // PAGE_SIZE)
        for number in range(1, most + 1):
            asked, mark, before = anyio.current_time(), 0 if self._inbox is None else self._inbox.count, len(left)
            try:
                page = await self._listing.page(number)
            except (KlingError, TimeoutError) as error:
                await self._failed(error, [seat for seat in wanted if seat.task_id in left], mark)
                return
            self._show(page, left, asked, mark)
            if len(left) < WORTH or len(page.rows) < PAGE_SIZE:
                break
            if before == len(left) and page.precedes(seat.seen for seat in wanted if seat.task_id in left):
                break
            del page  # before the next one is there: both together would make the collector run twice as far
        self._judge(wanted, left)

    def _show(self, page: Page, left: set[str], asked: float, mark: int) -> None:
        pauses: dict[int, float] = {}
        by_id = self._by_id
        for row in page.rows:
            task_id = row.get("task_id")
            seats = by_id.get(task_id) if isinstance(task_id, str) else None
            if not seats:
                continue
            left.discard(seats[0].task_id)
            status = row.get("task_status")
            for seat in seats:
                seat.unseen = seat.missed = 0
                counts = seat.half <= asked
                if counts and seat.ear is not None:
                    seat.ear.looked(mark, asked)
                if seat.seen is None or status != seat.seen.status or status == SUCCEED:
                    self._tell(seat, page, row, counts=counts)
                elif counts:
                    # One pause for all, so that they stay together.
                    pause = pauses.get(seat.looks) or pauses.setdefault(seat.looks, self._drawn(seat))
                    seat.plan(asked, pause)

    def _tell(self, seat: Seat, page: Page, row: Row, *, counts: bool) -> None:
        """Call one whose row tells something new; before half of its pause is over, only if that is the end."""
        if counts or row.get("task_status") in (SUCCEED, FAILED):
            task = page.task(row)
            if counts or task is not None:
                self._call(seat, task)

    def _judge(self, wanted: list[Seat], left: set[str]) -> None:
        """The list rests where it has shown fewer than half; what it has not shown is looked at alone for a while."""
        now, missing = anyio.current_time(), [seat for seat in wanted if seat.task_id in left and seat in self._seats]
        for seat in missing:
            seat.missed += 1
            seat.alone_until = now + rested(seat.missed)
        if 2 * len(missing) > len(wanted):
            self._listing.rest(f"it shows {len(wanted) - len(missing)} of {len(wanted)} tasks")
        else:
            self._listing.useful()

    async def _failed(self, error: KlingError | TimeoutError, left: list[Seat], mark: int) -> None:
        now = anyio.current_time()
        if self._listing.passes(error):
            for seat in left:
                if seat.ear is not None:
                    seat.ear.looked(mark, now)
                seat.plan(now, self._drawn(seat))
        elif isinstance(error, AuthenticationError | TLSError):
            await self._refused(left[0])

    async def _refused(self, seat: Seat) -> None:
        """What the list refuses may be its own alone; if a look at a task is refused as well, that concerns all."""
        try:
            await self.look(seat)
        except (AuthenticationError, TLSError) as error:
            for each in tuple(self._seats):
                self._call(each, copy(error))
        except KlingError:
            return
