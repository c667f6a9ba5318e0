"""
The seam: finished requests and replies, and the Protocol that carries them.

Whatever implements `Transport` can stand under a client: the pool on the network, the bridge from
trio, the simulator, or ten lines of a test. It knows nothing of endpoints, codes or retries.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

__all__ = ("Progress", "Request", "Response", "Saved", "Transport")

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all, None where the server does not say."""


@frozen
class Request:
    """
    One request, complete: nothing is added to it on the way.

    Example:
        >>> Request("GET", "https://api.cometapi.com/kling/v1/videos/multi-elements/8781").method
        'GET'
    """

    method: str
    """HTTP method in capitals."""
    url: str
    """The whole URL, already quoted."""
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    """Header fields; they hold the key, hence no repr."""
    body: bytes = field(default=b"", repr=False)
    """The body's bytes; empty for none."""


@frozen
class Response:
    """
    One reply, complete.

    Example:
        >>> Response(200, body=b"{}").status
        200
    """

    status: int
    """HTTP status."""
    headers: Mapping[str, str] = field(factory=dict)
    """Header fields; looked up by their names in lower case."""
    body: bytes = field(default=b"", repr=False)
    """The body's bytes, decompressed."""


@frozen
class Saved:
    """
    A file that was fetched whole.

    Example:
        >>> Saved(size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").size
        0
    """

    size: int
    """Its bytes."""
    sha256: str
    """Their SHA-256 as they were written, in hexadecimal."""


class Transport(Protocol):
    """
    What carries requests. Both coroutines may be cancelled at any time and leave nothing open behind.
    """

    async def exchange(self, request: Request) -> Response:
        """
        Send one request, once, and return its whole reply whatever its status.

        Raises:
            NotSentError: It provably never left; the only case in which a caller may send it again unasked. A
                certificate that fails is its TLSError.
            LostReplyError: It may have been read, and no whole reply came.
            DecodeError: The reply is larger than the limit.
            InvalidInputError: The URL cannot be connected to.
            ClosedError: The transport was closed.
        """
        ...

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """
        Fetch a media URL into a file, without any credentials. One that breaks off may leave a `<name>.part` that
        the next goes on with, if the server says that the file is still the same.

        Raises:
            DownloadError: It could not be had whole; the file's final name was not written. `.status` is the
                server's, 200 where the content itself is wrong, None where no reply came.
            InvalidInputError: The path cannot be written to.
            ClosedError: The transport was closed.
        """
        ...

    async def aclose(self) -> None:
        """
        Release every connection; calling it again does nothing.
        """
        ...
