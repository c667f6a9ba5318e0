"""
Whole edits: `edit_many` against the script that one would write instead: `python -m benchmarks.life`.

An edit opens a selection, marks a point, creates the task, waits for its end and downloads the result to a file, over
real sockets. The script does so with aiohttp alone: one session, gather, a semaphore, and a GET for each look. Each run
is a fresh process on one core, its service another on another; the two take turns.

Edits of this API take minutes. So the first case has all of them waiting at once, for tasks of one to three minutes,
and both ways look every five seconds, as scripts do: to the user of a result that took minutes five seconds are little,
and 10,000 tasks are 2,000 requests a second even so, which no service likes to see doubled. The other case is the
hardest for the library: tasks of 8 to 20 s, a fifth of them at once, so that there is little waiting to be saved.

What is compared is the CPU of the process, all threads. Besides: how late the event loop is while 100 MB come in.
"""

import asyncio
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from urllib.parse import urlsplit

import orjson
from attrs import asdict, define, evolve, field, frozen

from benchmarks.rounds import client_core, pin, settle_allocator, told
from benchmarks.service import LEAST, MOST, SMALL, serving
from benchmarks.table import Line, Row, printed, status

EDITS, ROUNDS = 10_000, 3
BRIEF_SLOTS, LAG_EDITS, LAG_SLOTS = 2_000, 2_000, 2_000
TICK = 0.005
"""Seconds that the task sleeps which notes how late it is woken."""
KEY = "sk-made-up"
CLIP = "https://example.com/clips/%d.mp4"
POINT = (0.42, 0.47)


@frozen
class Plan:
    """
    What a run is to do.
    """

    who: str
    """`ours` or `script`."""
    edits: int
    slots: int
    """Tasks at once."""
    interval: float = 2.0
    """Seconds between two looks at a task."""
    url: str = ""
    """The service."""
    folder: str = ""
    """Where results go: each run has a folder of its own in this."""
    store: bool = False
    """Whether intents are kept on disk."""
    keys: bool = False
    """Whether jobs have keys: then each is looked for before it is sent, which the script does not do."""
    synced: bool = False
    """Whether the script brings its files to the disk, as the library does."""
    ticks: bool = False
    """Whether the loop's lag is taken."""
    large: bool = False
    """Whether 100 MB are downloaded beside, over and over."""
    least: float = LEAST
    """Seconds that tasks last, at least,"""
    most: float = MOST
    """and at most."""
    profile: str = ""
    """Where cProfile writes, if anywhere."""

    @property
    def large_url(self) -> str:
        """
        The large file.
        """
        return f"http://{urlsplit(self.url).netloc}/media/large.mp4"


@frozen
class Found:
    """
    What a run came to.
    """

    cpu: float
    """Seconds of the process."""
    wall: float
    """Seconds."""
    memory: float
    """Megabytes at the most."""
    late: tuple[float, float]
    """Seconds from a task's end to its being noticed: the median, and of which 99 of a hundred were fewer."""
    lag: tuple[float, float, float]
    """Milliseconds by which the loop was late: median, 99 of a hundred, most; 0 where it was not taken."""
    large: int = 0
    """How often the large file was downloaded."""
    requests: int = 0
    """By the service's count."""


@define
class Notes:
    """
    What is noted while a run lasts.
    """

    late: list[float] = field(factory=list)
    lag: list[float] = field(factory=list)
    large: int = 0

    def ended(self, at: float) -> None:
        """
        Note the end of a task, whose Unix time is given.
        """
        self.late.append(time.time() - at)


async def ours(plan: Plan, notes: Notes) -> None:
    """
    The way of the library, as its README has it; downloads run beside.
    """
    from kling_async import ApiKey, Edited, Job, KlingClient, PollPolicy, Removal, SqliteStore, Task, edit_many

    def jobs() -> Iterator[Job]:
        for number in range(plan.edits):
            key = f"spring-{number}" if plan.keys else None
            yield Job(CLIP % number, marks={0: [POINT]}, edit=Removal.of("the bird"), key=key)

    poll = PollPolicy(first=plan.interval, factor=1, ceiling=plan.interval)
    store = SqliteStore(Path(plan.folder, "intents.sqlite")) if plan.store else None
    client = KlingClient(ApiKey(KEY), base_url=plan.url, poll=poll, store=store)
    async with client, asyncio.TaskGroup() as group:

        async def save(task: Task) -> None:
            await client.download(task.video, Path(plan.folder, f"{task.task_id}.mp4"))

        async def large() -> None:
            await client.download(plan.large_url, Path(plan.folder, "large.mp4"), overwrite=True)

        async with watched(plan, notes, large), edit_many(client, jobs(), slots=plan.slots) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Edited), outcome
                assert outcome.task.updated_at is not None
                notes.ended(outcome.task.updated_at.timestamp())
                group.create_task(save(outcome.task))


async def script(plan: Plan, notes: Notes) -> None:
    """
    The plain script.
    """
    import aiohttp

    family = f"{plan.url}/v1/videos/multi-elements"
    at_once = asyncio.Semaphore(plan.slots)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def call(method: str, path: str, said: object = None) -> dict[str, object]:
            async with session.request(method, f"{family}{path}", json=said) as reply:
                reply.raise_for_status()
                answer = await reply.json()
            if answer["code"] != 0:
                raise RuntimeError(answer["message"])
            return answer["data"]

        async def save(url: str, path: Path) -> None:
            async with session.get(url) as reply:
                reply.raise_for_status()
                with path.open("wb") as file:
                    async for piece in reply.content.iter_chunked(1 << 16):
                        file.write(piece)
                    if plan.synced:
                        file.flush()
                        os.fsync(file.fileno())

        async def edit(number: int) -> None:
            async with at_once:
                opened = await call("POST", "/init-selection", {"video_url": CLIP % number})
                selected = {"session_id": opened["session_id"]}
                mark = {"frame_index": 0, "points": [{"x": POINT[0], "y": POINT[1]}]}
                await call("POST", "/add-selection", {**selected, **mark})
                prompt = {"edit_mode": "removal", "prompt": "Delete the bird from <<<video_1>>>", "duration": "5"}
                task = await call("POST", "", {**selected, **prompt, "external_task_id": f"spring-{number}"})
                while task["task_status"] not in {"succeed", "failed"}:
                    await asyncio.sleep(plan.interval)
                    task = await call("GET", f"/{task['task_id']}")
            notes.ended(task["updated_at"] / 1000)
            await save(task["task_result"]["videos"][0]["url"], Path(plan.folder, f"{task['task_id']}.mp4"))

        async def large() -> None:
            await save(plan.large_url, Path(plan.folder, "large.mp4"))

        async with watched(plan, notes, large):
            await asyncio.gather(*(edit(number) for number in range(plan.edits)))


@asynccontextmanager
async def watched(plan: Plan, notes: Notes, large: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """
    While it lasts the loop's lag is taken, and the large file is downloaded, as far as the plan says so.
    """

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            notes.lag.append(1000 * (time.perf_counter() - due))

    async def again() -> None:
        while True:
            await large()
            notes.large += 1

    beside = [asyncio.create_task(each()) for each, wanted in ((tick, plan.ticks), (again, plan.large)) if wanted]
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def at(share: float, numbers: Sequence[float]) -> float:
    """
    The number below which this share of them lies.
    """
    return sorted(numbers)[int(share * (len(numbers) - 1))] if numbers else 0.0


def most_memory() -> float:
    """
    Megabytes that this process ever took; 0 where the system does not say.
    """
    with suppress(OSError), Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    return 0.0


def child(plan: Plan) -> Found:
    """
    Do it in this process, on the client's core.
    """
    pin(client_core())
    settle_allocator()
    notes, way = Notes(), {"ours": ours, "script": script}[plan.who]
    cpu, wall = time.process_time(), time.perf_counter()
    with profiled(plan.profile):
        asyncio.run(way(plan, notes))
    return Found(
        cpu=time.process_time() - cpu,
        wall=time.perf_counter() - wall,
        memory=most_memory(),
        late=(at(0.5, notes.late), at(0.99, notes.late)),
        lag=(at(0.5, notes.lag), at(0.99, notes.lag), at(1, notes.lag)),
        large=notes.large,
    )


@contextmanager
def profiled(path: str) -> Iterator[None]:
    """
    Under cProfile, if a path is given: the CPU of the loop's thread.
    """
    if not path:
        yield
        return
    from cProfile import Profile

    profile = Profile(time.thread_time)
    with profile:
        yield
    profile.dump_stats(path)


def done(plan: Plan) -> Found:
    """
    Do it in a new process, with a new service, and hold it to what that charged.
    """
    from urllib.request import urlopen

    folder = mkdtemp(dir=plan.folder)
    with serving(plan.least, plan.most) as url:
        sent = orjson.dumps(asdict(evolve(plan, url=url, folder=folder))).decode()
        command = [sys.executable, "-m", "benchmarks.life", "--child", sent]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        with urlopen(f"{url}/truth") as reply:
            truth = orjson.loads(reply.read())["data"]
        saved = sum(path.stat().st_size == SMALL for path in Path(folder).glob("8*.mp4"))
    for path in Path(folder).iterdir():
        # Not removed before all is measured: for minutes ext4 goes through every inode that was just freed whenever a
        # file is created, which would be a quarter of the next run.
        os.truncate(path, 0)
    charged = truth["creates"], truth["once"], saved
    assert charged == (plan.edits,) * 3, f"{plan.who}: of {plan.edits} edits (sent, charged once, saved) {charged}"
    said = orjson.loads(run.stdout)
    lists = {name: tuple(value) for name, value in said.items() if isinstance(value, list)}
    return Found(**{**said, **lists, "requests": sum(truth["requests"].values())})


def measured(plan: Plan) -> Found:
    """
    Do it and print it.
    """
    found, ways = done(plan), [name for name in ("store", "keys", "synced", "large") if getattr(plan, name)]
    lag = "  lag p50 {:.1f}, p99 {:.1f}, most {:.1f} ms".format(*found.lag) if plan.ticks else ""
    told(
        f"{datetime.now(UTC):%H:%M:%S} {' '.join([plan.who, *ways]):<14} {plan.edits:,} edits, {plan.slots:,} at once:"
        f" {found.cpu:6.2f} s CPU, {found.wall:5.1f} s, {found.requests:,} requests, {found.memory:.0f} MB,"
        f" noticed after p50 {found.late[0]:.2f}, p99 {found.late[1]:.2f} s{lag}"
        f"{f', {found.large} times 100 MB' if plan.large else ''}"
    )
    return found


def both(plan: Plan, rounds: int) -> list[tuple[Found, Found]]:
    """
    Ours and the script, in turns.
    """
    return [(measured(evolve(plan, who="ours")), measured(evolve(plan, who="script"))) for _ in range(rounds)]


def lives(edits: int = EDITS, slots: int = 0, rounds: int = ROUNDS) -> Iterator[Row]:
    """
    The rows of whole lives: all tasks at once, of one to three minutes; then of seconds.
    """
    with TemporaryDirectory() as folder:
        plan = Plan("", edits, slots or edits, interval=5.0, folder=folder, least=60.0, most=180.0)
        pairs = both(plan, rounds)
        what = f"{edits:,} edits at once, whole life: "
        yield Row.of(f"{what}CPU / a plain aiohttp script", (a.cpu / b.cpu for a, b in pairs), 1.0, 0.5)
        yield Row.of(f"{what}requests / the script's", (a.requests / b.requests for a, b in pairs))
        yield Row.of(f"{what}seconds / the script's", (a.wall / b.wall for a, b in pairs))
        yield Row.of(f"{what}memory / the script's", (a.memory / b.memory for a, b in pairs))
        yield Row.of(f"{what}p99 of notice, in intervals", (a.late[1] / plan.interval for a, _ in pairs))
        yield Row.of("the same of the script", (b.late[1] / plan.interval for _, b in pairs))
        yield from brief(Plan("", edits, slots or BRIEF_SLOTS, folder=folder))


def brief(plan: Plan) -> Iterator[Row]:
    """
    The rows of tasks that take seconds, and of what else one may choose; each is measured once.
    """
    ((a, b),) = both(plan, 1)
    what = f"{plan.edits:,} edits of {plan.least:g} to {plan.most:g} s, {plan.slots:,} at once: CPU / the script's"
    yield Row(what, a.cpu / b.cpu)
    synced = measured(evolve(plan, who="script", synced=True))
    yield Row("the same CPU, where the script syncs its files too", a.cpu / synced.cpu)
    keyed, stored = (measured(evolve(plan, who="ours", **{name: True})) for name in ("keys", "store"))
    yield Row("the same CPU, each job with a key, looked for first", keyed.cpu / b.cpu)
    yield Row("the same CPU, intents in SQLite", stored.cpu / b.cpu)


def lags(edits: int = LAG_EDITS, slots: int = LAG_SLOTS, rounds: int = ROUNDS) -> Iterator[Row]:
    """
    The rows of the loop's lag.
    """
    ways = [(who, large) for large in (True, False) for who in ("ours", "script")]
    with TemporaryDirectory() as folder:
        plans = {way: Plan(way[0], edits, slots, folder=folder, ticks=True, large=way[1]) for way in ways}
        found = [{way: measured(plan) for way, plan in plans.items()} for _ in range(rounds)]
    for way in ways:
        who, large = way
        name = f"event loop's lag p99, {who}, {'while 100 MB come' if large else 'no large download'}"
        gate = 50.0 if way == ("ours", True) else None
        yield Row.of(name, (run[way].lag[1] for run in found), gate, unit=" ms")


def main() -> int:
    """
    Measure and print; the exit status is 1 where a gate is missed.
    """
    parser = ArgumentParser(prog="python -m benchmarks.life")
    parser.add_argument("what", nargs="?", choices=["lives", "lags"], help="by default both")
    for name, usual in (("edits", None), ("slots", None), ("rounds", ROUNDS)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--child", help="a plan; for this module's own use")
    given = parser.parse_args()
    if given.child:
        sys.stdout.buffer.write(orjson.dumps(asdict(child(Plan(**orjson.loads(given.child))))))
        return 0
    sizes = {name: getattr(given, name) for name in ("edits", "slots", "rounds") if getattr(given, name)}
    lines = list[Line]()
    if given.what != "lags":
        lines += printed(lives(**sizes))
    if given.what != "lives":
        lines += printed(lags(**sizes), head=not lines)
    return status(lines)


if __name__ == "__main__":
    sys.exit(main())
