"""
The only module that knows aiohttp: the pool, the limits of one exchange, and what its failures prove.

Decides between "never left" and "may have been read" by one fact: whether a connection was handed to the request. No
list of aiohttp's exceptions could prove that. Refuses to know endpoints, codes, retries, or what a body means.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import lru_cache
from pathlib import Path
from socket import AF_INET, AddressFamily
from ssl import SSLContext
from typing import TYPE_CHECKING, Final, Self

import anyio
from aiohttp import (
    BaseConnector,
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    DefaultResolver,
    DummyCookieJar,
    RequestInfo,
    StreamReader,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ._download import Limits, Saving
from ._flights import Flight, Flights, Turns, current
from ._parts import encoding
from ._refusals import excerpt
from ._routes import Proxy, check_address, check_host, find_proxy
from .errors import (
    DecodeError,
    DownloadError,
    InvalidInputError,
    LostReplyError,
    NotSentError,
    TLSError,
    TransportError,
)
from .transport import Progress, Request, Response, Saved

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

MIB: Final = 1 << 20
KEPT_ALIVE: Final = 75.0
"""Seconds that an idle connection is kept; aiohttp's 15 s would be over between two polls."""
REDIRECTS: Final = 3
GRACE: Final = 5.0
"""Seconds that closing waits for what was cut off, at most."""

KNOWN: Final = 256
"""URLs of calls that are kept as aiohttp takes them: all endpoints, and those of tasks looked at one by one."""

_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_FAULTS: Final = (ClientError, OSError, ValueError)
"""All that aiohttp raises about a request: TimeoutError is an OSError, InvalidURL and UnicodeError are ValueErrors."""


class _Connector(TCPConnector):
    """
    A pool that notes for each call which connection it was given.
    """

    async def connect(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: ClientTimeout,  # noqa: ASYNC109 (the name is aiohttp's)
    ) -> "Connection":
        connection = await super().connect(req, traces, timeout)
        current().wire = connection.transport
        return connection


@define(eq=False, repr=False)
class _PublicResolver(AbstractResolver):
    """
    Names of media hosts, each address checked before it is connected to; the proxy's own name may be private.
    """

    exempt: str | None
    inner: AbstractResolver = field(factory=DefaultResolver)

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_INET) -> list[ResolveResult]:
        found = await self.inner.resolve(host, port, family)
        if host != self.exempt:
            for one in found:
                check_address(host, one["host"], loopback=host == "localhost")
        return found

    async def close(self) -> None:
        await self.inner.close()


@define(eq=False, repr=False, kw_only=True)
class AiohttpTransport:
    """
    The network on asyncio. It belongs to the event loop on which it was made.

    A call that finds all connections in use waits for its turn, `total` seconds at most; then its own limits begin.
    """

    connections: int = 100
    """Exchanges at once, and as many downloads."""
    connect: float = 10.0
    """Seconds for name, connection and handshake."""
    total: float = 120.0
    """Seconds for one exchange from its turn to its last byte."""
    proxy: str | None = None
    """Instead of HTTPS_PROXY and NO_PROXY."""
    ssl_context: SSLContext | None = None
    """Instead of the system's certificates."""
    body_limit: int = 8 * MIB
    """Bytes of a reply, decompressed."""
    limits: Limits = field(factory=Limits)
    """Of one download."""
    _flights: Flights = field(factory=Flights, init=False)
    _turns: Turns = field(init=False)
    _media_turns: asyncio.Semaphore = field(init=False)
    _through: Proxy | None = field(init=False)
    _resolver: _PublicResolver = field(init=False)
    _session: ClientSession = field(init=False)
    _media: ClientSession = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._through = find_proxy(self.proxy)
        self._turns = Turns(self.connections)
        self._media_turns = asyncio.Semaphore(self.connections)
        self._resolver = _PublicResolver(self._through.host if self._through else None)
        self._session = _session(self._pool(None), ClientTimeout(total=None, connect=self.connect))
        self._media = _session(
            self._pool(self._resolver),
            ClientTimeout(total=None, connect=self.connect, sock_read=self.limits.window),
            identity=True,
        )

    def _pool(self, resolver: AbstractResolver | None) -> BaseConnector:
        # Turns are taken before it, so that waiting for one does not count as connecting.
        return _Connector(limit=0, keepalive_timeout=KEPT_ALIVE, ssl=self.ssl_context or True, resolver=resolver)

    async def exchange(self, request: Request) -> Response:
        """
        Send one request and return its whole reply whatever its status; redirects are replies.

        aiohttp sends a GET once more if a kept-alive connection turns out to be dead, a POST never: the server may
        have read it before it closed. Such a POST is a LostReplyError although it was most likely not read.

        Raises:
            NotSentError: It was never given a connection; a certificate that fails is a TLSError.
            LostReplyError: It may have been read, and no whole reply came.
            DecodeError: The reply is larger than the limit.
            ClosedError: The transport is closed, or was closed meanwhile.
        """
        url = _known(request.url)
        proxy, proxy_headers = (None, None) if self._through is None else self._way(url)
        flight = Flight(self._flights, self.total)
        try:
            with flight:
                if self._turns.free:
                    self._turns.free -= 1
                else:
                    await self._turn(flight)
                try:
                    reply = await self._session.request(
                        request.method,
                        url,
                        data=io.BytesIO(request.body) if len(request.body) > MIB else request.body or None,
                        headers=request.headers,
                        allow_redirects=False,
                        proxy=proxy,
                        proxy_headers=proxy_headers,
                    )
                    return Response(reply.status, reply.headers, await self._body(reply))
                finally:
                    self._turns.leave()
        except _FAULTS as error:
            raise self._fault(error, flight, url) from _bare(error)

    async def _turn(self, flight: Flight) -> None:
        flight.waits = True
        await self._turns.come()
        flight.waits = False
        self._flights.board(flight, self.total)

    async def _body(self, reply: ClientResponse) -> bytes:
        content, size = reply.content, 0
        pieces = list[bytes]()
        try:
            # Counted as it is decompressed, piece by piece: a bomb is defused at the limit, not after it.
            while size <= self.body_limit:
                if content.at_eof():
                    return b"".join(pieces)
                piece = await content.readany()
                size += len(piece)
                pieces.append(piece)
        except BaseException:
            reply.close()
            raise
        reply.close()
        raise DecodeError(f"{reply.url.host}: the reply is larger than {self.body_limit} bytes", status=reply.status)

    def _fault(self, error: Exception, flight: Flight, url: URL) -> TransportError | InvalidInputError:
        reason = _scrubbed(error, url)
        if flight.wire is not None:
            return LostReplyError(f"{url.host}: no whole reply: {reason}")
        if flight.waits:
            return NotSentError(
                f"{url.host}: all {self.connections} connections were in use for {self.total:g} s;"
                " give open_transport more connections"
            )
        if isinstance(error, ClientConnectorCertificateError):
            return TLSError(
                f"{url.host}: its certificate does not verify: {reason};"
                " give open_transport an ssl_context if another authority is to be trusted"
            )
        if isinstance(error, ValueError):
            return InvalidInputError("url", f"cannot be connected to: {reason}")
        return NotSentError(f"{url.host}: no connection: {reason}")

    def _way(self, url: URL) -> tuple[str, dict[str, str]] | tuple[None, None]:
        through = self._through
        if through is None or not through.serves(url.scheme, url.host or ""):
            return None, None
        return through.url, through.headers

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """
        Fetch a media URL into a file: no key, no cookies, public addresses only, three redirects at most.

        Whoever names a loopback host gets it. Through a proxy only the URL's own host can be checked. What was left
        of a download to the same path is gone on with, where the host says that the file is still the same.

        Raises:
            DownloadError: It could not be had whole; `.status` where the server said so.
            InvalidInputError: The path cannot be written to.
            ClosedError: The transport is closed, or was closed meanwhile.
        """
        with Flight(self._flights):
            async with self._media_turns:
                clock = asyncio.timeout(self.limits.total)
                try:
                    async with clock, Saving(path, overwrite=overwrite, limits=self.limits) as saving:
                        return await self._save(url, saving, progress)
                except TimeoutError as error:
                    if not clock.expired():
                        raise
                    raise DownloadError(f"not whole after {self.limits.total:g} s; download again") from error

    async def _save(self, url: str, saving: Saving, progress: Progress | None) -> Saved:
        while True:
            async with await self._media_reply(url, saving.asking) as reply:
                if await saving.accepts(reply.status, reply.headers):
                    if packing := encoding(reply.headers):
                        raise DownloadError(f"{reply.url.host}: sent {packing}, which was not asked for", status=200)
                    pieces = _Pieces(reply.content, reply.url, self.limits.window)
                    return await saving.take(pieces, progress=progress)

    async def _media_reply(self, link: str, asking: dict[str, str]) -> ClientResponse:
        url, wanted = URL(), {200, 206, 416} if asking else {200}
        try:
            url = _parsed(link)
            named = url.host or ""
            for _ in range(REDIRECTS + 1):
                check_host(url.host or "", named=named)
                proxy, fields = self._way(url)
                reply = await self._media.get(
                    url, headers=asking, allow_redirects=False, proxy=proxy, proxy_headers=fields
                )
                if reply.status in wanted:
                    return reply
                reply.close()
                url = _onward(reply)
        except _FAULTS as error:
            raise DownloadError(f"{url.host or 'the link'}: {_scrubbed(error, url)}") from _bare(error)
        raise DownloadError(f"{url.host}: more than {REDIRECTS} redirects", final=True)

    async def aclose(self) -> None:
        """
        End what is under way with ClosedError, close every connection, and wait until all of it is gone.
        """
        async with AsyncExitStack() as last_first:
            for close in (self._resolver.close, self._media.close, self._session.close, self._flights.close):
                last_first.push_async_callback(_bounded, close)


@define(eq=False, repr=False)
class _Pieces:
    """
    The body of a download; its faults are told from those of the file and of the caller's `progress`.
    """

    _content: StreamReader
    _url: URL
    _window: float

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            # Besides the pool's own limit, which ends with the connection: where aiohttp meets garbage between two
            # chunks it closes that, and never tells who reads the body.
            async with asyncio.timeout(self._window):
                piece = await self._content.readany()
        except TimeoutError as error:
            raise DownloadError(f"{self._url.host}: stalled: nothing for {self._window:g} s; download again") from error
        except _FAULTS as error:
            text = f"{self._url.host}: broke off ({type(error).__name__}): download again, it goes on where it can"
            raise DownloadError(text) from error
        if not piece:
            raise StopAsyncIteration
        return piece


async def _bounded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(GRACE, shield=True):
        await close()


def _session(pool: BaseConnector, timeout: ClientTimeout, *, identity: bool = False) -> ClientSession:
    # No trust_env: it would read .netrc, and ask for the proxy in a thread at every call.
    return ClientSession(
        connector=pool,
        timeout=timeout,
        headers={"Accept-Encoding": "identity"} if identity else None,
        auto_decompress=not identity,  # what was not asked for is not unpacked either, not even ahead of its refusal
        cookie_jar=DummyCookieJar(),
    )


def _parsed(text: str, base: URL | None = None) -> URL:
    # A URL that is quoted already goes out as it came: a signature does not survive being quoted anew.
    quoted = text.isascii() and text.isprintable() and " " not in text
    whole, url = False, URL()
    with suppress(ValueError):
        url = URL(text, encoded=quoted)
        url = url if base is None else base.join(url)
        whole = bool(url.host and url.port)
    if not whole or url.scheme not in {"http", "https"} or url.user is not None:
        raise InvalidInputError("url", "must be a whole http or https URL without user name and password")
    return url


_known = lru_cache(KNOWN)(_parsed)


def _onward(reply: ClientResponse) -> URL:
    location = reply.headers.get("Location")
    if reply.status not in _MOVED or location is None:
        advice = "; the link may have expired: get the task again" if reply.status in {403, 404, 410} else ""
        raise DownloadError(f"{reply.url.host}: HTTP {reply.status} instead of the file{advice}", status=reply.status)
    url = _parsed(location, reply.url)
    if reply.url.scheme == "https" and url.scheme == "http":
        raise DownloadError(f"{reply.url.host}: redirects from https to http", status=reply.status)
    return url


def _bare(error: Exception) -> Exception:
    """
    The same error without the frames it came through: aiohttp's locals hold our headers, and some print locals.
    """
    inner: BaseException | None = error
    while inner is not None:
        inner.__traceback__ = None
        inner = inner.__cause__ or inner.__context__
    return error


def _scrubbed(error: Exception, url: URL) -> str:
    """
    What an error says, after taking from it what must not be shown: our headers, and the query of a signed link.
    """
    bare = url.with_query(None)
    if isinstance(error, ClientResponseError):
        error.args = ()
        error.request_info = RequestInfo(bare, error.request_info.method, CIMultiDictProxy(CIMultiDict()), bare)
        return excerpt(f"{error.status} {error.message}")
    error.args = tuple(arg.replace(str(url), str(bare)) if isinstance(arg, str) else arg for arg in error.args)
    return excerpt(str(error) or type(error).__name__)
