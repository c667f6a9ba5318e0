"""
Batches on the engine against the same edits without it: `python -m benchmarks.batch`.

A thousand edits of three seconds each, all at once, over real sockets: with `asyncio.gather` over the library's own
coroutines, which remembers nothing, and through `DbosRunner` on a SQLite file and on Postgres. Seconds count from the
first job's submission to the last result in the folder, the engine's own start left out. Each run is a fresh process,
its service and its Postgres others; they take turns, and no core is anyone's own, for a database needs one as well.

Then ten thousand rows in flight: what each takes of the worker's memory.
"""

import asyncio
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import orjson
from attrs import asdict, evolve, frozen

from benchmarks.life import most_memory
from benchmarks.memory import resident
from benchmarks.rounds import settle_allocator, told
from benchmarks.service import serving
from benchmarks.table import Line, Row, Skipped, printed, status
from kling_async import ApiKey, Job, KlingClient, PollPolicy, Removal
from kling_async.stores import IntentStore

EDITS, ROUNDS, SECONDS = 1_000, 3, 3.0
ROWS, ROWS_SECONDS = 10_000, 600.0
"""Rows in flight, and seconds that their tasks would take."""
CLIP = "https://example.com/clips/%d.mp4"
AIMS = {"sqlite": (0.36, 0.5), "postgres": (0.42, 0.6)}
"""Gates and goals: edits a second, as a share of what goes without an engine."""
TITLES = {"sqlite": "SQLite", "postgres": "Postgres"}


@frozen
class Plan:
    """
    What a run is to do.
    """

    who: str
    """`gather`, `sqlite` or `postgres`."""
    edits: int
    url: str = ""
    """The service."""
    folder: str = ""
    """Where results go."""
    database: str = ""
    """Of the batch."""
    held: bool = False
    """Whether it ends as soon as all tasks run, and tells what that takes."""


@frozen
class Found:
    """
    What a run came to.
    """

    wall: float
    """Seconds, from the first submission to the last result."""
    enqueued: float
    """Seconds of these until all jobs stood in the database."""
    cpu: float
    """Seconds of the process."""
    memory: float
    """Megabytes at the most."""
    row: float = 0.0
    """Bytes for each job whose task runs."""


def job(number: int) -> Job:
    """
    One edit.
    """
    return Job(CLIP % number, marks={0: [(0.42, 0.47)]}, edit=Removal.of("the bird"), key=f"spring-{number}")


def client(plan: Plan, store: IntentStore | None = None) -> KlingClient:
    """
    The client of both.
    """
    return KlingClient(ApiKey("sk-made-up"), base_url=plan.url, store=store, poll=PollPolicy(first=1, ceiling=1))


async def gathered(plan: Plan) -> Found:
    """
    Without an engine.
    """
    began = time.perf_counter()
    async with client(plan) as one:

        async def edit(number: int) -> None:
            wish = job(number)
            opened = await one.init_selection(video_url=wish.video_url)
            await one.add_selection(opened.session_id, 0, wish.marks[0])
            task = await one.create_task(opened.session_id, wish.edit)
            task = await one.wait(task)
            await one.download(task.video, Path(plan.folder, f"{task.task_id}.mp4"))

        await asyncio.gather(*(edit(number) for number in range(plan.edits)))
    return Found(time.perf_counter() - began, 0.0, time.process_time(), most_memory())


async def batched(plan: Plan) -> Found:
    """
    Through the engine.
    """
    from kling_async.dbos import DbosRunner

    runner = DbosRunner(
        plan.database,
        slots=plan.edits,
        out=plan.folder,
        client=lambda store: client(plan, store),
        polling=0.1,
    )
    async with runner, runner.working():
        before, began = resident(), time.perf_counter()
        await runner.submit_many((job(number), f"{number}.mp4") for number in range(plan.edits))
        enqueued = time.perf_counter() - began
        while True:
            seen = await runner.status()
            assert not seen.failed, seen
            if plan.held and created(plan) == plan.edits:
                row = (resident() - before) / plan.edits
                break
            if seen.done == plan.edits:
                row = 0.0
                break
            await asyncio.sleep(2 if plan.held else 0.1)
        wall = time.perf_counter() - began
    return Found(wall, enqueued, time.process_time(), most_memory(), row)


def created(plan: Plan) -> int:
    """
    How many creates the service has taken.
    """
    with urlopen(f"{plan.url}/truth") as reply:
        return int(orjson.loads(reply.read())["data"]["creates"])


@contextmanager
def database(who: str, folder: Path) -> Iterator[str]:
    """
    A new database; empty where there is none to be had.
    """
    if who != "postgres":
        yield f"sqlite:///{folder / 'batch.sqlite'}"
        return
    # Where the tests are: a benchmark is run from a clone.
    from tests.postgres import running

    with running() as server:
        yield server.url("batch")


def done(plan: Plan, least: float = SECONDS, most: float = SECONDS) -> Found:
    """
    Do it in a new process, with a new service, and hold it to what that charged.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        url = stack.enter_context(serving(least, most))
        base = stack.enter_context(database(plan.who, folder))
        sent = orjson.dumps(asdict(evolve(plan, url=url, folder=str(folder), database=base))).decode()
        command = [sys.executable, "-m", "benchmarks.batch", "--child", sent]
        found = Found(**orjson.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        with urlopen(f"{url}/truth") as reply:
            truth = orjson.loads(reply.read())["data"]
        assert (truth["creates"], truth["once"]) == (plan.edits, plan.edits), f"{plan.who} was charged {truth}"
        told(
            f"{plan.who:<9} {plan.edits:,} edits: {found.wall:6.2f} s ({found.enqueued:.2f} s until enqueued),"
            f" {plan.edits / found.wall:6.1f} edits/s, {found.cpu:6.2f} s CPU, {found.memory:.0f} MB"
        )
        return found


def here() -> str | None:
    """
    Why there is no Postgres; None where there is one.
    """
    try:
        from tests.postgres import Unavailable, programs

        programs()
    except ImportError as error:
        return str(error)
    except Unavailable as error:
        return str(error)
    return None


def rows(edits: int = EDITS, rounds: int = ROUNDS, held: int = ROWS) -> Iterator[Line]:
    """
    The table, line by line.
    """
    missing = here()
    names = ["gather", "sqlite", *([] if missing else ["postgres"])]
    found = [{name: done(Plan(name, edits)) for name in names} for _ in range(rounds)]
    yield Row.of("asyncio.gather, edits a second", (edits / run["gather"].wall for run in found), more=True)
    for name, aims in AIMS.items():
        title = f"DbosRunner on {TITLES[name]}"
        if name not in names:
            yield Skipped(f"{title}, edits a second / asyncio.gather", missing or "")
            continue
        shares = (run["gather"].wall / run[name].wall for run in found)
        yield Row.of(f"{title}, edits a second / asyncio.gather", shares, *aims, more=True)
        yield Row.of(f"{title}, CPU / asyncio.gather", (run[name].cpu / run["gather"].cpu for run in found))
        yield Row.of(f"{title}, edits a second", (edits / run[name].wall for run in found), more=True)
    if held:
        row = done(Plan("sqlite", held, held=True), ROWS_SECONDS, ROWS_SECONDS).row
        yield Row(f"{held:,} rows in flight, memory each", row / 1000, unit=" kB")


def main() -> int:
    """
    Measure and print; the exit status is 1 where a gate is missed.
    """
    parser = ArgumentParser(prog="python -m benchmarks.batch")
    for name, usual in (("edits", EDITS), ("rounds", ROUNDS), ("held", ROWS)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--child", help="a plan; for this module's own use")
    given = parser.parse_args()
    if given.child:
        plan = Plan(**orjson.loads(given.child))
        settle_allocator()
        found = asyncio.run(gathered(plan) if plan.who == "gather" else batched(plan))
        sys.stdout.buffer.write(orjson.dumps(asdict(found)))
        return 0
    return status(printed(rows(given.edits, given.rounds, given.held)))


if __name__ == "__main__":
    sys.exit(main())
