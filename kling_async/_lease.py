"""
Who may use an object with a lifetime, and how its calls end with it.

An owner opens once, on one event loop of one process. Each call holds a lease; closing the owner cancels
what is still underway, which then ends in ClosedError where it was called.
"""

import os
from types import TracebackType

import anyio
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field

from .errors import ClosedError

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
    _token: EventLoopToken | None = field(default=None, init=False)
    _process: int = field(default=0, init=False)
    _leases: set["Lease"] = field(factory=set, init=False)
    _drained: anyio.Event | None = field(default=None, init=False)

    def open(self) -> None:
        """
        Begin, on the running loop.

        Raises:
            ClosedError: It was opened before.
        """
        if self.state != UNOPENED:
            raise ClosedError(f"this {self.name} is {self.state}: it opens once, make another")
        self._token, self._process = current_token(), os.getpid()
        self.state = OPEN

    def closing(self) -> None:
        """
        End: no further lease, and what runs is cancelled.
        """
        self.state = CLOSED
        self._drained = anyio.Event()
        for lease in tuple(self._leases):
            lease.end()
        if not self._leases:
            self._drained.set()

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
        token = current_token()
        if self._token is not token and self._token != token:
            loops = f"was opened on {_named(self._token)} and is used on {_named(token)}"
            msg = f"this {self.name} {loops}: open one on each loop"
            raise RuntimeError(msg)
        return Lease(self, method)

    def begun(self, lease: "Lease") -> None:
        """
        Count a lease in.
        """
        self._leases.add(lease)

    def ended(self, lease: "Lease") -> None:
        """
        Count a lease out.
        """
        self._leases.discard(lease)
        if self._drained is not None and not self._leases:
            self._drained.set()


def _named(token: EventLoopToken | None) -> str:
    native = None if token is None else token.native_token
    return f"{type(native).__module__}.{type(native).__qualname__} {id(native):#x}"


@define(eq=False)
class Lease:
    """
    One call's leave, as a context manager around its body.
    """

    _owner: Owner
    _method: str
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)

    def __enter__(self) -> None:
        self._owner.begun(self)
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.ended(self)
        self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise ClosedError(f"{self._owner.name} closed while {self._method}() was underway")

    def end(self) -> None:
        """
        Cancel the call.
        """
        self._scope.cancel()
