"""
A storm of cancellations: 1,800 calls, 300 at a time, each cut off after 0 to 200 ms unless it was answered before.

The server answers after 0 to 150 ms and names the task that it was asked for, so that an answer in the wrong place is
seen. `python -m benchmarks.storm BACKEND URL` prints how many ended well, were cut off or wrong, what was left behind,
and how many never ended. On trio, the tasks of the loop in the other thread count as well.
"""

import asyncio
import gc
import json
import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio
from attrs import Factory, define

from benchmarks.rounds import fresh, told
from benchmarks.server import serving
from benchmarks.table import Row
from kling_async import ApiKey, KlingClient, KlingError

CALLS = 1_800
AT_ONCE = 300
TIMEOUT_MOST = 0.2
"""Seconds after which a call is cut off at most."""
PATIENCE = 60.0
"""Seconds after which what goes on has hung."""
SETTLING = 5.0
"""Seconds that may pass until what was closed is gone."""
FIRST = 878106242831000000
FOLDER = Path("/proc/self/fd")


@define
class Storm:
    """
    What became of the calls.
    """

    client: KlingClient
    draw: Random = Factory(lambda: Random(7))
    begun: int = 0
    ends: Counter[str] = Factory(Counter)

    async def worker(self) -> None:
        """Call and be cut off, until all calls are begun."""
        while self.begun < CALLS:
            self.begun += 1
            await self.call(str(FIRST + self.begun), self.draw.random() * TIMEOUT_MOST)

    async def call(self, task_id: str, seconds: float) -> None:
        """One call; what is raised, but by its own end, is wrong."""
        try:
            with anyio.move_on_after(seconds) as scope:
                task = await self.client.get_task(task_id)
        except (KlingError, OSError, RuntimeError, asyncio.CancelledError) as error:
            told(f"storm: {error!r}")
            self.ends["wrong"] += 1
            return
        if scope.cancelled_caught:
            self.ends["cut off"] += 1
        else:
            self.ends["well" if task.task_id == task_id else "wrong"] += 1


def tasks() -> int:
    """
    Tasks that live, of trio and of all loops of asyncio in this process.
    """
    loops = [each for each in gc.get_objects() if isinstance(each, asyncio.BaseEventLoop) and not each.is_closed()]
    found = sum(len(asyncio.all_tasks(loop)) for loop in loops)
    if "trio" in sys.modules:
        import trio

        with suppress(RuntimeError):
            found += trio.lowlevel.current_statistics().tasks_living
    return found


def remains() -> Counter[str]:
    """
    What there is in this process that may be left behind: threads, open files and sockets, tasks.
    """
    found = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    for path in FOLDER.iterdir() if FOLDER.is_dir() else ():
        # The one that reads the folder is gone again.
        with suppress(FileNotFoundError):
            found[str(path.readlink()).partition(":")[0]] += 1
    return found + Counter(task=tasks())


async def left(before: Counter[str], there: Callable[[], Counter[str]] = remains) -> Counter[str]:
    """
    What is there that was not there before, once what was closed has had time to go.
    """
    with anyio.move_on_after(SETTLING):
        while there() - before:
            gc.collect()
            await anyio.sleep(0.05)
    return there() - before


async def calm(client: KlingClient) -> None:
    """
    As many calls as run at once, none of them cut off: before the storm they open its connections, after it they show
    that it still works, and that no answer of the storm comes late.
    """

    async def one(task_id: str) -> None:
        assert (await client.get_task(task_id)).task_id == task_id

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(one, str(FIRST + CALLS + number))


async def run(url: str) -> tuple[int, int, int, int, int]:
    """
    Ended well, cut off, wrong, left behind, never ended.
    """
    # The first client of a process loads what stays: so it is none of the storm's.
    async with KlingClient(ApiKey("sk-made-up"), base_url=f"{url}/kling") as client:
        await client.get_task(str(FIRST))
    before, behind = remains(), Counter[str]()
    storm = Storm(KlingClient(ApiKey("sk-made-up"), base_url=f"{url}/storm", connections=AT_ONCE))
    with anyio.move_on_after(PATIENCE):
        async with storm.client as client:
            await calm(client)
            usual = Counter(task=tasks())
            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(storm.worker)
            behind += await left(usual, lambda: Counter(task=tasks()))
            await calm(client)
    behind += await left(before)
    for name, number in behind.items():
        told(f"storm: {number} x {name} left behind")
    ends = storm.ends
    return ends["well"], ends["cut off"], ends["wrong"], behind.total(), CALLS - ends.total()


def rows() -> Iterable[Row]:
    """
    Wrong, leaked and hung, on either loop.
    """
    with serving() as base_url:
        for backend in ("asyncio", "trio"):
            told(f"storm: on {backend}")
            try:
                numbers = fresh("benchmarks.storm", backend, base_url.removesuffix("/kling"), seconds=3 * PATIENCE)
            except subprocess.TimeoutExpired:
                numbers = [0, 0, 0, 0, CALLS]
            well, cut, *rest = numbers
            for what, number in zip(("wrong", "leaked", "hung"), rest, strict=True):
                yield Row(f"storm on {backend}, {well:.0f} answered, {cut:.0f} cut off: {what}", number, 0, 0)


def main() -> None:
    """
    One storm, in this process.
    """
    logging.basicConfig(level=logging.ERROR)
    backend, url = sys.argv[1:]
    print(json.dumps(anyio.run(run, url, backend=backend)))


if __name__ == "__main__":
    main()
