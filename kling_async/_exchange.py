"""
One call: sign, send, read, and send again where its licence, the policy and the budget allow.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from random import random
from typing import Final, TypeVar
from urllib.parse import urlencode
from weakref import WeakValueDictionary

import anyio
from attrs import Factory, define, field

from ._auth import Credentials, Signer, fingerprint
from ._budget import CAPACITY, Budget, price
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

CLOCK_OFF_MOST = 86_400.0
"""Seconds that this machine's clock may be wrong; a service that says more is not believed."""

_BUDGETS: Final[WeakValueDictionary[tuple[str, str], Budget]] = WeakValueDictionary()
"""
The one thing that clients of a process share, for what one does to a failing host the others do as well. No key is in
it, and a budget is forgotten with the last client that uses it.
"""


def shared_budget(host: Host, credentials: Credentials) -> Budget:
    """
    The budget of replays of all clients that speak to this host with these credentials.
    """
    return _BUDGETS.setdefault((host.base_url, fingerprint(credentials)), Budget())


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
    return licence in {Replay.SAFE, Replay.TWICE} and isinstance(error, LostReplyError | ServerError)


@define(eq=False, repr=False)
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
    pause: Callable[[float], Awaitable[None]] = anyio.sleep
    """Waits so many seconds, unless the client closes."""
    budget: Budget = field(
        default=Factory(lambda self: shared_budget(self.host, self.signer.credentials), takes_self=True)
    )
    """What replays are paid from."""
    _clock_off: float = field(default=0.0, init=False)

    def __call__(
        self,
        endpoint: Endpoint[T],
        *,
        path: str | None = None,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, int | str] | None = None,
    ) -> Coroutine[None, None, T]:
        """
        Make a call and read its reply, as often as the endpoint's licence, the policy and the budget allow.
        """
        return self.repeated(
            endpoint.method,
            path or endpoint.path,
            body=body,
            params=params,
            licence=endpoint.replay,
            reader=partial(read, endpoint, about=self.about),
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
        _, data = await self.repeated(
            method,
            path,
            body=body,
            params=params,
            licence=Replay.SAFE if method == "GET" else Replay.REFUSED,
            reader=partial(unwrap, about=self.about),
        )
        return data

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
        url = self.host.base_url + path
        if params:
            url += f"?{urlencode(params)}"
        attempt, paid = 1, 0
        while True:
            try:
                return await self.once(method, url, payload, reader, paid=paid)
            except KlingError as error:
                if not replayable(error, licence):
                    raise
                delay = self.delay(attempt, error)
                if delay is None:
                    raise
                self.replaying(method, path, attempt, delay, error)
                if licence is Replay.TWICE and not replayable(error, Replay.REFUSED):
                    licence = Replay.REFUSED
                paid = price(error)
            await self.pause(delay)
            attempt += 1

    def delay(self, attempt: int, error: KlingError) -> float | None:
        """
        Seconds until the next attempt, which is paid for hereby; None for no other.

        Where the budget cannot pay, the error gets a note that says so.
        """
        asked = error.retry_after if isinstance(error, APIError) else None
        delay = self.retry.delay(attempt, chance=self.chance(), retry_after=asked)
        if delay is None:
            return None
        cost = price(error)
        if not self.budget.pay(cost):
            known = f"{self.budget.left} tokens are left and it costs {cost}; calls that succeed bring them back"
            error.add_note(f"not sent again: too many calls to {self.host.name} failed of late ({known})")
            return None
        return delay

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
        Seconds to wait where the attempts are neither counted nor paid for.
        """
        return self.retry.drawn(attempt, chance=self.chance())

    async def once(self, method: str, url: str, payload: bytes, reader: Read[T], *, paid: int = 0) -> T:
        """
        Send once; with a token that was too early or too late, once more with a new one.

        A refused token proves that nothing was done, so this is safe for the paid create as well.

        Args:
            method: HTTP method.
            url: The whole URL.
            payload: The body's bytes.
            reader: What makes a result of the reply, or raises.
            paid: What this sending has cost the budget, which gets it back for a success.
        """
        renewed = False
        while True:
            request = self._signed(method, url, payload)
            told = self.observer is not None or log.isEnabledFor(logging.DEBUG)
            started = anyio.current_time() if told else 0.0
            response = await self.transport.exchange(request)
            if told:
                self._exchanged(method, url, response.status, anyio.current_time() - started)
            response = self.signer.struck(response)
            try:
                result = reader(response)
            except AuthenticationError as error:
                if renewed or not self.signer.renew(error.code):
                    raise
                log.info("%s: the token was refused with %s; signing another", method, error.code)
                self._set_clock(response)
                renewed = True
            else:
                if paid or self.budget.left < CAPACITY:
                    self.budget.earn(paid)
                return result

    def _set_clock(self, refusal: Response) -> None:
        """A token is refused for its times where one of two clocks is wrong: go by the service's, it judges."""
        from email.utils import parsedate_to_datetime

        try:
            told = parsedate_to_datetime(refusal.headers.get("date", "")).timestamp()
        except (OverflowError, TypeError, ValueError):
            return
        off = told - self.now()
        if abs(off) <= CLOCK_OFF_MOST:
            self._clock_off = off

    def _signed(self, method: str, url: str, payload: bytes) -> Request:
        # Apart from the call, so that no frame of a failed one has the key among its locals.
        bearer = self.signer.fixed or self.signer.authorization(self.now() + self._clock_off)
        headers = {"Authorization": bearer, "Content-Type": "application/json"}
        return Request(method, url, headers, payload)

    def _exchanged(self, method: str, url: str, status: int, seconds: float) -> None:
        path = url.partition("?")[0].removeprefix(self.host.base_url)
        log.debug("%s %s: HTTP %d in %.3f s", method, path, status, seconds)
        if self.observer is not None:
            self.observer(Exchanged(method=method, path=path, status=status, seconds=seconds))
