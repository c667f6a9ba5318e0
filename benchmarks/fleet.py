"""
What the workers of `scale.py` stand on: virtual time, a service that fails by chance, and a store that all share.

A worker that dies is cut off with all that it is at: nothing that it still does reaches the service or the store, and
what it owned in the store stays its own until its lease is over. The service is the simulator, but of tasks with many
lengths, and it counts where the simulator remembers.
"""

import asyncio
import selectors
import time
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from math import inf
from pathlib import Path
from random import Random

import anyio
import orjson
from attrs import define, field, frozen

from kling_async import MemoryStore
from kling_async._submit import DOUBTFUL, SETTLED, Abilities, Intent, State
from kling_async.errors import LostReplyError, NotSentError, StoreError
from kling_async.simulator import Fault, Footage
from kling_async.simulator import _rules as rules
from kling_async.simulator._answers import accepted, task
from kling_async.simulator._blind import Blind, drawn
from kling_async.simulator._faults import Broken, Outcome, Script, Where
from kling_async.simulator._machine import Machine
from kling_async.simulator._routes import Call
from kling_async.simulator._scenes import Drawn, Source, Spot
from kling_async.simulator._tasks import Run, Tasks
from kling_async.simulator._world import Steps
from kling_async.transport import Progress, Request, Response, Saved, Transport

WAY_LEAST, WAY_MOST = 0.05, 0.25
"""Seconds that a request is on its way, and its reply again."""
SILENCE, SILENT = 30.0, 0.3
"""Seconds after which a silent service is given up, and the part of the lost replies that are lost so."""
LEASE = 300.0
"""Seconds without a sign of life after which an intent may be taken from its owner, as `SqliteStore` has it."""


class _Jumping(selectors.SelectSelector):
    """
    Looks at no file; the time that it would have waited is over at once.
    """

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """
        Nothing, but later.

        Raises:
            RuntimeError: Nothing is left that could ever happen.
        """
        if timeout is None:
            msg = "all wait for each other"
            raise RuntimeError(msg)
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    A loop without sockets that jumps to its next timer as soon as nothing else is ready.
    """

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since it began."""
        return self._jumping.now


def spoiled(where: Where) -> tuple[Fault, ...]:
    """
    What goes wrong with a call in passing: half of it before the call is done, half of it after that.
    """
    return (
        Fault(where, "unsent"),
        Fault(where, "cut"),
        Fault(where, "status", status=500),
        Fault(where, "status", status=503),
        Fault(where, "code", code=1302),
        Fault(where, "lost"),
        Fault(where, "status", status=500, handled=True),
        Fault(where, "status", status=504, handled=True),
        Fault(where, "html", handled=True),
        Fault(where, "code", code=5000, handled=True),
    )


FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "init": spoiled("init"),
    "add": spoiled("add"),
    "create": spoiled("create"),
    "get": (*spoiled("get"), Fault("get", "missing")),
    "list": spoiled("list"),
    "task": (Fault("task", "failed"),),
    "video": (Fault("video", "missing"),),
}
"""By place, all that may go wrong there."""


@define
class Chance(Script):
    """
    A script without an end.
    """

    faults: tuple[Fault, ...] = ()
    rate: float = field(default=0.0, kw_only=True)
    """How likely a fault is."""
    rng: Random = field(factory=Random, kw_only=True)
    """What draws it."""

    def take(self, endpoint: str) -> Fault | None:
        """A fault; mostly none."""
        return self.rng.choice(FAULTS[endpoint]) if self.rng.random() < self.rate else None


disc = cache(drawn)
"""The mask of the same points is drawn once: drawing is no work of the real service's clients."""


@frozen
class Still(Blind):
    """
    Sight of clips that all look alike.
    """

    def draw(self, _source: Source, footage: Footage, _frame_index: int, spots: tuple[Spot, ...]) -> Drawn:
        """Discs."""
        return disc(spots, footage.height, footage.width)


@define(kw_only=True)
class Service(Machine):
    """
    The service of one account.
    """

    requests: Counter[str] = field(init=False, factory=Counter)
    """By call."""
    spoiled: int = field(init=False, default=0)
    """How many of them met a fault."""
    sent: int = field(init=False, default=0)
    """Bytes of all replies."""
    cpu: float = field(init=False, default=0.0)
    """Seconds of this thread that answering has taken."""
    began: float = field(init=False, default=inf)
    """When it was asked first, on the loop's clock; its own begins then."""
    _rows: dict[str, orjson.Fragment] = field(init=False, factory=dict)

    def handle(self, request: Request, now: float, origin: str) -> Steps[Outcome]:
        """Answer one request."""
        self.began = min(self.began, anyio.current_time() - now)
        cpu = time.thread_time()
        outcome = yield from super().handle(request, now, origin)
        while self.log:
            seen = self.log.pop()
            own = seen.endpoint == "get" and not seen.path.rpartition("/")[2].isdigit()
            self.requests["get by external id" if own else str(seen.endpoint)] += 1
            self.spoiled += seen.fault is not None
        if not isinstance(outcome, Broken):
            self.sent += len(outcome.body)
        self.cpu += time.thread_time() - cpu
        return outcome

    def _listed(self, call: Call, request_id: str) -> Response:
        page = Tasks.page(self.tasks, *rules.page(call.query), self.now, call.shape)
        return accepted(call.shape, request_id, [self._row(run, call) for run in page])

    def _row(self, run: Run, call: Call) -> orjson.Fragment:
        row = self._rows.get(run.task_id)
        if row is None:
            row = orjson.Fragment(orjson.dumps(task(call.shape, self.tasks.view(run, call.origin, self.now))))
            if run.ended_at is not None:
                self._rows[run.task_id] = row
        return row


@define(eq=False)
class Life:
    """
    A worker from its start to its death.
    """

    worker: int
    """Which one."""
    dead: bool = False
    """Nothing that it does has any effect any more."""


@define(eq=False)
class Way:
    """
    A worker's way to the service: it takes its time, and ends with the worker.
    """

    _inner: Transport
    _life: Life
    _rng: Random

    async def exchange(self, request: Request) -> Response:
        """
        Send and wait.

        Raises:
            NotSentError: The worker is dead.
            LostReplyError: The reply was cut, or never came.
        """
        await anyio.sleep(self._rng.uniform(WAY_LEAST, WAY_MOST))
        if self._life.dead:
            raise NotSentError("this worker is dead")
        try:
            response = await self._inner.exchange(request)
        except LostReplyError:
            await anyio.sleep(SILENCE if self._rng.random() < SILENT else WAY_MOST)
            raise
        await anyio.sleep(self._rng.uniform(WAY_LEAST, WAY_MOST))
        return response

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """Nothing is downloaded here."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to close."""


@define(eq=False)
class Ledger(MemoryStore):
    """
    The store of an account: owners have leases in it, and calls are counted.
    """

    calls: Counter[str] = field(init=False, factory=Counter)
    """By name."""
    seized: int = field(init=False, default=0)
    """How many intents were taken from an owner whose lease was over."""
    _until: dict[str, float] = field(init=False, factory=dict)

    async def claim(self, intent: Intent) -> Intent | None:
        """Own the intent until its lease is over."""
        self.calls["claim"] += 1
        key, now = intent.external_task_id, anyio.current_time()
        claimed = await super().claim(intent)
        if claimed is None and self._until[key] <= now:
            self.seized += 1
            await super().release(self._intents[key])
            claimed = await super().claim(intent)
        if claimed is not None and claimed.state not in SETTLED:
            self._until[key] = now + LEASE
        return claimed

    async def put(self, intent: Intent) -> bool:
        """Keep an intent, and stay its owner."""
        self.calls["put"] += 1
        kept = await super().put(intent)
        if intent.state in SETTLED:
            self._until.pop(intent.external_task_id, None)
        elif kept:
            self._until[intent.external_task_id] = anyio.current_time() + LEASE
        return kept

    async def release(self, intent: Intent) -> None:
        """Let others claim it."""
        self.calls["release"] += 1
        await super().release(intent)

    async def get(self, external_task_id: str) -> Intent | None:
        """The intent with this id."""
        self.calls["get"] += 1
        return await super().get(external_task_id)

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """The latest intents."""
        self.calls["recent"] += 1
        return await super().recent(most, states=states)

    async def abilities(self, base_url: str) -> Abilities:
        """What was learned of a host."""
        self.calls["abilities"] += 1
        return await super().abilities(base_url)

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """Remember what was learned of a host."""
        self.calls["learn"] += 1
        await super().learn(base_url, abilities)

    def in_doubt(self, key: str | None) -> bool:
        """Whether a create with this id may have been sent whose outcome nobody has seen."""
        kept = self._intents.get(key or "")
        return kept is not None and kept.state in DOUBTFUL


@define(eq=False)
class Hand:
    """
    A worker's hand on the store; a dead one has none.
    """

    _ledger: Ledger
    _life: Life

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def claim(self, intent: Intent) -> Intent | None:
        """Own the intent."""
        return await self._alive().claim(intent)

    async def put(self, intent: Intent) -> bool:
        """Keep an intent."""
        return await self._alive().put(intent)

    async def release(self, intent: Intent) -> None:
        """Let others claim it."""
        await self._alive().release(intent)

    async def get(self, external_task_id: str) -> Intent | None:
        """The intent with this id."""
        return await self._alive().get(external_task_id)

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """The latest intents."""
        return await self._alive().recent(most, states=states)

    async def abilities(self, base_url: str) -> Abilities:
        """What was learned of a host."""
        return await self._alive().abilities(base_url)

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """Remember what was learned of a host."""
        await self._alive().learn(base_url, abilities)

    def _alive(self) -> Ledger:
        if self._life.dead:
            raise StoreError("this worker is dead")
        return self._ledger
