"""
Waiting for many tasks at once: `wait` against a GET for each task and look: `python -m benchmarks.polling`.

10,000 tasks end one after the other over eight seconds, looks come every two, over real sockets. `wait` reads pages of
the list; its rival is a plain loop over `get_task`. Where the machine is too slow for the rival to look every two
seconds, it saves looks by being late: so it is charged for all looks that the interval asks for, at what one has cost
it. Rounds alternate in one process.
"""

import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from math import ceil

import anyio
from attrs import frozen

from benchmarks.rounds import own_tasks, pinned, settle_allocator, told
from benchmarks.server import WAITING, ends_after, serving
from benchmarks.table import Row, printed, status
from kling_async import ApiKey, KlingClient, PollPolicy, Task

INTERVAL = 2.0
"""Seconds between two looks."""
AHEAD = 1.5
"""Seconds until tasks end and CPU is counted: those who wait are started before, which costs the same in both ways."""
ROUNDS = 3
"""Of half a minute each."""

Wait = Callable[[KlingClient, str], Awaitable[object]]
"""Waits for one task."""


@frozen
class Cost:
    """
    What it took to wait for all of them.
    """

    requests: int
    """Requests that reached the server."""
    cpu: float
    """Seconds of this process."""
    late: float
    """Intervals between a task's end and its being noticed, of which 99 of a hundred were fewer."""

    def __str__(self) -> str:
        return f"{self.cpu:.2f} s, {self.late:.3f} intervals late at p99, {self.requests} requests"

    @property
    def each(self) -> float:
        """CPU seconds of a request."""
        return self.cpu / self.requests


async def poller(client: KlingClient, task_id: str) -> None:
    """Our way."""
    await client.wait(Task(task_id=task_id, status="processing"))


async def loop(client: KlingClient, task_id: str) -> None:
    """A GET for each task and look, as far apart as ours, however long they take."""
    due, done = anyio.current_time(), False
    while not done:
        due += INTERVAL
        await anyio.sleep_until(due)
        done = (await client.get_task(task_id)).done


async def cost(base_url: str, wait: Wait) -> Cost:
    """
    Wait for all tasks in one of the two ways.
    """
    began, late = time.monotonic() + AHEAD, list[float]()
    url = f"{base_url.removesuffix('/kling')}/waiting/{began!r}"
    poll = PollPolicy(first=INTERVAL, factor=1, ceiling=INTERVAL, jitter=0)

    async def one(task_id: int) -> None:
        await wait(client, str(task_id))
        late.append((time.monotonic() - began - ends_after(task_id)) / INTERVAL)

    async with KlingClient(ApiKey("sk-made-up"), base_url=url, poll=poll) as client:
        async with own_tasks() as start:
            for task_id in range(1, WAITING + 1):
                start(one, task_id)
            await anyio.sleep(max(0.0, began - time.monotonic()))
            cpu = time.process_time()
        cpu = time.process_time() - cpu
        told = await client.request("GET", "/count")
    assert isinstance(told, dict)
    assert min(late) >= 0
    return Cost(told["requests"], cpu, sorted(late)[len(late) * 99 // 100])


def looks() -> int:
    """How many looks at single tasks the interval asks for until all have ended."""
    return sum(ceil((AHEAD + ends_after(task_id)) / INTERVAL) for task_id in range(1, WAITING + 1))


def rows() -> Iterable[Row]:
    """
    Requests, CPU and lateness against a GET for each task.
    """
    pairs: list[tuple[Cost, Cost]] = []
    with pinned(), serving() as base_url:
        settle_allocator()
        for number in range(1, ROUNDS + 1):
            ours, theirs = (anyio.run(cost, base_url, wait) for wait in (poller, loop))
            pairs.append((ours, theirs))
            told(f"polling: round {number} of {ROUNDS}: {ours}; a GET each: {theirs} of {looks()}")
    what = f"of {WAITING:,} waiting tasks"
    yield Row.of(f"requests {what} / a GET each", (ours.requests / looks() for ours, _ in pairs), 1 / 100, 1 / 280)
    spent = (ours.cpu / theirs.each / looks() for ours, theirs in pairs)
    yield Row.of(f"CPU {what} / a GET each", spent, 1 / 10, 1 / 17)
    yield Row.of("p99 from end to notice, in intervals", (ours.late for ours, _ in pairs), 1.1, 1.0)


if __name__ == "__main__":
    sys.exit(status(printed(rows())))
