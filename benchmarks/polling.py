"""
Waiting for many tasks at once: `wait` against a GET for each task and look: `python -m benchmarks polling`.

10,000 tasks end one after the other over eight seconds, looks come every two, over real sockets. `wait` reads pages of
the list; its rival is a plain loop over `get_task`. Where the machine is too slow for the rival to look every two
seconds, it saves looks by being late: so it is charged for all looks that the interval asks for, at what one has cost
it. Rounds alternate in one process; ratios are medians.
"""

import time
from collections.abc import Awaitable, Callable
from math import ceil
from statistics import median

import anyio
from attrs import frozen

from benchmarks.server import WAITING, ends_after, serving
from kling_async import ApiKey, KlingClient, PollPolicy, Task

INTERVAL = 2.0
"""Seconds between two looks."""
AHEAD = 1.5
"""Seconds until tasks end and CPU is counted: those who wait are started before, which costs the same in both ways."""
ROUNDS = 3

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
    poll = PollPolicy(first=INTERVAL, factor=1, ceiling=INTERVAL)

    async def one(task_id: int) -> None:
        await wait(client, str(task_id))
        late.append((time.monotonic() - began - ends_after(task_id)) / INTERVAL)

    async with KlingClient(ApiKey("sk-made-up"), base_url=url, poll=poll) as client:
        async with anyio.create_task_group() as group:
            for task_id in range(1, WAITING + 1):
                group.start_soon(one, task_id)
            await anyio.sleep(began - time.monotonic())
            cpu = time.process_time()
        cpu = time.process_time() - cpu
        told = await client.request("GET", "/count")
    assert isinstance(told, dict)
    assert min(late) >= 0
    return Cost(told["requests"], cpu, sorted(late)[len(late) * 99 // 100])


def looks() -> int:
    """How many looks at single tasks the interval asks for until all have ended."""
    return sum(ceil((AHEAD + ends_after(task_id)) / INTERVAL) for task_id in range(1, WAITING + 1))


def main() -> int:
    """
    Measure and print; the exit status is 1 where a gate is missed.
    """
    with serving() as base_url:
        pairs = [[anyio.run(cost, base_url, wait) for wait in (poller, loop)] for _ in range(ROUNDS)]
    rows = [
        ("requests / a GET each", median(ours.requests / looks() for ours, _ in pairs), 1 / 100, 1 / 280),
        ("CPU / a GET each", median(ours.cpu / theirs.each / looks() for ours, theirs in pairs), 1 / 10, 1 / 17),
        ("p99 from end to notice, in intervals", median(ours.late for ours, _ in pairs), 1.1, 1.0),
    ]
    print(f"| {WAITING:,} waiting tasks | is | gate | goal |\n|---|---|---|---|")
    for name, value, gate, goal in rows:
        print(f"| {name} | {value:.4f} | {gate:.4f} | {goal:.4f} |")
    for ours, theirs in pairs:
        print(f"{ours.requests} requests and {ours.cpu:.2f} s, p99 {ours.late:.3f} intervals;", end=" ")
        print(f"a GET each: {theirs.requests} of {looks()}, {theirs.cpu:.2f} s, p99 {theirs.late:.3f}")
    return 0 if all(value <= gate for _, value, gate, _ in rows) else 1
