"""
Workers of a batch that are killed, stopped and woken, and databases that are started anew, in the midst of a run.

What the simulator has charged is the judge, and it pays no heed to repeated ids: only the workers' own care stands
between a customer and a second charge. Each worker is a process of its own (tests/killing.py); who submits and asks
is this one, on trio.
"""

import sys
import time
from contextlib import asynccontextmanager, closing
from zlib import crc32

import pytest
from attrs import define, field

from kling_async.simulator import Shape, Simulator
from tests.commanding import serving
from tests.crashing import job
from tests.killing import BOUNDARIES, SENDING, STEPS, Crew, Order

pytest.importorskip("dbos")

from kling_async.dbos import DbosRunner, _runner
from kling_async.dbos._entries import workflow_id

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is sure that an owner has ended"),
]


def slow(test):
    """
    Marks a test that takes its time.
    """
    return pytest.mark.slow(pytest.mark.timeout(180)(test))


REPEATABLE = Shape(external_ids="repeatable")
EDITS, SLOTS, SECONDS = 24, 8, 0.3
HALF = SLOTS // 2


@pytest.fixture
def anyio_backend():
    """
    The workers are on asyncio, as they must be; whoever submits need not.
    """
    return "trio", {}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """
    A database of the test's own.
    """
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/batch.sqlite"
        return
    server, name = request.getfixturevalue("postgres"), f"kill{crc32(request.node.name.encode())}"
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.made.discard(name)


@pytest.fixture(autouse=True)
def _looks(monkeypatch):
    """
    Results are looked for more often than people would.
    """
    monkeypatch.setattr(_runner, "LOOK_MOST", _runner.LOOK_FIRST)


@define
class Batch:
    """
    Jobs, who does them, and who judges.
    """

    name: str
    runner: DbosRunner
    crew: Crew
    simulator: Simulator
    jobs: list
    slots: int
    unknown: int = 0
    """Jobs that were told to be in doubt."""
    held: dict = field(factory=dict)
    """Jobs that a worker had when it ended, or all of them when the database did, by its name."""

    async def submit(self):
        """
        Put all jobs into the queue.
        """
        assert len(self.jobs) == await self.runner.submit_many((each, f"{each.key}.mp4") for each in self.jobs)

    async def holds(self, *names, until=None):
        """
        Take note of what workers have when one of them, or what all depend on, has ended.
        """
        holders = await self.runner._engine.holders()
        ids = {each for name in names for each in holders.get(self.crew.places[name], ())}
        entries = await self.runner._records.entries(states=["waiting", "running"])
        held = {each.key for each in entries if workflow_id(each.account, each.job, each.attempt) in ids}
        self.held[until or names[0]] = held

    async def ended(self):
        """
        How the jobs have ended, when all have.
        """
        return [(await self.runner.result(each.key)).state for each in self.jobs]

    async def settled(self):
        """
        Let them end. Those in doubt are told, looked for again, and sent again only when nobody is left who may send.
        """
        states = await self.ended()
        self.unknown = states.count("unknown")
        assert {"done": len(states) - self.unknown, "unknown": self.unknown} == {
            state: states.count(state) for state in ("done", "unknown")
        }, states
        if self.unknown:
            for name in self.crew.processes:
                self.crew.kill(name)
            self.crew.start("last", on_unknown="resend")
            assert self.unknown == await self.runner.resume()
            await self.ended()

    async def judge(self, *, writing=False):
        """
        Nothing is lost, nothing paid twice, no more ran than may, and what is said to be spent is what was.

        Args:
            writing: Whether a worker may still be at a file whose job another has ended.
        """
        results = {result.key: result for result in await self.runner.results()}
        charges, files = dict(self.simulator.charges), {path.name for path in self.runner.out.iterdir()}
        named = {each.key: {f"{each.key}.mp4", f"{each.key}.mp4.json"} for each in self.jobs}
        lost = [key for key, names in named.items() if results[key].state != "done" or not names <= files]
        twice = [key for key, times in charges.items() if times > 1]
        creates = [seen.endpoint for seen in self.simulator.log].count("create")
        self._tell(len(lost), len(twice), creates - len(self.jobs), await self._recovery())
        assert ([], []) == (lost, twice)
        assert {each.external_task_id: 1 for each in self.jobs} == charges
        assert writing or set() == files.difference(*named.values())
        assert self.slots >= self.simulator.most_running
        status = await self.runner.status()
        assert sum(result.units for result in results.values()) == status.spent
        assert {"done": len(self.jobs)} == status.states

    async def _recovery(self):
        """
        Seconds from the end of a worker to that of the last job that it had.
        """
        entries = {each.key: each for each in await self.runner._records.entries()}
        ends = self.crew.ends
        seconds = {name: [entries[key].ended_at - ends[name] for key in keys] for name, keys in self.held.items()}
        told = [f"{len(each)} jobs of {name} in {max(each, default=0):.1f} s" for name, each in seconds.items()]
        return ", ".join(told) or "none"

    def _tell(self, lost, twice, repeated, recovery):
        sys.stdout.write(
            f"\n{self.name}: {len(self.jobs)} edits, lost {lost}, charged twice {twice}, creates repeated {repeated}, "
            f"told as unknown {self.unknown}, at most {self.simulator.most_running} ran at once, recovered {recovery}\n"
        )


@pytest.fixture
def begun(request, database, tmp_path):
    """
    Opens a batch.
    """

    @asynccontextmanager
    async def begun(edits=EDITS, slots=SLOTS, seconds=SECONDS):
        with serving(task_seconds=seconds, quota=1000, shape=REPEATABLE) as served:
            out = tmp_path / "out"
            order = Order(name="", database=database, base_url=served.base_url, out=str(out))
            with closing(Crew(order)) as crew:
                async with DbosRunner(database, slots=slots, out=out) as runner:
                    jobs = [job(str(number)) for number in range(edits)]
                    name = request.node.name.removeprefix("test_")
                    yield Batch(name, runner, crew, served.simulator, jobs, slots)

    return begun


@pytest.fixture
async def two(begun):
    """
    A batch with two workers that have begun.
    """
    async with begun() as batch:
        batch.crew.start("first")
        batch.crew.start("second")
        batch.crew.works("first", "second")
        await batch.submit()
        yield batch


async def test_f24_one_of_two_workers_is_killed_and_never_comes_back(two):
    """
    In the midst of a run: the other takes over what it had.
    """
    victim = two.crew.until(SLOTS, did="submit")["who"]
    two.crew.kill(victim)
    await two.holds(victim)
    await two.settled()
    await two.judge()


@pytest.mark.parametrize("step", ["prepare", "submit", "finish"])
@slow
async def test_a_worker_that_was_killed_in_the_midst_of_a_run_is_started_again(begun, step):
    """
    Alone, it goes on with what it had.
    """
    async with begun() as batch:
        await batch.submit()
        batch.crew.start("first")
        batch.crew.works("first")
        batch.crew.until(HALF, did=step)
        batch.crew.kill("first")
        await batch.holds("first")
        batch.crew.start("second")
        await batch.settled()
        await batch.judge()


@pytest.mark.parametrize("point", [*BOUNDARIES, *SENDING, "inside reserve"])
@slow
async def test_a_worker_that_was_killed_at_a_boundary_is_followed(begun, point):
    """
    Before and after each step, and around the sending of a create: the next worker does it once more, and pays once.
    """
    async with begun() as batch:
        await batch.submit()
        batch.crew.start("first", point=point, nth=HALF)
        batch.crew.until(at=point)
        batch.crew.gone("first")
        await batch.holds("first")
        batch.crew.start("second")
        await batch.settled()
        assert batch.unknown >= (point == "before send")
        await batch.judge()


@pytest.mark.parametrize("point", [*BOUNDARIES, *SENDING, "inside reserve"])
@slow
async def test_f25_a_worker_that_was_stopped_is_followed_and_woken(begun, database, point):
    """
    Its sign of life is missed and another does its jobs; woken, it goes on where it was, and nothing is paid twice.
    """
    if point == "inside reserve" and database.startswith("sqlite"):
        pytest.skip("a process that is stopped while it writes to a file keeps all others from it")
    async with begun() as batch:
        batch.crew.start("first", point=point, nth=HALF, stops=True)
        batch.crew.works("first")
        await batch.submit()
        batch.crew.until(at=point)
        batch.crew.stop("first")
        await batch.holds("first")
        batch.crew.start("second")
        states = await batch.ended()
        assert [] == [state for state in states if state not in {"done", "unknown"}]
        batch.crew.wake("first")
        batch.crew.until(left=point)
        await batch.settled()
        await batch.judge(writing=True)


@slow
async def test_workers_that_are_killed_again_and_again_come_to_an_end(begun):
    """
    Two work at a time; whoever is killed is replaced.
    """
    async with begun(edits=2 * EDITS) as batch:
        batch.crew.start("0")
        batch.crew.start("1")
        await batch.submit()
        for number in range(2, 8):
            victim = batch.crew.until(SLOTS, did=STEPS[number % len(STEPS)])["who"]
            batch.crew.kill(victim)
            await batch.holds(victim)
            batch.crew.start(str(number))
        await batch.settled()
        await batch.judge()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@slow
async def test_f28_postgres_is_started_anew_in_the_midst_of_a_run(two, postgres, mode):
    """
    In good order or by a crash: both workers go on, or are followed.
    """
    for _ in range(2):
        two.crew.until(HALF, did="submit")
        await two.holds("first", "second", until="the database")
        postgres.restart(mode)
        two.crew.ends["the database"] = time.time()
    await two.settled()
    await two.judge()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@slow
async def test_f28_a_worker_is_killed_while_postgres_is_started_anew(two, postgres):
    """
    What is left takes over as soon as the database is back.
    """
    victim = two.crew.until(HALF, did="submit")["who"]
    postgres.stop("immediate")
    two.crew.kill(victim)
    postgres.start()
    await two.holds(victim)
    await two.settled()
    await two.judge()


@pytest.mark.parametrize("killed", [False, True])
@slow
async def test_two_workers_never_run_more_tasks_than_may_run(begun, killed):
    """
    With a limit of 50 over both of them the service never sees 51, nor while those of a killed one run on.
    """
    async with begun(edits=150 if killed else 240, slots=50, seconds=4.0 if killed else 1.5) as batch:
        batch.crew.start("first")
        batch.crew.start("second")
        batch.crew.works("first", "second")
        await batch.submit()
        if killed:
            victim = batch.crew.until(50, did="submit")["who"]
            batch.crew.kill(victim)
            await batch.holds(victim)
        await batch.settled()
        await batch.judge()
        assert {"first", "second"} == set(batch.crew.parts)
