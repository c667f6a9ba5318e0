"""
Learned slots: how much of an unknown quota they keep busy, and what that costs: `python -m benchmarks slots`, with all
that they are compared with `python -m benchmarks.slots`.

1,000 jobs go through `edit_many` to the simulator, in this process and on a clock that jumps. Replies take 0.1 to 0.5
seconds, tasks half a minute to five, and about midway the quota changes without a word. The account itself tells the
truth: the time that tasks ran, as far as the quota allowed them, over the time that it would have allowed, from the
first create to the last; and the creates that it refused (1303).

Each way that is compared meets the same tasks: learned slots, a fixed number that is right at first, and slots that
halve at a refusal and grow by one a round. An end is seen only as its task is looked at, by default every ten seconds,
which none of them can make up for; so the same is told for looks every second, and for a host without a list, where
each task is looked at alone. Guests are tasks of others in the same account. Of two clients who share an account and
know nothing of each other, the second comes after ten minutes and is measured from the thirtieth on.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import heappop, heappush
from itertools import chain, pairwise
from math import inf
from pathlib import Path
from random import Random
from typing import TypeAlias

import anyio
from attrs import Factory, define, field, frozen
from trio.testing import MockClock

from benchmarks.table import Row, printed, status
from kling_async import ApiKey, Edited, Job, KlingClient, PollPolicy, Removal, Slots, edit_many
from kling_async._endpoints import COMETAPI_URL, KLING_GLOBAL_URL
from kling_async.simulator import Fault, Footage, Shape
from kling_async.simulator._blind import Blind
from kling_async.simulator._desk import Desk
from kling_async.simulator._faults import Script
from kling_async.simulator._local import LocalTransport
from kling_async.simulator._machine import Machine
from kling_async.simulator._rules import Creation
from kling_async.simulator._selections import Session
from kling_async.simulator._shelf import Shelf
from kling_async.simulator._tasks import Run, Tasks, at_once
from kling_async.slots import LearnedSlots, Quota, Slot
from kling_async.transport import Progress, Request, Response, Saved, Transport

JOBS = 1000
ROUNDS = 3
SECONDS, SPREAD = 95.0, 0.35
"""A task's length: its median, and the deviation of its logarithm."""
LISTED = 1800.0
"""Seconds for which a task is listed, for the machine's sake: its client looks for those that run."""
APART = 30.0
"""Seconds between two guests on average."""
SECOND, SETTLED = 600.0, 1200.0
"""Seconds after which the second client comes, and after which more it is measured."""
STEPS = ((20, 8, 35), (20, 10), (10, 20))
"""Quotas, which nobody is told, one after the other."""
SOON = PollPolicy(first=1.0, factor=1.0, ceiling=1.0)

Span: TypeAlias = tuple[float, float]


@define(kw_only=True)
class Account(Tasks):
    """
    The simulator's tasks, but of many lengths, with guests, and with quotas that change as tasks are created.
    """

    rng: Random
    """Lengths, guests, and when quotas change."""
    changes: dict[int, int]
    """Quotas to come, by the number of tasks."""
    apart: float
    """Seconds between two guests on average."""
    spans: dict[str, Span] = field(init=False, factory=dict)
    """When each task ran, by its external id."""
    guests: list[Span] = field(init=False, factory=list)
    """When each guest's did."""
    quotas: list[tuple[float, int]] = field(
        init=False, default=Factory(lambda self: [(0.0, self.quota)], takes_self=True)
    )
    """Since when each quota holds."""
    refused: int = field(init=False, default=0)
    """How many creates were refused for a full quota."""
    _next: float = field(init=False, default=Factory(lambda self: self.drawn_pause(), takes_self=True))
    _ends: list[float] = field(init=False, factory=list)

    def drawn_pause(self) -> float:
        """Until the next guest."""
        return inf if self.apart == inf else self.rng.expovariate(1 / self.apart)

    def drawn_length(self) -> float:
        """Of a task."""
        return self.rng.lognormvariate(0, SPREAD) * SECONDS

    def running(self, now: float) -> int:
        """Let guests come and go, and end what is due, in whatever order it began."""
        while self._next <= now:
            at, self._next = self._next, self._next + self.drawn_pause()
            if self._left(at) < self.quota:
                self.guests.append((at, at + self.drawn_length()))
                heappush(self._ends, self.guests[-1][1])
        for run in [run for run in self._running if run.due <= now]:
            run.settle(now)
            self._end(run)
            self._running.remove(run)
        return self._left(now)

    def _left(self, now: float) -> int:
        while self._ends and self._ends[0] <= now:
            heappop(self._ends)
        return len(self._ends)

    def create(
        self, creation: Creation, session: Session, now: float, *, shape: Shape, fault: Callable[[], Fault | None]
    ) -> Run:
        """Accept a task, after which the quota may change."""
        if self.running(now) >= self.quota:
            self.refused += 1
        self.seconds = self.drawn_length()
        run = super().create(creation, session, now, shape=shape, fault=fault)
        heappush(self._ends, run.due)
        self.spans[run.charged_to] = (now, run.due)
        if len(self.spans) in self.changes:
            self.quota = self.changes[len(self.spans)]
            self.quotas.append((now, self.quota))
        return run

    def page(self, number: int, size: int, now: float, shape: Shape) -> list[Run]:
        """A page of those that are young enough."""
        return [run for run in super().page(number, size, now, shape) if now - run.created_at < LISTED]


@define
class Delayed:
    """
    A way that takes its time.
    """

    inner: LocalTransport
    rng: Random

    async def exchange(self, request: Request) -> Response:
        """Send and wait."""
        await anyio.sleep(self.rng.uniform(0.05, 0.25))
        response = await self.inner.exchange(request)
        await anyio.sleep(self.rng.uniform(0.05, 0.25))
        return response

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """Nothing is downloaded here."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close."""
        await self.inner.aclose()


@define(eq=False)
class HalvingQuota(Quota):
    """
    Half of it at each refusal, one more a round: what slots learned by before.
    """

    exact: float = field(init=False, default=Factory(lambda self: float(self.level), takes_self=True))

    @property
    def limit(self) -> int:
        """How many may be held."""
        return int(self.exact)

    def accepted(self, running: int, underway: int) -> None:
        """Tells nothing."""

    def refused(self, running: int, underway: int) -> None:  # noqa: ARG002 - it did not count
        """Tells that it is half."""
        self.exact = max(1.0, self.exact / 2)

    def ended(self) -> None:
        """Tells that it may be more."""
        self.exact += 1 / self.exact

    def shown(self, running: int, others: int) -> None:
        """Tells nothing."""


@define(eq=False)
class HalvingSlot(Slot):
    """
    A slot that is kept while a refusal is waited out.
    """

    async def refused(self, *, pause: float, alone: float, most: float) -> None:
        """Wait as long as who is alone."""
        self._slots.refused()
        await anyio.sleep(max(alone, min(pause, most)))


@define(eq=False, repr=False)
class Halving(LearnedSlots):
    """
    Slots by that rule.
    """

    _quota: Quota = field(default=Factory(lambda self: HalvingQuota(self._limit), takes_self=True), init=False)

    def slot(self, seen: object = None) -> Slot:  # noqa: ARG002 - it did not look
        """One of them."""
        return HalvingSlot(self)


def learned(_quota: int) -> Slots:
    """By the rule of now."""
    return Slots.learned()


def halving(_quota: int) -> Slots:
    """By the rule of before."""
    return Halving(5)


def fixed(quota: int) -> Slots:
    """As many as the quota has at first."""
    return Slots(quota)


@frozen(kw_only=True)
class Setting:
    """
    What jobs meet.
    """

    steps: tuple[int, ...]
    """The quotas."""
    seed: int
    """Of all chance."""
    slots: Callable[[int], Slots] = learned
    """Of each client, by the quota at first."""
    names: str = "a"
    """A letter for each client."""
    base_url: str = KLING_GLOBAL_URL
    """A host with a list, or without."""
    poll: PollPolicy | None = None
    """How often tasks are looked at."""
    apart: float = inf
    """Seconds between two guests on average."""

    def service(self) -> tuple[Account, Transport]:
        """A new account and the way to it; its quotas change at about equal parts of the jobs."""
        rng, quota = Random(self.seed), self.steps[0]
        machine = Machine(
            quota=quota,
            task_seconds=SECONDS,
            session_seconds=24 * 3600.0,
            seed=self.seed,
            api_key=None,
            shape=Shape(),
            script=Script(()),
            sight=Blind(Footage()),
            render=at_once,
            shelf=Shelf(link_seconds=None),
        )
        after = [JOBS * part // len(self.steps) + rng.randint(-40, 40) for part in range(1, len(self.steps))]
        changes = dict(zip(after, self.steps[1:], strict=True))
        world, apart = machine.world, self.apart
        account = Account(
            world=world, quota=quota, seconds=SECONDS, render=at_once, rng=rng, changes=changes, apart=apart
        )
        machine.tasks = account
        return account, Delayed(LocalTransport(Desk(machine)), Random(self.seed))


def job(name: str, number: int) -> Job:
    """One of a client's jobs."""
    url = f"https://example.com/{name}-{number}.mp4"
    return Job(url, marks={0: [(0.5, 0.5)]}, edit=Removal.of("it"), key=f"{name}-{number}")


async def worked(setting: Setting) -> Account:
    """
    Do all jobs; with several clients each has as many.
    """
    account, transport = setting.service()

    async def client_works(name: str, after: float) -> None:
        await anyio.sleep(after)
        jobs, slots = (job(name, number) for number in range(JOBS)), setting.slots(setting.steps[0])
        async with (
            KlingClient(ApiKey("any"), transport=transport, base_url=setting.base_url, poll=setting.poll) as client,
            edit_many(client, jobs, slots=slots) as outcomes,
        ):
            async for outcome in outcomes:
                assert isinstance(outcome, Edited), outcome

    async with anyio.create_task_group() as group:
        for number, name in enumerate(setting.names):
            group.start_soon(client_works, name, SECOND * number)
    return account


def account_of(setting: Setting) -> Account:
    """
    The account as it is when all is done.
    """
    return anyio.run(worked, setting, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def share(account: Account) -> float:
    """
    The time that tasks ran, as far as there was room, over that for which there was room, until the last create.
    """
    begun = [begin for begin, _ in account.spans.values()]
    first, last = min(begun), max(begun)
    steps = [(begin, 1, 0) for begin in begun] + [(end, -1, 0) for _, end in account.spans.values()]
    steps += chain.from_iterable(((begin, 0, -1), (end, 0, 1)) for begin, end in account.guests)
    steps += [(at, 0, new - old) for (_, old), (at, new) in pairwise(account.quotas)]
    running, room, before, busy, whole = 0, account.quotas[0][1], first, 0.0, 0.0
    for at, tasks, places in sorted(steps):
        passed = max(0.0, min(at, last) - before)
        busy, whole = busy + passed * min(running, max(0, room)), whole + passed * max(0, room)
        running, room, before = running + tasks, room + places, max(before, at)
    return busy / whole


def refusals(account: Account) -> float:
    """
    Creates that were refused, for each task.
    """
    return account.refused / len(account.spans)


def part_of_second(account: Account) -> float:
    """
    The second client's part of the time that tasks ran, from when it has settled until one of both has no jobs left.
    """
    ours = {name: [account.spans[str(job(name, number).external_task_id)] for number in range(JOBS)] for name in "ab"}
    begin = min(span[0] for span in ours["b"]) + SETTLED
    end = min(max(span[0] for span in spans) for spans in ours.values())
    first, second = (sum(max(0.0, min(e, end) - max(b, begin)) for b, e in spans) for spans in ours.values())
    return second / (first + second)


def accounts(rounds: int = ROUNDS, steps: Iterable[tuple[int, ...]] = STEPS, **named: object) -> list[Account]:
    """
    An account for each round and each course of quotas.
    """
    make = partial(Setting, **named)  # type: ignore[arg-type]
    return [account_of(make(steps=each, seed=seed)) for seed in range(1, rounds + 1) for each in steps]


def both(name: str, found: list[Account], *, aimed: bool = False) -> Iterator[Row]:
    """
    The share and its price.
    """
    gates = ((0.9, 0.98), (0.05, 0.01)) if aimed else ((None, None), (None, None))
    yield Row.of(f"{name}: share of the quota kept busy", map(share, found), *gates[0], more=True)
    yield Row.of(f"{name}: refusals per task", map(refusals, found), *gates[1])


def headline() -> Iterator[Row]:
    """
    Learned slots alone, as they come.
    """
    yield from both("learned slots", accounts(), aimed=True)


def rows() -> Iterator[Row]:
    """
    All of it.
    """
    yield from headline()
    for steps in STEPS:
        named = ", ".join(map(str, steps))
        yield from both(f"quota {named}, learned", accounts(1, [steps]))
        yield from both(f"quota {named}, fixed", accounts(1, [steps], slots=fixed))
        yield from both(f"quota {named}, halving", accounts(1, [steps], slots=halving))
    yield from both("looks every second, learned", accounts(1, poll=SOON))
    yield from both("looks every second, fixed", accounts(1, poll=SOON, slots=fixed))
    yield from both("no list, learned", accounts(1, base_url=COMETAPI_URL))
    yield from both("guests, learned", accounts(1, apart=APART))
    yield from both("guests, halving", accounts(1, apart=APART, slots=halving))
    for name, slots in (("learned", learned), ("halving", halving), ("fixed", fixed)):
        shared = accounts(ROUNDS, [(20,)], slots=slots, names="ab")
        yield Row.of(f"two clients, {name}: part of the second", map(part_of_second, shared))
        yield from both(f"two clients, {name}", shared)


def main() -> int:
    """
    Measure and print; the exit status is 1 where a gate is missed.
    """
    return status(printed(rows()))


if __name__ == "__main__":
    sys.exit(main())
