"""
Where requests are handed in, from any thread and any event loop.

Decides what time it is for the machine, and that one thread drives it at a time. Each driver has a clock of its
own; the simulator's goes on with whichever is read, from 0, and never back.
"""

from collections.abc import Hashable
from functools import partial
from threading import Event, Lock

from attrs import define, field

from kling_async.transport import Request

from ._faults import Broken, Outcome
from ._halt import haltable
from ._machine import Machine
from ._world import Steps, Work


@define(eq=False)
class Visit:
    """
    One request on its way.
    """

    _steps: Steps[Outcome]
    _lock: Lock
    outcome: Outcome = field(init=False, default=Broken("cut"))
    """What came of it, once there is no more work."""
    _halt: Event = field(init=False, factory=Event)

    def work(self) -> Work | None:
        """
        Go on to the next piece of work, which must be run before this is called again; None at the end.
        """
        with self._lock:
            try:
                return partial(haltable, self._halt, next(self._steps))
            except StopIteration as stop:
                self.outcome = stop.value
                return None

    def close(self) -> None:
        """
        Go no further, and give up the work that goes on.
        """
        self._halt.set()
        with self._lock:
            self._steps.close()


@define(eq=False)
class Desk:
    """
    The machine, safe to share.
    """

    machine: Machine
    """What answers."""
    lock: Lock = field(init=False, factory=Lock)
    """Held while the machine is driven or looked at."""
    _behind: dict[Hashable, float] = field(init=False, factory=dict)

    def enter(self, request: Request, *, origin: str, clock: Hashable, reading: float) -> Visit:
        """
        Begin with a request.

        Args:
            request: It.
            origin: Scheme and host by which the caller knows the simulator.
            clock: Which clock was read.
            reading: What it showed, in seconds.
        """
        with self.lock:
            behind = self._behind.setdefault(clock, reading - self.machine.now)
            return Visit(self.machine.handle(request, reading - behind, origin), self.lock)
