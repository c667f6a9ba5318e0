"""
Who answers deliveries, whichever server they came through.

The path's token proves whom a delivery is about, a signature who sent it, and our own query what became of the
task. Decides what is answered, how often we look, and what `on_task` gets; knows neither ASGI nor aiohttp.
"""

import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TypeAlias

import anyio
from attrs import define, evolve, field, frozen

from ._exchange import log
from ._hints import Hint, read_hint
from ._inbox import PACE, Inbox, Reader
from ._signatures import ID
from .errors import ClosedError, KlingError, SignatureError, WebhookError
from .models import FAILED, PROCESSING, SUBMITTED, SUCCEED, Task

OnTask: TypeAlias = Callable[[Task], Awaitable[object]]

QUERY_MOST = 2.0
"""Seconds that our own query may take before the sender is told to come again."""
TURN_MOST = 4.0
"""Seconds that a delivery waits for an earlier one of the same task."""
CASES = 4096
"""Tasks whose deliveries are remembered."""
DELIVERIES = 64
"""Deliveries that are remembered of each."""

_NAME = re.compile(r"([A-Za-z0-9._-]{1,64})\.([A-Za-z0-9_-]{32})")
_RANK = {SUBMITTED: 0, PROCESSING: 1, SUCCEED: 2, FAILED: 2}
_END = 2


@frozen
class Answer:
    """
    What the sender is told.
    """

    status: int
    """HTTP status."""
    text: str
    """The body; what the sender is told it may as well tell others."""
    more: Mapping[str, str] = field(factory=dict)
    """Headers of this answer alone."""

    @property
    def headers(self) -> dict[str, str]:
        """
        All headers.
        """
        return {"content-type": "text/plain; charset=utf-8", "content-length": str(len(self.text)), **self.more}


OK = Answer(200, "ok")
BAD = Answer(400, "not a delivery about this task")
UNSIGNED = Answer(401, "the signature does not verify")
NOT_FOUND = Answer(404, "not found")
NOT_POST = Answer(405, "deliveries are posted", {"allow": "POST"})
TOO_LARGE = Answer(413, "too large")
NOT_JSON = Answer(415, "deliveries are application/json")
LATER = Answer(503, "come again", {"retry-after": f"{PACE:g}"})


@define(eq=False)
class _Case:
    """
    What is known of one task's deliveries.
    """

    turn: anyio.Lock = field(factory=anyio.Lock, init=False)
    looked_at: float = field(default=-inf, init=False)
    """When our last query began."""
    covers: float = field(default=-inf, init=False)
    """When the last one began that was told: what was delivered before it needs no other."""
    told: str | None = field(default=None, init=False)
    """The status that `on_task` took last."""
    done: OrderedDict[str, None] = field(factory=OrderedDict, init=False)
    """Deliveries that were answered with 200."""

    @property
    def ended(self) -> bool:
        """Whether the end was told; a final status is never left."""
        return _RANK.get(self.told or "", 0) == _END

    def news(self, task: Task) -> bool:
        """Whether the task has gone on since it was told."""
        known = -1 if self.told is None else _RANK.get(self.told, 1)
        return task.status != self.told and _RANK.get(task.status, 1) >= known

    def behind(self, hint: Hint) -> bool:
        """Whether the delivery claims more than our own query saw: that may lag, or the claim is forged."""
        return _RANK.get(hint.status, 0) > _RANK.get(self.told or "", 1)


@define(eq=False)
class Receiver:
    """
    Answers deliveries, whoever serves them.
    """

    inbox: Inbox
    """Where hints go, and whose client looks."""
    valid: tuple[bytes, ...] = field(repr=False)
    """Keys of which one must have signed; none where deliveries are not signed."""
    on_task: OnTask | None
    """Takes tasks as our own query returned them."""
    _cases: OrderedDict[str, _Case] = field(factory=OrderedDict, init=False, repr=False)

    async def answer(
        self, method: str, name: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes | Answer]]
    ) -> Answer:
        """
        Check a request, the cheapest first, and deliver it.

        Args:
            method: HTTP method.
            name: What the path ends in: `external_task_id.token`.
            headers: With names in lower case.
            read: Reads the body, or says what to answer instead.
        """
        if method != "POST":
            return NOT_POST
        reader = self.inbox.reader
        if reader is None:
            return LATER
        key = _checked(name, reader)
        if key is None:
            return NOT_FOUND
        typed = headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await read() if typed == "application/json" else NOT_JSON
        return body if isinstance(body, Answer) else await self._taken(reader, name, key, headers, body)

    async def _taken(self, reader: Reader, name: str, key: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            hint = read_hint(body, headers, self.valid, now=time.time())
        except WebhookError as error:
            log.warning("a delivery about %s is refused: %s", key, error)
            return UNSIGNED if isinstance(error, SignatureError) else BAD
        if hint.external_task_id not in {None, key}:
            return BAD
        delivery = headers[ID] if self.valid else hashlib.sha256(body).hexdigest()
        return await self._in_turn(reader, self._case(name), evolve(hint, external_task_id=key), delivery)

    def _case(self, name: str) -> _Case:
        case = self._cases.setdefault(name, _Case())
        self._cases.move_to_end(name)
        while len(self._cases) > CASES:
            self._cases.popitem(last=False)
        return case

    async def _in_turn(self, reader: Reader, case: _Case, hint: Hint, delivery: str) -> Answer:
        arrived = anyio.current_time()
        with anyio.move_on_after(TURN_MOST) as scope:
            await case.turn.acquire()
        if scope.cancelled_caught:
            return LATER
        try:
            if case.ended or delivery in case.done:
                return OK
            if not self._put(hint):
                return LATER
            if self.on_task is not None and not await self._told(self.on_task, reader, case, hint, arrived):
                return LATER
            case.done[delivery] = None
            while len(case.done) > DELIVERIES:
                case.done.popitem(last=False)
        finally:
            case.turn.release()
        return OK

    def _put(self, hint: Hint) -> bool:
        try:
            self.inbox.put(hint)
        except ClosedError:
            return False
        return True

    async def _told(self, on_task: OnTask, reader: Reader, case: _Case, hint: Hint, arrived: float) -> bool:
        if case.covers <= arrived:
            await anyio.sleep(max(0.0, case.looked_at + PACE - anyio.current_time()))
            began = case.looked_at = anyio.current_time()
            task = await _looked(reader, hint)
            if task is None or (task.done and not task.settled):
                return False
            if case.news(task):
                await on_task(task)
                case.told = task.status
            case.covers = began
        return not case.behind(hint)


async def _looked(reader: Reader, hint: Hint) -> Task | None:
    try:
        with anyio.fail_after(QUERY_MOST):
            return await reader.look(hint)
    except (KlingError, TimeoutError) as error:
        log.warning("a delivery about %s must come again: %s", hint.external_task_id, type(error).__name__)
        return None


def _checked(name: str, reader: Reader) -> str | None:
    """The external id of a path whose token is ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    key, token = found[1], found[2]
    return key if hmac.compare_digest(token, reader.token(key)) else None
