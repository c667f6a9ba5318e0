"""
What the service told of its own accord, and who waits for it.

A hint wakes those who wait for its task, and nothing more: what became of the task they see for themselves.
The inbox knows no clock and no event loop until a client opens with it: it may stand at module level.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

import anyio
from attrs import define, evolve, field

from ._auth import Credentials, webhook_token
from ._endpoints import GET
from ._exchange import Exchange
from ._hints import Hint
from ._lease import Leave
from .errors import InvalidInputError, NotFoundError
from .models import Task
from .policy import PollPolicy
from .stores import IntentStore

__all__ = ("Inbox",)

KEPT = 4096
"""Ids of which a hint is remembered for who asks later: a delivery may be quicker than the create's own reply."""
PACE = 2.0
"""Seconds between two looks at a task that hints may cause."""
CALMER = 3
"""How much further apart looks may come to be where hints are expected."""
CALMEST = 3600.0
"""Seconds; but looks do not come to be further apart than this."""


class Reader(Protocol):
    """
    What an open client lends its inbox.
    """

    def token(self, external_task_id: str) -> str:
        """
        What must stand in the path of a delivery about this task.
        """
        ...

    def check(self) -> None:
        """
        Whether it may be used from here.

        Raises:
            RuntimeError: It was opened on another loop, or in another process.
        """
        ...

    async def look(self, hint: Hint) -> Task:
        """
        The task, by a query of our own.

        Raises:
            KlingError: It cannot be seen, or it is not the one that the path is for.
        """
        ...


@define(eq=False, repr=False)
class Inbox:
    """
    Hands hints to those who wait, in `wait` and `watch`, for their tasks.

    It serves one open client at a time, on that client's event loop: `put` from any other thread or loop is a
    RuntimeError; there `anyio.from_thread.run_sync(inbox.put, hint, token=...)` is the way. It keeps the last
    4096 ids, and however fast hints come, they cause a look at a task every two seconds at most.

    Example:
        >>> inbox = Inbox()
        >>> inbox.put(Hint("8781", "order-17", "succeed"))
        >>> inbox
        <Inbox, of no open client, 0 waiting>
    """

    _reader: Reader | None = field(default=None, init=False)
    _numbers: OrderedDict[str, int] = field(factory=OrderedDict, init=False)
    _count: int = field(default=0, init=False)
    _waiting: dict[str, set[Callable[[], None]]] = field(factory=dict, init=False)

    def __repr__(self) -> str:
        owner = "of no open client" if self._reader is None else "of an open client"
        return f"<Inbox, {owner}, {len(set().union(*self._waiting.values()))} waiting>"

    def put(self, hint: Hint) -> None:
        """
        Wake who waits for this task, and remember it for who will; from the client's own event loop.

        Args:
            hint: From `parse_webhook`.

        Raises:
            InvalidInputError: It is no Hint.
            RuntimeError: It is called from another thread, loop or process than the client's.
        """
        given: object = hint
        if not isinstance(given, Hint):
            raise InvalidInputError("hint", f"must be what parse_webhook returns, not {type(given).__name__}")
        if self._reader is not None:
            self._reader.check()
        self._count += 1
        for name in filter(None, (hint.task_id, hint.external_task_id)):
            self._numbers[name] = self._count
            self._numbers.move_to_end(name)
            for wake in tuple(self._waiting.get(name, ())):
                wake()
        while len(self._numbers) > KEPT:
            self._numbers.popitem(last=False)

    @property
    def reader(self) -> Reader | None:
        """
        What the open client lends; for the receivers of deliveries.
        """
        return self._reader

    def attach(self, reader: Reader) -> None:
        """
        Belong to a client; clients do this themselves as they open.

        Raises:
            InvalidInputError: It belongs to another one that is open.
        """
        if self._reader is not None:
            raise InvalidInputError("inbox", "belongs to another client that is still open: make one for each client")
        self._reader = reader

    def detach(self) -> None:
        """
        Belong to no client; clients do this themselves as they close.
        """
        self._reader = None

    def last(self, *names: str | None) -> int:
        """
        The number of the last hint for any of these ids; 0 for none.
        """
        return max((self._numbers.get(name, 0) for name in names if name), default=0)

    @property
    def count(self) -> int:
        """
        How many hints there were.
        """
        return self._count

    def listen(self, wake: Callable[[], None], names: Iterable[str]) -> None:
        """
        Call this at each hint for one of these ids.
        """
        for name in names:
            self._waiting.setdefault(name, set()).add(wake)

    def leave(self, wake: Callable[[], None], names: Iterable[str]) -> None:
        """
        Call it no more.
        """
        for name in names:
            self._waiting[name].discard(wake)
            if not self._waiting[name]:
                del self._waiting[name]


@define(eq=False, repr=False)
class Ear:
    """
    What one who waits has heard: a hint brings the next look forward, but not more often than the pace allows.
    """

    _inbox: Inbox
    _heard: int = field(default=0, init=False)
    _looked_at: float = field(default=-inf, init=False)

    def looking(self, *names: str | None) -> None:
        """
        A look is about to be made: it will show what the hints so far were about.
        """
        self.looked(self._inbox.last(*names), anyio.current_time())

    def looked(self, heard: int, at: float) -> None:
        """
        A look was made at this time, when there had been so many hints.
        """
        self._heard, self._looked_at = heard, at

    def earliest(self, *names: str | None) -> float | None:
        """
        From when on a look may be made for what has been heard since the last one; None where nothing has.
        """
        return self._looked_at + PACE if self._inbox.last(*names) > self._heard else None

    def listen(self, wake: Callable[[], None], *names: str | None) -> None:
        """
        Call this at each hint for one of these ids.
        """
        self._inbox.listen(wake, filter(None, names))

    def leave(self, wake: Callable[[], None], *names: str | None) -> None:
        """
        Call it no more.
        """
        self._inbox.leave(wake, filter(None, names))


def calmer(policy: PollPolicy) -> PollPolicy:
    """
    The same policy where hints are expected: looks go on, and come to be three times as far apart.
    """
    return evolve(policy, ceiling=max(policy.ceiling, min(policy.ceiling * CALMER, CALMEST)))


@define(eq=False, repr=False)
class Eyes:
    """
    The reader that a client is: its own key makes the tokens, its own query decides what became of a task.
    """

    credentials: Credentials = field(repr=False)
    """What tokens are made from."""
    lease: Callable[[str], Leave]
    """Leave of the client for a call."""
    store: IntentStore
    """Which task an external id stands for."""
    exchange: Exchange
    """The way out."""

    def token(self, external_task_id: str) -> str:
        """
        What must stand in the path of a delivery about this task.
        """
        return webhook_token(self.credentials, external_task_id)

    def check(self) -> None:
        """
        Whether the client may be used from here.
        """
        self.lease("put")

    async def look(self, hint: Hint) -> Task:
        """
        The task that the path is for, which the body can name but not choose.

        Its id comes from the store; else the host is asked for the external id; where it is not known to find
        these, for the id that the body names, and then the reply must tell the external id.
        """
        key = hint.external_task_id or ""
        with self.lease("get_task"):
            intent = await self.store.get(key)
            if intent is not None and intent.task_id is not None:
                return (await self.exchange(GET, path=GET.at(intent.task_id))).named(key)
            finds = self.exchange.host.finds_external_ids
            task = await self.exchange(GET, path=GET.at(key if finds else hint.task_id))
            if task.external_task_id != key and not (finds and task.external_task_id is None):
                raise NotFoundError(f"{self.exchange.host.name} does not tell which task {key!r} is")
            if intent is not None and task.external_task_id == key:
                await self.store.put(evolve(intent, state="accepted", task_id=task.task_id))
            return task.named(key)
