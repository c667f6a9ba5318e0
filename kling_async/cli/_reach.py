"""
How far a request came that brought no reply back: to the host's name, to a connection, to TLS, or only not to the end.

Decides by the system's own errors, which the library keeps as causes of its own. Knows no command.
"""

import errno
import socket
import ssl
from collections.abc import Iterator
from enum import IntEnum

from attrs import frozen

from kling_async.errors import LostReplyError, TransportError


class Stage(IntEnum):
    """
    The stages of a request, in their order.
    """

    NAME = 0
    """The host's name is looked up."""
    CONNECTION = 1
    """A connection is opened."""
    TLS = 2
    """The host shows its certificate."""
    REPLY = 3
    """The reply comes."""


@frozen
class Reach:
    """
    Where a request ended.
    """

    stage: Stage
    """The stage that failed; those before it went well."""
    reason: str
    """Why."""

    @property
    def advice(self) -> str:
        """
        What to do.
        """
        return _ADVICE[self.stage]


_ADVICE = {
    Stage.NAME: "Check the network and the address.",
    Stage.CONNECTION: "Check the network and the address.",
    Stage.TLS: "A company's proxy or a guard that reads along has its own authority: name it with SSL_CERT_FILE.",
    Stage.REPLY: "Try again.",
}


_ERRNOS = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENETUNREACH: "there is no way to its network",
    errno.EHOSTUNREACH: "there is no way to it",
}


def reach(error: TransportError) -> Reach:
    """
    Where and why a request ended.

    Args:
        error: What it ended with.
    """
    if isinstance(error, LostReplyError):
        return Reach(Stage.REPLY, "the connection broke before the whole answer was there")
    unknown = Reach(Stage.CONNECTION, str(error).partition(": no connection: ")[2] or str(error))
    return next(filter(None, map(_read, _causes(error))), unknown)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """From the first cause on: what is wrapped around it says less."""
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
    yield error


def _read(cause: BaseException) -> Reach | None:
    found = None
    match cause:
        case socket.gaierror():
            found = Reach(Stage.NAME, "its name is not known here")
        case ssl.SSLCertVerificationError():
            found = Reach(Stage.TLS, f"its certificate does not verify ({cause.verify_message.rstrip('.')})")
        case ssl.SSLError():
            found = Reach(Stage.TLS, f"it does not speak TLS ({cause.reason})")
        case ConnectionResetError():
            found = Reach(Stage.TLS, "the connection was cut at its beginning")
        case OSError(errno=int(number)) if number in _ERRNOS:
            found = Reach(Stage.CONNECTION, _ERRNOS[number])
        case TimeoutError():
            found = Reach(Stage.CONNECTION, "it does not answer")
    return found
