"""
A soak: edits for half an hour at a service that answers one request of twenty badly: `python -m benchmarks.soak`.

One client does wave after wave of whole edits over real sockets, on asyncio or trio (`--backend`). Between waves, when
nothing is underway, it is noted what the process holds: memory, blocks, tasks, threads, open files, rows of the store.
In the end a line is laid through the second half of the notes, or what is left of it once the store is full, for one in
memory keeps the last 10,000 settled rows and grows until then; and the service tells what it charged: each edit once,
and none that nobody knows of.

A leak is told by the bytes that are in use, as the C library counts them, and by Python's blocks. Resident memory is
more than that by what lies free between, which is told as well: it grows for an hour, as that of any program does whose
threads each take from a heap of their own.
"""

import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import ClassVar, Final

import anyio
from attrs import define, field, frozen

from benchmarks.rounds import settle_allocator
from benchmarks.service import serving
from benchmarks.table import Row, printed, status
from kling_async import (
    ApiKey,
    Edited,
    Job,
    KlingClient,
    KlingError,
    MemoryStore,
    PollPolicy,
    Removal,
    RetryPolicy,
    Slots,
    Task,
    TaskFailedError,
    edit_many,
    open_transport,
)
from kling_async.stores import KEPT

MINUTES, RATE = 30.0, 0.05
LEAST, MOST = 0.5, 2.0
"""Seconds that tasks last."""
WAVE, SLOTS, BATCHES = 900, 120, 8
"""Edits of a wave, how many tasks run at once, and how many batches share these: each prepares but a few jobs ahead."""
EVERY = 10.0
"""Seconds between two notes."""
TOTAL, DOUBT = 3.0, 4.0
"""Seconds for one exchange, and over which a create in doubt is looked for: short, so that much happens."""
PASSES: Final = 20
"""Waves at most that what is left in the end takes."""
EDIT = Removal.of("the bird")
CLIP = "https://example.com/clip.mp4"


@frozen
class Note:
    """
    What the process held while nothing was underway.
    """

    seconds: float
    """Since the beginning."""
    edits: int
    """That had come to their end."""
    memory: int
    """Kilobytes that are resident."""
    used: int
    """Kilobytes that are in use, by the C library's count; 0 where it does not say."""
    free: int
    """Kilobytes that it holds besides, freed and not given back."""
    blocks: int
    """That Python has allocated."""
    tasks: int
    """Of every event loop."""
    threads: int
    files: int
    """Open ones, sockets among them."""
    rows: int
    """Of the store."""


NAMES = ("seconds", "edits", "memory", "used", "free", "blocks", "tasks", "threads", "files", "rows")


class Allocated(ctypes.Structure):
    """
    What `mallinfo2` of glibc tells, in bytes.
    """

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in ("arena", "free", "small", "maps", "mapped", "1", "2", "taken", "untaken", "top")
    ]


def allocated() -> tuple[int, int]:
    """
    Kilobytes that are in use, and that are free; 0 where the C library does not say.
    """
    try:
        told = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return 0, 0
    told.restype = Allocated
    found = told()
    return int(found.taken + found.mapped) // 1024, int(found.untaken) // 1024


def job(key: str) -> Job:
    """
    One edit.
    """
    return Job(CLIP, marks={0: [(0.4, 0.5)]}, edit=EDIT, key=key)


@define
class Soak:
    """
    How far it has come.
    """

    folder: Path
    store: MemoryStore = field(factory=MemoryStore)
    began: float = field(factory=time.monotonic)
    number: int = 0
    """Jobs that were made."""
    left: dict[str, Job] = field(factory=dict)
    """By key: those that failed and are to be tried again."""
    ended: bytearray = field(factory=bytearray)
    """Of each job, whether its task is known to have come to its end; a byte each, for this must not grow itself."""
    failures: Counter[str] = field(factory=Counter)
    notes: list[Note] = field(factory=list)

    @property
    def seconds(self) -> float:
        """
        Since the beginning.
        """
        return time.monotonic() - self.began

    def wave(self, size: int) -> dict[str, Job]:
        """
        What is left, and new ones.
        """
        jobs, self.left = self.left, {}
        while len(jobs) < size:
            key = f"soak-{self.number}"
            jobs[key] = job(key)
            self.number += 1
            self.ended.append(0)
        return jobs

    def end(self, one: Job) -> None:
        """
        Note the end of an edit.
        """
        assert one.key is not None
        self.ended[int(one.key.removeprefix("soak-"))] = 1

    def failed(self, one: Job, error: KlingError) -> None:
        """
        Note a failure; only that of a task is the end of an edit.
        """
        assert one.key is not None
        self.failures[type(error).__name__] += 1
        if isinstance(error, TaskFailedError):
            self.end(one)
        else:
            self.left[one.key] = one

    async def run(self, client: KlingClient, jobs: dict[str, Job]) -> None:
        """
        Do a wave, and settle what it has left open.
        """
        slots, listed = Slots(SLOTS), list(jobs.values())
        async with anyio.create_task_group() as batches:
            for number in range(BATCHES):
                batches.start_soon(self.batch, client, listed[number::BATCHES], slots)
        try:
            await client.reconcile()
        except KlingError as error:
            self.failures[f"reconcile: {type(error).__name__}"] += 1

    async def batch(self, client: KlingClient, jobs: Sequence[Job], slots: Slots) -> None:
        """
        Do a part of a wave.
        """
        async with anyio.create_task_group() as saving, edit_many(client, jobs, slots=slots) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Edited):
                    saving.start_soon(self.save, client, outcome.job, outcome.task)
                else:
                    self.failed(outcome.job, outcome.error)

    async def save(self, client: KlingClient, one: Job, task: Task) -> None:
        """
        Download a result, and throw it away.
        """
        path = self.folder / f"{task.task_id}.mp4"
        try:
            await client.download(task.video, path, overwrite=True)
        except KlingError as error:
            self.failed(one, error)
        else:
            path.unlink()
            self.end(one)

    def note(self, rows: int) -> None:
        """
        Look at the process, and print what it holds.
        """
        gc.collect()
        tasks = sum(isinstance(each, asyncio.Task) and not each.done() for each in gc.get_objects()) + trio_tasks()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used, free = allocated()
        note = Note(
            seconds=self.seconds,
            edits=sum(self.ended),
            memory=pages * os.sysconf("SC_PAGE_SIZE") // 1024,
            used=used,
            free=free,
            blocks=sys.getallocatedblocks(),
            tasks=tasks,
            threads=threading.active_count(),
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            rows=rows,
        )
        self.notes.append(note)
        print(" ".join(f"{getattr(note, name):>10,.0f}" for name in NAMES), flush=True)


def trio_tasks() -> int:
    """
    Tasks of trio's running loop; 0 on another.
    """
    trio = sys.modules.get("trio")
    try:
        return 0 if trio is None else int(trio.lowlevel.current_statistics().tasks_living)
    except RuntimeError:
        return 0


async def soaked(soak: Soak, url: str, minutes: float) -> object:
    """
    Do waves as long as there is time, then what they have left; what the service tells in the end.
    """
    carrier = await open_transport(total=TOTAL)
    retry, poll = RetryPolicy(base=0.1, doubt=DOUBT, on_unknown="resend"), PollPolicy(first=0.3, ceiling=1.0)
    noted = -EVERY
    try:
        client = KlingClient(
            ApiKey("sk-made-up"), base_url=url, transport=carrier, store=soak.store, retry=retry, poll=poll
        )
        async with client:
            while soak.seconds < 60 * minutes:
                await soak.run(client, soak.wave(WAVE))
                if soak.seconds - noted >= EVERY:
                    noted = soak.seconds
                    soak.note(len(await soak.store.recent(sys.maxsize)))
            for _ in range(PASSES):
                if soak.left:
                    await soak.run(client, soak.wave(0))
            return await client.request("GET", "/truth")
    finally:
        with anyio.CancelScope(shield=True):
            await carrier.aclose()


def grown(notes: Sequence[Note]) -> Iterator[Row]:
    """
    The growth over the second half, and the lowest and the highest note of it.
    """
    half = [note for note in notes if 2 * note.seconds >= notes[-1].seconds]
    half = [note for note in half if note.rows >= KEPT] or half
    edits = [note.edits / 1000 for note in half]
    gates = {"memory": None, "used": 20.0, "free": None, "blocks": 200.0, "tasks": 0.1, "threads": 2.0, "files": 2.0}
    for name, gate in gates.items():
        seen = [float(getattr(note, name)) for note in half]
        text = f"{name}, growth for 1,000 edits (they are {min(seen):,.0f} to {max(seen):,.0f})"
        yield Row(text, linear_regression(edits, seen).slope if len(half) > 1 else inf, gate)


def charged(soak: Soak, truth: object) -> Iterator[Row]:
    """
    What the service says, beside what is known here.
    """
    assert isinstance(truth, dict)
    requests, harmed = (sum(truth[name].values()) for name in ("requests", "harmed"))
    print(f"{sum(soak.ended):,} edits of {soak.number:,}, {requests:,} requests, {harmed:,} of them spoiled:")
    print(", ".join(f"{name} {times}" for name, times in sorted(truth["harmed"].items())))
    print("failures on the way:", ", ".join(f"{name} {times}" for name, times in soak.failures.most_common()))
    known = {job(f"soak-{number}").external_task_id for number, ended in enumerate(soak.ended) if ended}
    lost = set(truth["keys"]) - known
    yield Row("charged twice", truth["twice"], 0)
    yield Row("charged, and not known here", len(lost), 0)
    yield Row("edits not done", soak.number - sum(soak.ended), 0)
    yield Row("share of the requests that were spoiled", harmed / requests)


def main() -> int:
    """
    Soak and print; the exit status is 1 where something grows or was charged wrongly.
    """
    parser = ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--rate", type=float, default=RATE, help="share of the requests that meet a fault")
    given = parser.parse_args()
    settle_allocator()
    with serving(LEAST, MOST, given.rate) as url, TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        print(" ".join(f"{name:>10}" for name in NAMES))
        truth = anyio.run(soaked, soak, url, given.minutes, backend=given.backend)
    return status(printed([*grown(soak.notes), *charged(soak, truth)]))


if __name__ == "__main__":
    sys.exit(main())
