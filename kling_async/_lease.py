"""
Who may use an object with a lifetime, and how its calls end with it.

An owner opens once, on one event loop of one process. Each call holds a lease; closing the owner cancels
what is still underway, which then ends in ClosedError where it was called.
"""

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import current_token
from attrs import define, field

from .errors import ClosedError

if TYPE_CHECKING:
    from ._cut import Scope

UNOPENED = "not opened yet"
OPEN = "open"
CLOSED = "closed"


@define
class Owner:
    """
    The lifetime of one object.
    """

    name: str
    """Its class, for messages."""
    state: str = UNOPENED
    """Not opened yet, open or closed."""
    _loop: object = field(default=None, init=False)
    _running: Callable[[], object] = field(init=False)
    _scope: Callable[[], "Scope"] = field(init=False)
    _process: int = field(default=0, init=False)
    leases: set["Lease"] = field(factory=set, init=False)
    """Those that run."""
    _drained: anyio.Event | None = field(default=None, init=False)

    def open(self, *, ours: bool = False) -> None:
        """
        Begin, on the running loop.

        Args:
            ours: Whether nothing but our own code runs under its leases, no transport or store of the caller's.

        Raises:
            ClosedError: It was opened before.
        """
        if self.state != UNOPENED:
            raise ClosedError(f"this {self.name} is {self.state}: it opens once, make another")
        from ._cut import native, ways

        self._loop, self._process = native(), os.getpid()
        self._running, self._scope = ways(ours=ours)
        self.state = OPEN

    def closing(self) -> None:
        """
        End: no further lease, and what runs is cancelled.
        """
        self.state = CLOSED
        self._drained = anyio.Event()
        for lease in tuple(self.leases):
            lease.end()
        self.ended()

    async def drained(self) -> None:
        """
        Return when the last lease has ended.
        """
        assert self._drained is not None
        await self._drained.wait()

    def lease(self, method: str) -> "Lease":
        """
        Leave for one call.

        Raises:
            ClosedError: It is not open.
            RuntimeError: It was opened on another loop, or in another process before a fork.
        """
        if self.state != OPEN:
            reason = "is closed" if self.state == CLOSED else "is not open: use it inside `async with`"
            raise ClosedError(f"{self.name}.{method}() cannot be called: the {self.name} {reason}")
        if self._process != os.getpid():
            msg = f"this {self.name} was opened in process {self._process} and is used in {os.getpid()}: open one each"
            raise RuntimeError(msg)
        try:
            elsewhere = self._running() is not self._loop
        except RuntimeError:
            elsewhere = True
        if elsewhere:
            loops = f"was opened on {_named(self._loop)} and is used on {_named(current_token().native_token)}"
            msg = f"this {self.name} {loops}: open one on each loop"
            raise RuntimeError(msg)
        return Lease(self, method, self._scope())

    def ended(self) -> None:
        """
        Take note that a lease has ended while this closes.
        """
        if self._drained is not None and not self.leases:
            self._drained.set()


def _named(loop: object) -> str:
    return f"{type(loop).__module__}.{type(loop).__qualname__} {id(loop):#x}"


@define(eq=False)
class Lease:
    """
    One call's leave, as a context manager around its body.
    """

    _owner: Owner
    _method: str
    _scope: "Scope"

    def __enter__(self) -> None:
        self._owner.leases.add(self)
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        owner = self._owner
        owner.leases.discard(self)
        if owner.state != OPEN:
            owner.ended()
        self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise ClosedError(f"{owner.name} closed while {self._method}() was underway")

    def end(self) -> None:
        """
        Cancel the call.
        """
        self._scope.cancel()
