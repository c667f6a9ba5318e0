"""
One call: sign, send, read, and send again where its licence allows.
"""

import logging
import time
from collections.abc import Callable, Mapping
from random import random
from typing import TypeVar
from urllib.parse import urlencode

import anyio
from attrs import define, evolve, field

from ._auth import Signer
from ._codec import encode
from ._endpoints import Endpoint, Host, Replay
from ._replies import read, unwrap
from .errors import (
    APIError,
    AuthenticationError,
    KlingError,
    LostReplyError,
    NotSentError,
    ServerError,
    ThrottledError,
    TLSError,
)
from .events import Event, Exchanged, Replayed
from .policy import RetryPolicy
from .transport import Request, Response, Transport

T = TypeVar("T")

log = logging.getLogger("kling_async")

Read = Callable[[Response], T]


def replayable(error: KlingError, licence: Replay) -> bool:
    """
    Whether a call that failed so may be sent again.

    Args:
        error: How it failed.
        licence: What its endpoint allows.
    """
    if isinstance(error, NotSentError):
        return not isinstance(error, TLSError)
    if isinstance(error, ThrottledError):
        return True
    return licence is Replay.SAFE and isinstance(error, LostReplyError | ServerError)


@define
class Exchange:
    """
    The way from a call to its result, the same for every endpoint.
    """

    transport: Transport
    """What carries the request."""
    host: Host
    """Where it goes."""
    signer: Signer
    """Who signs it."""
    retry: RetryPolicy
    """How long to wait before it is sent again."""
    about: str
    """What an authentication error says of host and key."""
    chance: Callable[[], float] = field(default=random)
    """From 0 to 1: what waits are drawn with."""
    now: Callable[[], float] = field(default=time.time)
    """Unix time, for tokens."""
    observer: Callable[[Event], None] | None = None
    """Who is told."""

    async def __call__(
        self,
        endpoint: Endpoint[T],
        *,
        path: str | None = None,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, int | str] | None = None,
    ) -> T:
        """
        Make a call and read its reply, as often as the endpoint's licence and the policy allow.
        """
        return await self.repeated(
            endpoint.method,
            path or endpoint.path,
            body=body,
            params=params,
            licence=endpoint.replay,
            reader=lambda response: read(endpoint, response, about=self.about),
        )

    async def plain(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, int | str] | None = None,
    ) -> object:
        """
        Call any other route and return its `data` as plain JSON types; only GET is sent again.
        """
        return await self.repeated(
            method,
            path,
            body=body,
            params=params,
            licence=Replay.SAFE if method == "GET" else Replay.REFUSED,
            reader=lambda response: unwrap(response, about=self.about)[1],
        )

    async def repeated(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None,
        params: Mapping[str, int | str] | None,
        licence: Replay,
        reader: Read[T],
    ) -> T:
        """
        Send until it is answered, refused for good, or the policy gives up.
        """
        payload = encode(body) if body is not None else b""
        url = f"{self.host.base_url}{path}{f'?{urlencode(params)}' if params else ''}"
        attempt = 1
        while True:
            try:
                return await self.once(method, url, payload, reader)
            except KlingError as error:
                if not replayable(error, licence):
                    raise
                delay = self.delay(attempt, error)
                if delay is None:
                    raise
                self.replaying(method, path, attempt, delay, error)
            await anyio.sleep(delay)
            attempt += 1

    def delay(self, attempt: int, error: KlingError) -> float | None:
        """
        Seconds until the next attempt, None for no other.
        """
        asked = error.retry_after if isinstance(error, APIError) else None
        return self.retry.delay(attempt, chance=self.chance(), retry_after=asked)

    def replaying(self, method: str, path: str, attempt: int, delay: float, error: KlingError) -> None:
        """
        Tell of a call that will be sent again.
        """
        name = type(error).__name__
        log.info("%s %s: %s; attempt %d in %.1f s", method, path, name, attempt + 1, delay)
        if self.observer is not None:
            self.observer(Replayed(method=method, path=path, attempt=attempt + 1, delay=delay, error=name))

    def drawn(self, attempt: int) -> float:
        """
        Seconds to wait where the attempts are not counted.
        """
        return self.retry.drawn(attempt, chance=self.chance())

    async def once(self, method: str, url: str, payload: bytes, reader: Read[T]) -> T:
        """
        Send once; with a token that was too early or too late, once more with a new one.

        A refused token proves that nothing was done, so this is safe for the paid create as well.
        """
        try:
            return reader(await self._send(method, url, payload))
        except AuthenticationError as error:
            if not self.signer.renew(error.code):
                raise
            log.info("%s: the token was refused with %s; signing another", method, error.code)
        return reader(await self._send(method, url, payload))

    async def _send(self, method: str, url: str, payload: bytes) -> Response:
        request = self._signed(method, url, payload)
        told = self.observer is not None or log.isEnabledFor(logging.DEBUG)
        started = anyio.current_time() if told else 0.0
        response = await self.transport.exchange(request)
        if told:
            self._exchanged(method, url, response.status, anyio.current_time() - started)
        return evolve(response, body=self.signer.struck(response.body)) if response.status >= 400 else response

    def _signed(self, method: str, url: str, payload: bytes) -> Request:
        # Apart from the call, so that no frame of a failed one has the key among its locals.
        headers = {"Authorization": self.signer.authorization(self.now()), "Content-Type": "application/json"}
        return Request(method, url, headers, payload)

    def _exchanged(self, method: str, url: str, status: int, seconds: float) -> None:
        path = url.partition("?")[0].removeprefix(self.host.base_url)
        log.debug("%s %s: HTTP %d in %.3f s", method, path, status, seconds)
        if self.observer is not None:
            self.observer(Exchanged(method=method, path=path, status=status, seconds=seconds))
