"""
One account of `scale.py`, from its first edit to its last: a queue of jobs and the workers who share it until they die.

The queue stands for the engine that carries a batch over many machines. A job that a worker has taken is its own; once
the worker has been dead for a while, others get it, under the same key. Everything else is the library: each worker
has a client of its own and `edit_many` with slots that learn, knows nothing of the others but what the store says, and
asks again for a job that failed in passing. A task that failed costs nothing and is ordered anew, under a new key.
"""

import random
import time
from array import array
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf
from random import Random
from resource import RUSAGE_SELF, getrusage

import anyio
from attrs import Factory, define, field, frozen

from benchmarks.fleet import Chance, Hand, Ledger, Life, Service, Still, VirtualLoop, Way
from benchmarks.slots import SECONDS, Account, share
from kling_async import (
    ApiKey,
    Edited,
    Failed,
    Job,
    KlingClient,
    KlingError,
    Outcome,
    Removal,
    RetryPolicy,
    Slots,
    TaskFailedError,
    edit,
    edit_many,
)
from kling_async._endpoints import KLING_GLOBAL_URL
from kling_async.simulator import Footage, Shape
from kling_async.simulator._desk import Desk
from kling_async.simulator._local import LocalTransport
from kling_async.simulator._shelf import Shelf
from kling_async.simulator._tasks import at_once
from kling_async.transport import Transport

CLIP = Footage(width=720, height=720)
"""The smallest that the service takes."""
LAG = 3.0
"""Seconds until an accepted task is listed, and found by its external id."""
REAPED, DOWN = 30.0, 120.0
"""Seconds after which a dead worker's jobs go to others, and after which it is back."""
AGAIN, TRIES = 5.0, 10
"""Seconds until a job that failed in passing is tried again, and how often at most."""
DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)
"""Where virtual time begins, for clients and service alike."""
REMOVAL = Removal.of("it")


@frozen(kw_only=True)
class Plan:
    """
    What one account has to do.
    """

    name: str
    """Its keys begin with it."""
    edits: int
    """How many are wanted."""
    quotas: tuple[int, ...]
    """How many tasks may run at once, one after the other, at equal parts of the edits; nobody is told."""
    workers: tuple[int, ...]
    """Who serves it."""
    seed: int
    """Of all chance."""
    faults: float
    """How likely a request is to go wrong, and a task to fail."""
    life: float
    """Seconds that a worker lives on average."""


@frozen(kw_only=True)
class Tally:
    """
    What became of it.
    """

    plan: Plan
    """What there was to do."""
    edits: int
    """How many were done."""
    undone: int
    """How many were not."""
    charges: int
    """What the service has charged for, in all."""
    twice: int
    """Charges beyond the first of their keys."""
    lost: int
    """Charges for what nobody got to know of."""
    tasks: int
    """How many were accepted."""
    refused: int
    """Creates that met a full quota."""
    requests: Counter[str]
    """By call."""
    spoiled: int
    """How many of them met a fault."""
    sent: int
    """Bytes of all replies."""
    store: Counter[str]
    """Calls of the store."""
    counts: Counter[str]
    """What happened to jobs."""
    deaths: frozenset[tuple[int, int]]
    """Which worker died, the how-manieth time."""
    late: "array[float]"
    """Seconds from each task's end to its notice."""
    late_moved: "array[float]"
    """Those of the tasks whose worker died."""
    busy: float
    """Seconds that tasks ran within the quota."""
    whole: float
    """Seconds that the quota had room for, from the first create to the last."""
    seconds: float
    """Virtual ones, until the last was noticed."""
    cpu: float
    """Seconds of this process."""
    service: float
    """Those of them that the service has taken."""
    wall: float
    """Seconds that it took."""
    memory: float
    """MB that this process held at most."""

    @property
    def share(self) -> float:
        """
        How busy the quota was.
        """
        return self.busy / self.whole


def job_of(key: str) -> Job:
    """
    The job with this key.
    """
    return Job(f"https://example.com/{key}.mp4", marks={0: [(0.5, 0.5)]}, edit=REMOVAL, key=key)


@define(eq=False)
class Queue:
    """
    The keys of an account's jobs, and who is at them.
    """

    left: int
    """How many are not done."""
    _new: Iterator[str]
    _back: deque[str] = field(init=False, factory=deque)
    _taken: dict[str, Life] = field(init=False, factory=dict)
    _moved: anyio.Event = field(init=False, factory=anyio.Event)

    async def jobs(self, life: Life) -> AsyncGenerator[Job, None]:
        """What a worker takes, until all are done."""
        while self.left:
            key = self._back.popleft() if self._back else next(self._new, None)
            if key is None:
                await self._moved.wait()
                continue
            self._taken[key] = life
            yield job_of(key)

    def done(self, key: str, instead: str | None = None) -> None:
        """There is nothing left to do for it, or this is to be done in its place."""
        del self._taken[key]
        if instead is None:
            self.left -= 1
        else:
            self._back.append(instead)
        self._stir()

    def reaped(self, life: Life) -> list[str]:
        """Give what a dead worker has taken to others."""
        keys = [key for key, owner in self._taken.items() if owner is life]
        for key in keys:
            del self._taken[key]
        self._back.extend(keys)
        self._stir()
        return keys

    def _stir(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()


@define(eq=False)
class Shift:
    """
    All that is done for one account.
    """

    plan: Plan
    """What is to be done."""
    rng: Random = field(
        init=False, default=Factory(lambda self: Random(f"{self.plan.seed} {self.plan.name}"), takes_self=True)
    )
    """Chance."""
    account: Account = field(init=False)
    """The service's tasks, which tell the truth."""
    service: Service = field(init=False)
    """The service."""
    transport: Transport = field(init=False)
    """The way to it."""
    ledger: Ledger = field(init=False, factory=Ledger)
    """The store that all its workers share."""
    queue: Queue = field(init=False)
    """Its jobs."""
    known: set[str] = field(init=False, factory=set)
    """External ids of those that were done."""
    moved: set[str] = field(init=False, factory=set)
    """Keys of jobs whose worker died."""
    late: "array[float]" = field(init=False, factory=lambda: array("d"))
    """Seconds from each task's end to its notice."""
    late_moved: "array[float]" = field(init=False, factory=lambda: array("d"))
    """Those of the moved jobs."""
    counts: Counter[str] = field(init=False, factory=Counter)
    """What happened to jobs."""
    deaths: set[tuple[int, int]] = field(init=False, factory=set)
    """Which worker died, the how-manieth time."""
    ended: float = field(init=False, default=0.0)
    """When the last job was done."""

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        self.queue = Queue(plan.edits, (f"{plan.name}-{number}" for number in range(plan.edits)))
        # An id that is there already makes another task: what keeps it from being paid twice is the library alone.
        shape = Shape(external_ids="repeatable", lag_seconds=LAG)
        self.service = service = Service(
            quota=plan.quotas[0],
            task_seconds=SECONDS,
            session_seconds=24 * 3600.0,
            seed=plan.seed,
            api_key=None,
            shape=shape,
            script=Chance(rate=plan.faults, rng=self.rng),
            sight=Still(CLIP),
            render=at_once,
            shelf=Shelf(link_seconds=None),
        )
        self.account = service.tasks = Account(
            world=service.world,
            quota=plan.quotas[0],
            seconds=SECONDS,
            render=at_once,
            rng=self.rng,
            changes={plan.edits * part // len(plan.quotas): quota for part, quota in enumerate(plan.quotas) if part},
            apart=inf,
        )
        self.transport = LocalTransport(Desk(service))

    async def run(self) -> None:
        """Do all of it."""
        async with anyio.create_task_group() as group:
            for worker in self.plan.workers:
                group.start_soon(self._worker, worker)

    async def _worker(self, number: int) -> None:
        """One life after the other; when each ends is the same in every account that the worker serves."""
        draw, times = Random(f"{self.plan.seed} {number}"), 0
        while self.queue.left:
            life, times = Life(number), times + 1
            async with anyio.create_task_group() as group:
                group.start_soon(self._end, life, draw.expovariate(1 / self.plan.life), group.cancel_scope)
                await self._work(life)
                group.cancel_scope.cancel()
            if life.dead:
                self.deaths.add((number, times))
                await anyio.sleep(REAPED)
                self._reap(life)
                await anyio.sleep(DOWN - REAPED)

    async def _end(self, life: Life, seconds: float, scope: anyio.CancelScope) -> None:
        """Kill a worker: first it loses its hands, so that its parting does nothing."""
        await anyio.sleep(seconds)
        life.dead = True
        scope.cancel()

    def _reap(self, life: Life) -> None:
        keys = self.queue.reaped(life)
        self.moved.update(keys)
        self.counts["moved"] += len(keys)
        self.counts["moved in doubt"] += sum(self.ledger.in_doubt(job_of(key).external_task_id) for key in keys)

    async def _work(self, life: Life) -> None:
        slots, client = Slots.learned(), self._client(life)
        async with client:
            # Virtual as well, for it tells how old a create is.
            client.creates.doubts.search.now = lambda: DAY_ONE + timedelta(seconds=anyio.current_time())
            jobs = self.queue.jobs(life)
            async with (
                aclosing(jobs),
                anyio.create_task_group() as group,
                edit_many(client, jobs, slots=slots) as outcomes,
            ):
                async for outcome in outcomes:
                    if not self._settled(outcome, life):
                        group.start_soon(self._once_more, client, outcome.job, slots, life)

    def _client(self, life: Life) -> KlingClient:
        return KlingClient(
            ApiKey(f"sk-{self.plan.name}"),
            base_url=KLING_GLOBAL_URL,
            transport=Way(self.transport, life, self.rng),
            store=Hand(self.ledger, life),
            retry=RetryPolicy(on_unknown="resend"),
        )

    async def _once_more(self, client: KlingClient, job: Job, slots: Slots, life: Life) -> None:
        for _ in range(TRIES):
            await anyio.sleep(AGAIN)
            outcome: Outcome
            try:
                outcome = Edited(job, await edit(client, job, slots=slots))
            except KlingError as error:
                outcome = Failed(job, error)
            if self._settled(outcome, life):
                return
        self.queue.done(str(job.key))

    def _settled(self, outcome: Outcome, life: Life) -> bool:
        """Whether the job needs no other try."""
        key = str(outcome.job.key)
        match outcome:
            case _ if life.dead:
                pass
            case Edited():
                self._note(outcome.job)
                self.queue.done(key)
            case Failed(error=TaskFailedError()):
                self.counts["task failed"] += 1
                self.queue.done(key, f"{key}+")
            case Failed(error=error):
                self.counts["again"] += 1
                self.counts[type(error).__name__] += 1
                return False
        return True

    def _note(self, job: Job) -> None:
        key, self.ended = str(job.external_task_id), anyio.current_time()
        late = self.ended - self.service.began - self.account.spans[key][1]
        self.known.add(key)
        (self.late_moved if job.key in self.moved else self.late).append(late)

    def tally(self, cpu: float, wall: float) -> Tally:
        """What became of it, by what the service says."""
        account, charges = self.account, self.account.charges
        begun = [begin for begin, _ in account.spans.values()]
        quotas = [(min(begun), account.quotas[0][1]), *account.quotas[1:], (max(begun), 0)]
        whole = sum(quota * (until - since) for (since, quota), (until, _) in pairwise(quotas))
        return Tally(
            plan=self.plan,
            edits=len(self.known),
            undone=self.plan.edits - len(self.known),
            charges=sum(charges.values()),
            twice=sum(max(0, times - 1) for times in charges.values()),
            lost=sum(times for key, times in charges.items() if key not in self.known),
            tasks=len(account.spans),
            refused=account.refused,
            requests=self.service.requests,
            spoiled=self.service.spoiled,
            sent=self.service.sent,
            store=self.ledger.calls,
            counts=self.counts + Counter(seized=self.ledger.seized),
            deaths=frozenset(self.deaths),
            late=self.late,
            late_moved=self.late_moved,
            busy=share(account) * whole,
            whole=whole,
            seconds=self.ended,
            cpu=cpu,
            service=self.service.cpu,
            wall=wall,
            memory=getrusage(RUSAGE_SELF).ru_maxrss / 1024,
        )


def done(plan: Plan) -> Tally:
    """
    Do all that an account has to do, in virtual time.
    """
    random.seed(f"{plan.seed} {plan.name}")
    shift, cpu, wall = Shift(plan), time.process_time(), time.perf_counter()
    anyio.run(shift.run, backend_options={"loop_factory": VirtualLoop})
    return shift.tally(time.process_time() - cpu, time.perf_counter() - wall)
