"""
Memory that waiting takes: of 10,000 waits, of 10,000 whole edits whose tasks run, and of connections that are kept.

Each round is a fresh process: `python -m benchmarks.memory WHAT BACKEND URL NUMBER` prints how many bytes its resident
memory has grown by for each. Selections are answered with three objects, with run lengths and pictures: 82 kB.
"""

import gc
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
from attrs import Factory, define

from benchmarks.rounds import Call, fresh, own_tasks, told
from benchmarks.server import serving
from benchmarks.table import Line, Row, Skipped
from kling_async import ApiKey, Job, KlingClient, PollPolicy, Removal, Task, edit, edit_many
from kling_async.events import Created, Event

ROUNDS = 3
"""Processes; resident memory hardly differs from one to the next."""
WAITING = 10_000
CONNECTIONS = 200
AT_ONCE = 100
"""Edits that begin at once: more than the connections would only wait for these, each with its masks."""
FIRST = 878106242831000000
STATM = Path("/proc/self/statm")
LATER = PollPolicy(first=3600, factor=1, ceiling=3600)
"""So that nobody looks while memory is read."""

Held = AbstractAsyncContextManager[None]


def resident() -> int:
    """
    Bytes of this process that are in memory, without what is only waiting to be collected.
    """
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def opened(
    url: str, path: str, *, connections: int = 100, observer: Callable[[Event], None] | None = None
) -> KlingClient:
    """
    A client of a part of the server.
    """
    return KlingClient(
        ApiKey("sk-made-up"), base_url=f"{url}/{path}", poll=LATER, connections=connections, observer=observer
    )


@asynccontextmanager
async def waits(url: str, number: int) -> AsyncIterator[None]:
    """
    So many who wait for a task that runs.
    """
    async with opened(url, "kling") as client, own_tasks(cut_off=True) as start:
        for task_id in range(FIRST, FIRST + number):
            start(client.wait, Task(task_id=str(task_id), status="processing"))
        await anyio.wait_all_tasks_blocked()
        yield


@define
class Begun:
    """
    Edits that begin one by one, as many at once as there are connections.
    """

    number: int
    begin: Callable[[], object]
    begun: int = 0
    created: int = 0
    all_created: anyio.Event = Factory(anyio.Event)

    def observe(self, event: Event) -> None:
        """Begin another for each that was created."""
        if isinstance(event, Created):
            self.created += 1
            self.next()
        if self.created == self.number:
            self.all_created.set()

    def next(self) -> None:
        """Begin one, if there is one left."""
        if self.begun < self.number:
            self.begun += 1
            self.begin()


def job(name: object) -> Job:
    """
    One edit of a clip.
    """
    return Job(f"https://example.com/{name}.mp4", marks={0: [(0.5, 0.5)]}, edit=Removal.of("the stones"))


@asynccontextmanager
async def edits(url: str, number: int) -> AsyncIterator[None]:
    """
    So many whole edits in tasks of the program's own, each with a selection and a task that runs.
    """
    begun = Begun(number, lambda: start(edit, client, job(begun.begun)))
    async with opened(url, "kling", observer=begun.observe) as client, own_tasks(cut_off=True) as start:
        for _ in range(AT_ONCE):
            begun.next()
        await begun.all_created.wait()
        await anyio.wait_all_tasks_blocked()
        yield


@asynccontextmanager
async def batch(url: str, number: int) -> AsyncIterator[None]:
    """
    The same through `edit_many`, whose tasks they are then.
    """
    begun = Begun(number, lambda: None)
    client = opened(url, "kling", observer=begun.observe)
    async with client, edit_many(client, map(job, range(number)), slots=number):
        await begun.all_created.wait()
        await anyio.wait_all_tasks_blocked()
        yield


async def all_at_once(call: Call, number: int) -> None:
    """
    So many calls; nothing of them is left when this ends, not even with the loop.
    """
    async with own_tasks() as start:
        for _ in range(number):
            start(call)
    await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[None]:
    """
    So many connections, idle after one call each.
    """
    async with opened(url, f"slow/{number}", connections=number) as client:
        await all_at_once(partial(client.get_task, str(FIRST)), number)
        yield


@asynccontextmanager
async def bare(url: str, number: int) -> AsyncIterator[None]:
    """
    The same of aiohttp alone.
    """
    import aiohttp

    async def call() -> None:
        async with session.get(f"{url}/slow/{number}") as response:
            await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=number)) as session:
        await all_at_once(call, number)
        yield


HELD: dict[str, Callable[[str, int], Held]] = {
    "wait": waits,
    "edit": edits,
    "batch": batch,
    "connection": connections,
    "bare": bare,
}
FEW = {"wait": AT_ONCE, "edit": AT_ONCE, "batch": AT_ONCE, "connection": 1, "bare": 1}


async def grown(what: str, url: str, number: int) -> list[float]:
    """
    Bytes by which resident memory has grown for each beyond the first few, whose pool and modules stand for all.
    """
    few = FEW[what]
    async with HELD[what](url, few):
        before = resident()
    async with HELD[what](url, number):
        return [(resident() - before) / (number - few)]


def rows() -> Iterable[Line]:
    """
    Kilobytes of each.
    """
    if not STATM.exists():
        yield Skipped("memory", "this system does not tell it")
        return
    with serving() as base_url:
        url = base_url.removesuffix("/kling")
        for name, what, number, backend, gate, goal in (
            (f"memory of a waiting edit, of {WAITING:,}", "edit", WAITING, "asyncio", 8.0, 5.0),
            (f"memory of a pooled connection, of {CONNECTIONS}", "connection", CONNECTIONS, "asyncio", 20.0, 17.0),
            ("... of one of bare aiohttp's", "bare", CONNECTIONS, "asyncio", None, None),
            ("... of a waiting edit on trio, of 2,000", "edit", 2_000, "trio", None, None),
            ("... of a waiting edit of edit_many, of 2,000", "batch", 2_000, "asyncio", None, None),
            (f"... of a wait, of {WAITING:,}", "wait", WAITING, "asyncio", None, None),
        ):
            told(f"memory: {name}")
            run = partial(fresh, "benchmarks.memory", what, backend, url, number)
            yield Row.of(name, (run()[0] / 1000 for _ in range(ROUNDS)), gate, goal, unit=" kB")


def main() -> None:
    """
    Hold and read, in this process.
    """
    what, backend, url, number = sys.argv[1:]
    logging.disable()  # each wait that is cut off at the end would tell how to go on
    print(json.dumps(anyio.run(grown, what, url, int(number), backend=backend)))


if __name__ == "__main__":
    main()
