"""
Who may use an object with a lifetime, and how its calls end with it.

An owner opens once, on one event loop of one process. Each call holds a lease; closing the owner cancels
what is still underway, which then ends in ClosedError where it was called.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
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


@define(eq=False, repr=False)
class _Process:
    """
    The running process; asked once and after each fork, for asking is a system call.
    """

    id: int = field(factory=os.getpid)

    def forked(self) -> None:
        """Ask again."""
        self.id = os.getpid()


_process = _Process()
with suppress(AttributeError):  # where there is no fork
    os.register_at_fork(after_in_child=_process.forked)


@define(eq=False, repr=False)
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
    _cuts: bool = field(default=False, init=False)
    _briefs: dict[str, "Brief"] = field(factory=dict, init=False)
    leases: set["Lease"] = field(factory=set, init=False)
    """Those that run."""
    _drained: anyio.Event | None = field(default=None, init=False)

    def open(self, *, ours: bool = False, cuts: bool = False) -> None:
        """
        Begin, on the running loop.

        Args:
            ours: Whether nothing but our own code runs under its leases, no transport or store of the caller's.
            cuts: Whether it closes the transport too, and with that ends what waits for nothing else.

        Raises:
            ClosedError: It was opened before.
        """
        if self.state != UNOPENED:
            raise ClosedError(f"this {self.name} is {self.state}: it opens once, make another")
        self._loop, self._process, self._cuts = _native(), _process.id, cuts
        found = None
        if "asyncio" in sys.modules:  # where it is not, this is another's loop, which must not wait for that import
            from ._cut import ways

            found = ways(self._loop, ours=ours)
        self._running, self._scope = found or (_native, anyio.CancelScope)
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

    def lease(self, method: str, *, brief: bool = False) -> "Leave":
        """
        Leave for one call.

        Args:
            method: The call, for messages.
            brief: Whether it waits for the transport alone, and else in leases of its own.

        Raises:
            ClosedError: It is not open.
            RuntimeError: It was opened on another loop, or in another process before a fork.
        """
        if self.state != OPEN:
            reason = "is closed" if self.state == CLOSED else "is not open: use it inside `async with`"
            raise ClosedError(f"{self.name}.{method}() cannot be called: the {self.name} {reason}")
        if self._process != _process.id:
            msg = f"this {self.name} was opened in process {self._process} and is used in {_process.id}: open one each"
            raise RuntimeError(msg)
        try:
            elsewhere = self._running() is not self._loop
        except RuntimeError:
            elsewhere = True
        if elsewhere:
            loops = f"was opened on {_named(self._loop)} and is used on {_named(_native())}"
            msg = f"this {self.name} {loops}: open one on each loop"
            raise RuntimeError(msg)
        if not brief or not self._cuts:
            return Lease(self, method, self._scope())
        return self._briefs.get(method) or self._briefs.setdefault(method, Brief(self, method))

    def closed(self, method: str) -> ClosedError:
        """
        What a call ends with that was underway as this closed.
        """
        return ClosedError(f"{self.name} closed while {method}() was underway")

    def ended(self) -> None:
        """
        Take note that a lease has ended while this closes.
        """
        if self._drained is not None and not self.leases:
            self._drained.set()


def _native() -> object:
    return current_token().native_token


def _named(loop: object) -> str:
    return f"{type(loop).__module__}.{type(loop).__qualname__} {id(loop):#x}"


@define(eq=False, repr=False)
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
            raise owner.closed(self._method)

    def end(self) -> None:
        """
        Cancel the call.
        """
        self._scope.cancel()


@define(eq=False, repr=False)
class Brief:
    """
    The leave of calls that end with the transport of their owner: only what they are told is put right.
    """

    _owner: Owner
    _method: str

    def __enter__(self) -> None:
        """Nothing to keep."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._owner.state == CLOSED and isinstance(error, ClosedError):
            raise self._owner.closed(self._method) from error


Leave = Lease | Brief
