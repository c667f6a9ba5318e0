"""
Batches in a folder of one's own: a database, jobs, a simulator, and a worker with or without the engine.

What begins with `in_` is a context; `url` is a fixture for the files that import it. The engine works in one place of
a process at a time; `in_work` always ends it.
"""

from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from attrs import define, field

from kling_async import ApiKey, Job, KlingClient, PollPolicy, Removal, RetryPolicy
from kling_async.dbos import DbosRunner, _runner, _work
from kling_async.dbos._account import Account
from kling_async.dbos._database import Database
from kling_async.dbos._entries import Wish
from kling_async.dbos._fleet import Fleet
from kling_async.dbos._money import Money
from kling_async.dbos._records import Records
from kling_async.dbos._work import Worker
from kling_async.simulator import Simulator

KEY = "sk-canary-4711"
CLIP = "https://example.com/clip.mp4"
SPOT = {0: [(0.5, 0.5)]}
SOON = 15.0
"""Seconds in which whatever is waited for must have come."""


def job(key="a", what="the bird", *, clip=CLIP, **more):
    """
    A removal.
    """
    return Job(clip, marks=SPOT, edit=Removal.of(what, **more), key=key)


def wish(key="a", what="the bird", *, number=1, **more):
    """
    A job to be added.
    """
    return Wish(job=job(key, what, **more), output=f"{key}.mp4", number=number)


def url_of(folder):
    return f"sqlite:///{folder / 'batch.sqlite'}"


def emptied(server):
    """
    A database on a server, without whatever an earlier test has left there.
    """
    url = server.url("batches")
    for schema in ("kling", "dbos"):
        server.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE", database="batches")
    return url


@pytest.fixture(name="url", params=["sqlite", "postgres"])
def given_url(request, tmp_path):
    """
    A database of one's own, on a file and on a server.
    """
    return url_of(tmp_path) if request.param == "sqlite" else emptied(request.getfixturevalue("postgres"))


def hurry(monkeypatch):
    """
    Waits that make no difference to what is tested.
    """
    for module, names in (
        (_work, ("AGAIN_FIRST", "AGAIN_MOST", "LOOK", "QUOTA_WAIT")),
        (_runner, ("LOOK_FIRST", "LOOK_MOST")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(_runner, "Fleet", partial(Fleet, beat=0.02))


async def until(holds, *given):
    """
    Return when something holds.
    """
    with anyio.fail_after(SOON):
        while not await holds(*given):  # noqa: ASYNC110 - what is waited for is elsewhere
            await anyio.sleep(0.02)


def client_of(simulator, store=None, *, key=KEY, **more):
    """
    A client of the simulator that does not wait long.
    """
    policies = {"retry": RetryPolicy(base=0.01, doubt=0.1, attempts=1), "poll": PollPolicy(first=0.05, ceiling=0.1)}
    return KlingClient(ApiKey(key), transport=simulator.transport(), store=store, **{**policies, **more})


@define
class Told:
    """
    An engine that only remembers of what it was told.
    """

    ids: list = field(factory=list)

    turns: list = field(factory=list)

    def __call__(self, _connection, key, attempt, workflow_id, turn):
        self.turns.append(turn)
        self.ids.append((key, attempt, workflow_id))


@define
class Kept:
    """
    A batch's database, without the engine.
    """

    database: Database
    account: Account
    records: Records
    money: Money
    told: Told = field(factory=Told)

    async def add(self, *wishes, batch="default"):
        """
        Add jobs; how many were new.
        """
        return await self.records.add(batch, wishes, self.told)

    async def again(self, key="a"):
        """
        Begin a job once more; whether it was.
        """
        return bool(await self.records.again([await self.records.get(key)], self.told))

    async def spent(self, batch=None):
        """
        What the batch has spent.
        """
        return (await self.records.counts(batch)).spent

    async def state(self, key="a"):
        """
        How a job stands.
        """
        return (await self.records.get(key)).state


@asynccontextmanager
async def in_database(url, *, account="default", slots=None):
    """
    The database with our tables.
    """
    database = Database(url)
    kept = Kept(database, Account(database, account), Records(database, account), Money(database, account))
    try:
        await kept.account.make(slots)
        yield kept
    finally:
        database.close()


@define
class Bench:
    """
    A worker without the engine: its four steps are taken by hand.
    """

    kept: Kept
    worker: Worker
    simulator: Simulator
    resized: list

    @property
    def charges(self):
        """
        How often each job was charged, by external id.
        """
        return dict(self.simulator.charges)

    @property
    def calls(self):
        """
        The endpoints that were called.
        """
        return [seen.endpoint for seen in self.simulator.log]

    async def entry(self, key="a"):
        return await self.kept.records.get(key)

    async def prepared(self, key="a"):
        return await self.worker.prepare(await self.entry(key))

    async def done(self, key="a"):
        """
        All steps of a job as the engine takes them; its outcome, with its state.
        """
        entry = await self.entry(key)
        prepared, submitted = await self.worker.prepare(entry), {}
        reserved = prepared if "ended" in prepared else await self.worker.reserve(entry, prepared)
        if "ended" not in reserved:
            submitted = await self.worker.submit(entry, prepared)
        await self.worker.finish(entry, {**prepared, **reserved}, submitted)
        ended = await self.entry(key)
        return {"state": ended.state, **ended.outcome}


@asynccontextmanager
async def in_bench(
    folder, *wishes, simulator=None, gate=None, patience=60.0, slots=None, budget=None, store=None, **settings
):
    """
    A worker with its jobs, on a SQLite file.
    """
    simulator = simulator or Simulator(task_seconds=0)
    resized = []

    async def resize(number):
        resized.append(number)

    async with in_database(url_of(folder), slots=slots) as kept:
        await kept.add(*(wishes or (wish(),)))
        if budget is not None:
            await kept.money.set_budget("default", budget)
        async with client_of(simulator, store, **settings) as client:
            known = {"records": kept.records, "money": kept.money, "account": kept.account}
            worker = Worker(client, **known, out=folder / "out", gate=gate, resize=resize, patience=patience)
            yield Bench(kept, worker, simulator, resized)


def runner_of(folder, simulator=None, *, url=None, **more):
    """
    A runner whose workers speak to the simulator.
    """
    known = {"out": folder / "out", "polling": 0.05}
    if simulator is not None:
        known["client"] = lambda store: client_of(simulator, store)
    return DbosRunner(url or url_of(folder), **{**known, **more})


@asynccontextmanager
async def in_work(folder, simulator, **more):
    """
    An open runner that works.
    """
    async with runner_of(folder, simulator, **more) as runner, runner.working():
        yield runner
