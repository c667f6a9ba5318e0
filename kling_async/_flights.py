"""
The calls of one transport that are under way: their deadlines, and their end when it closes.

Decides how a call is cut off from outside and with which error. Refuses to know what the calls do.
"""

import asyncio
from collections import deque
from contextvars import ContextVar, Token
from math import inf
from types import TracebackType
from typing import Final, Self

from attrs import define, field

from ._cut import TaskScope
from .errors import ClosedError


@define(eq=False, repr=False)
class Flights:
    """
    The calls under way with their deadlines. Closing ends them and waits for their ends.

    One timer serves all: a timer for each call, as aiohttp and asyncio have it, is a twentieth of a call's cost.
    """

    closed: bool = False
    """Nothing may start any more."""
    aloft: dict["Flight", float] = field(factory=dict)
    """Each with its deadline on the loop's clock."""
    landed: asyncio.Event = field(factory=asyncio.Event)
    """Set whenever one has ended."""
    timer: asyncio.TimerHandle | None = None
    """Set to the first deadline there was when it was armed."""
    first: float = inf
    """That deadline."""

    def board(self, flight: "Flight", seconds: float) -> None:
        """
        Count a call in, or give one that is in a new deadline.
        """
        loop = flight.task.get_loop()
        deadline = self.aloft[flight] = loop.time() + seconds
        if deadline < self.first:
            self.arm(deadline, loop)

    def arm(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """
        Set the timer, or none where there is no deadline.
        """
        if self.timer is not None:
            self.timer.cancel()
        self.first = deadline
        self.timer = loop.call_at(deadline, self.sweep, loop) if deadline < inf else None

    def sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Cut off those whose time is over.
        """
        now = loop.time()
        for flight, deadline in self.aloft.items():
            if deadline <= now:
                flight.cut(TimeoutError(f"{flight.seconds:g} s have passed"))
        self.arm(min((deadline for deadline in self.aloft.values() if deadline > now), default=inf), loop)

    async def close(self) -> None:
        """
        Let nothing in any more, cut off all, and wait until they have cleaned up.
        """
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
        for flight in self.aloft:
            flight.cut(ClosedError("the transport was closed while this call was under way"))
        while self.aloft:
            self.landed.clear()
            await self.landed.wait()


@define(eq=False, repr=False)
class Flight(TaskScope):
    """
    One call from start to end. Cut off, it ends with the verdict, as `asyncio.timeout` ends with TimeoutError.
    """

    flights: Flights
    """Where it is counted."""
    seconds: float = inf
    """How long it may take."""
    wire: asyncio.Transport | None = None
    """The connection that it was given last; None proves that nothing was sent."""
    waits: bool = False
    """For its turn."""
    verdict: Exception | None = None
    """What it ends with once it was cut off."""
    _token: Token["Flight"] = field(init=False)

    def __enter__(self) -> Self:
        if self.flights.closed:
            raise ClosedError("the transport is closed: open a new one")
        TaskScope.__enter__(self)  # which takes half of what super() does
        self._token = _CURRENT.set(self)
        self.flights.board(self, self.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _CURRENT.reset(self._token)
        del self.flights.aloft[self]
        if self.flights.closed:
            self.flights.landed.set()
        # What aiohttp closed may still hold unsent bytes, which it would go on sending; a pooled one is not closing.
        if error is not None and self.wire is not None and self.wire.is_closing():
            self.wire.abort()
        TaskScope.__exit__(self, kind, error, trace)
        if self.cancelled_caught and self.verdict is not None:
            raise self.verdict from error

    def cut(self, verdict: Exception) -> None:
        """
        End it from outside; the first verdict stands.
        """
        if self.verdict is None:
            self.verdict = verdict
            self.cancel()


@define(eq=False, repr=False)
class Turns:
    """
    So many flights at once, first come first served. What asyncio's semaphore does, but that asks a dozen times whether
    there is room where there is: a call that finds some takes it with `free -= 1`.
    """

    free: int
    """How many may start."""
    _line: deque[asyncio.Future[None]] = field(factory=deque, init=False)

    async def come(self) -> None:
        """
        Return when it is this one's turn.
        """
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(turn)
            else:
                self.leave()  # it came at the very moment that nobody wanted it any more
            raise

    def leave(self) -> None:
        """
        Give it to the next in line.
        """
        for turn in self._line:
            if not turn.done():
                turn.set_result(None)
                self._line.remove(turn)
                return
        self.free += 1


_CURRENT: Final[ContextVar[Flight]] = ContextVar("_CURRENT")


def current() -> Flight:
    """
    The flight that the running code belongs to.
    """
    return _CURRENT.get()
