"""
The list of tasks as the poller reads it: pages of rows as they came, and rest where they are of no use.

Decides what a page is, how long one may take, and when the list is worth another try. Whose rows they are is the
poller's; a row is structured only where it tells something new.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import TypeAlias

import anyio
import orjson
from attrs import define, field, frozen

from ._codec import readable
from ._endpoints import GET, LIST
from ._exchange import Exchange, log
from ._replies import DEPTH_MOST, read, unwrap
from ._tasks import plain_task
from .errors import DecodeError, KlingError, ServerError, ThrottledError, TLSError, TransportError
from .models import SUCCEED, Task
from .transport import Response

PAGE_SIZE = 500
"""Tasks on a page, which is its most."""
PATIENCE = 10.0
"""Seconds that a page may take before single looks go on without it."""
FAULTS_MOST = 3
"""Pages in a row that may fail in passing; after that single looks go on without them."""
REST_LEAST, REST_MOST = 5.0, 320.0
"""Seconds without the list where it was of no use: twice as long each time that it is of none again."""
APART = timedelta(minutes=1)
"""How far the order of the list may differ from that of the times that it shows."""

Row: TypeAlias = dict[str, object]

_REST = frozenset({"code", "message", "request_id"})


def rested(times: int) -> float:
    """
    Seconds without the list after it was of no use so many times.
    """
    return min(REST_MOST, REST_LEAST * 2.0 ** min(times - 1, 32))


@frozen
class Page:
    """
    One page, newest tasks first.
    """

    whole: Row
    """The reply but for its rows."""
    rows: tuple[Row, ...]
    """The tasks, as they came."""
    plain: bool = False
    """Whether the rest of the reply is all that Kling documents, and no refusal of any kind."""

    def task(self, row: Row) -> Task | None:
        """
        A row as a look at its task alone would have shown it; None where that would show more.
        """
        whole = {**self.whole, "data": row}
        try:
            text = orjson.dumps(whole)
            shallow = text.count(b"[") + text.count(b"{") <= DEPTH_MOST
            task = plain_task(row, whole) if self.plain and shallow else None
            task = task or read(GET, Response(200, {}, text))
        except (KlingError, orjson.JSONEncodeError):  # what nests too deep cannot even be written again
            return None
        return None if task.status == SUCCEED and not task.has_video else task

    def precedes(self, tasks: Iterable[Task | None]) -> bool:
        """
        Whether it is from before all of these, so that no later page has them.
        """
        times = [task.created_at if task is not None else None for task in tasks]
        known = [time for time in times if time is not None]
        last = readable(datetime, self.rows[-1].get("created_at") or None) if self.rows else None
        return last is not None and len(known) == len(times) and last < min(known) - APART


def page_of(response: Response, *, about: str | None = None) -> Page:
    """
    The page in a reply.

    Raises:
        APIError: The service refused.
        DecodeError: It is no list.
    """
    plain = _plain(response)
    # Errors, and the odd shapes of gateways, take the long way.
    whole, data = unwrap(response, about=about) if plain is None else (plain, plain["data"])
    rows = data.get("tasks") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise DecodeError("the reply holds no list of tasks", problems=("expected an array @ $.data",))
    rest = {name: value for name, value in whole.items() if name not in {"data", "tasks"}}
    return Page(rest, tuple(row for row in rows if isinstance(row, dict)), plain is not None and rest.keys() <= _REST)


def _plain(response: Response) -> Row | None:
    """Kling's own success, which is told from all else with less work."""
    try:
        whole: object = orjson.loads(response.body) if response.status == 200 else None
    except orjson.JSONDecodeError:
        return None
    return whole if isinstance(whole, dict) and whole.get("code") == 0 and isinstance(whole.get("data"), list) else None


@define(eq=False)
class Listing:
    """
    The list of one host.
    """

    exchange: Callable[[], Exchange]
    """The way out, once the client is open."""
    _rest_until: float = field(default=-inf, init=False)
    _rests: int = field(default=0, init=False)
    _faults: int = field(default=0, init=False)

    def open(self, now: float) -> bool:
        """
        Whether the host has a list that is worth a try.
        """
        return self._rest_until <= now and self.exchange().host.lists

    async def page(self, number: int) -> Page:
        """
        Read a page.

        Raises:
            KlingError: It could not be had.
            TimeoutError: Nor in time.
        """
        exchange = self.exchange()
        with anyio.fail_after(PATIENCE):
            page = await exchange.repeated(
                LIST.method,
                LIST.path,
                body=None,
                params={"pageNum": number, "pageSize": PAGE_SIZE},
                licence=LIST.replay,
                reader=partial(page_of, about=exchange.about),
            )
        self._faults = 0
        return page

    def useful(self) -> None:
        """
        It showed what was searched: its next rest is a short one.
        """
        self._rests = 0

    def rest(self, why: str) -> None:
        """
        Do without it for a while.
        """
        self._rests, self._faults = self._rests + 1, 0
        seconds = rested(self._rests)
        self._rest_until = anyio.current_time() + seconds
        log.info("the list of tasks is of no use for %g s: %s", seconds, why)

    def passes(self, error: KlingError | TimeoutError) -> bool:
        """
        Whether a page that failed so only costs a look; else the list rests.
        """
        name = type(error).__name__
        if isinstance(error, TransportError | ServerError | ThrottledError) and not isinstance(error, TLSError):
            self._faults += 1
            if self._faults < FAULTS_MOST:
                log.info("the list of tasks cannot be read for now (%s)", name)
                return True
        self.rest(name)
        return False
