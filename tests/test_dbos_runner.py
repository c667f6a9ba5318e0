"""
DbosRunner: who submits and asks, on either loop, and who works, with the engine as it is.
"""

import ast
import importlib.util
import subprocess
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Event

import anyio
import orjson
import pytest
from anyio.to_thread import run_sync

from kling_async import (
    Addition,
    ClosedError,
    Image,
    InvalidInputError,
    Job,
    KeyConflictError,
    KlingClient,
    NotFoundError,
    StoreError,
    dbos,
)
from kling_async.dbos import DbosRunner, _runner
from kling_async.dbos._database import Lock
from kling_async.dbos._results import INDEX, beside
from kling_async.dbos._work import LINKS
from kling_async.simulator import Fault, Simulator
from kling_async.stores import MemoryStore
from tests.batching import (
    CLIP,
    KEY,
    given_url,  # noqa: F401 - a fixture
    hurry,
    in_work,
    job,
    runner_of,
    until,
)
from tests.commanding import picture

pytestmark = pytest.mark.real_clock
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ID = job().external_task_id
CALLS = {
    "submit": lambda runner: runner.submit(job()),
    "submit_many": lambda runner: runner.submit_many([]),
    "result": lambda runner: runner.result("a"),
    "get": lambda runner: runner.get("a"),
    "results": lambda runner: runner.results(),
    "kept": lambda runner: runner.kept(),
    "batches": lambda runner: runner.batches(),
    "status": lambda runner: runner.status(),
    "retry": lambda runner: runner.retry(),
    "cancel": lambda runner: runner.cancel(),
    "resume": lambda runner: runner.resume(),
    "set_budget": lambda runner: runner.set_budget(1),
    "write_index": lambda runner: runner.write_index(),
    "serve": lambda runner: runner.serve(),
}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    hurry(monkeypatch)


def simulating(*faults, **settings):
    return Simulator(**{"task_seconds": 0, "faults": faults, **settings})


async def states(runner, keys):
    """
    How jobs have ended, when they all have.
    """
    return [(await runner.result(key)).state for key in keys]


@pytest.mark.parametrize("name", CALLS)
async def test_it_is_used_inside_its_context_alone(tmp_path, name):
    """
    Neither before nor after, and it opens once.
    """
    runner = runner_of(tmp_path)
    method = (
        "working" if name == "serve" else "submit_many" if name == "submit" else "get" if name == "result" else name
    )
    text = rf"DbosRunner\.{method}\(\) cannot be called: use it inside `async with`"
    with pytest.raises(ClosedError, match=text):
        await CALLS[name](runner)
    async with runner:
        with pytest.raises(ClosedError, match="this DbosRunner is open: it opens once, make another"):
            await runner.__aenter__()
    with pytest.raises(ClosedError, match=text):
        await CALLS[name](runner)
    with pytest.raises(ClosedError, match="this DbosRunner is closed"):
        await runner.__aenter__()


async def test_one_that_could_not_be_opened_may_be_tried_again(tmp_path):
    """
    When what stood in the way is gone.
    """
    (tmp_path / "spring").write_text("in the way")
    runner = runner_of(tmp_path, url=f"sqlite:///{tmp_path}/spring/batch.sqlite")
    with pytest.raises(StoreError):
        await runner.__aenter__()
    (tmp_path / "spring").unlink()
    async with runner:
        assert 0 == (await runner.status()).total


def test_every_call_was_tried():
    """
    Of those that need the context.
    """
    calls = {name for name, value in vars(DbosRunner).items() if callable(value) and not name.startswith("_")}
    assert calls - {"exists", "working", "account", "client", "gate"} == set(CALLS)


@pytest.mark.parametrize(
    "named, field",
    [
        ({"account": "sk-123 "}, "account"),
        ({"slots": 0}, "slots"),
        ({"lease": 0}, "lease"),
        ({"patience": -1}, "patience"),
        ({"polling": "1"}, "polling"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, named, field):
    """
    Before anything is made.
    """
    with pytest.raises(InvalidInputError) as caught:
        runner_of(tmp_path, **named)
    assert field == caught.value.field
    assert not list(tmp_path.iterdir())


def test_it_shows_no_password():
    """
    Nor any key, for it has none.
    """
    shown = repr(DbosRunner("postgresql://me:secret@host/batch", account="studio"))
    assert "DbosRunner(Database(postgresql+psycopg://me:***@host/batch), account=studio)" == shown


def test_clients_are_made_from_the_environment(monkeypatch):
    """
    Unless another way is said; each with the store of the batch.
    """
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    made = _runner._from_env(store := MemoryStore())
    assert isinstance(made, KlingClient)
    assert store is made._store


async def test_jobs_are_put_into_the_queue_once(tmp_path, url, monkeypatch):
    """
    However many, and however often; another edit under the same key is refused.
    """
    monkeypatch.setattr(_runner, "CHUNK", 2)
    async with runner_of(tmp_path, url=url) as runner:
        assert 5 == await runner.submit_many((job(key), f"{key}.mp4") for key in "abcde")
        assert 1 == await runner.submit_many([(job("a"), None), (job("f"), None)])
        await runner.submit(job("a"))
        with pytest.raises(KeyConflictError):
            await runner.submit(job("a", "the stones"))
        status = await runner.status()
        assert (6, 6, 5) == (status.waiting, status.total, status.slots)
        assert ["a.mp4", f"{job('f').external_task_id}.mp4"] == [(await runner.get(key)).output for key in "af"]
        assert 6 == len(await run_sync(runner._engine.client.list_workflows))


async def test_large_pictures_go_in_once(tmp_path, url):
    """
    The database does not grow with the jobs that show one.
    """
    image = Image.from_bytes(picture() + bytes(100_000))
    edit = Addition.of("the hat", image)
    jobs = [Job(CLIP, marks={0: [(0.5, 0.5)]}, edit=edit, key=f"k{number}") for number in range(20)]
    async with runner_of(tmp_path, url=url) as runner:
        assert 20 == await runner.submit_many((each, None) for each in jobs)
        entries = await runner._records.entries()
        assert jobs == sorted((entry.job for entry in entries), key=jobs.index)
        assert 1 == await runner._database.read(
            lambda connection: connection.exec_driver_sql(
                f"SELECT COUNT(*) FROM {'' if runner._database.on_file else 'kling.'}kling_pictures"
            ).scalar()
        )


async def test_a_job_needs_a_key_and_a_plain_name(tmp_path):
    """
    Nothing of a list is put in otherwise.
    """
    async with runner_of(tmp_path) as runner:
        for wrong, output, field in (
            (job(None), None, "key"),
            (job("b"), "../b.mp4", "output"),
            (job("b"), "/etc/b.mp4", "output"),
            (job("b"), "b.txt", "output"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                await runner.submit_many([(job("a"), None), (wrong, output)])
            assert field == caught.value.field
        assert 0 == (await runner.status()).total


async def test_jobs_are_looked_at_by_key(tmp_path, url):
    """
    One, some, or all of a batch, and what is told without reading their edits.
    """
    async with runner_of(tmp_path, url=url) as runner:
        for batch, key in (("spring", "a"), ("spring", "b"), ("autumn", "c")):
            await runner.submit(job(key), batch=batch)
        assert 1 == await runner.cancel(["b", "x"])
        with pytest.raises(NotFoundError, match="no job has the key 'x'"):
            await runner.result("x")
        assert ("waiting", "cancelled") == ((await runner.get("a")).state, (await runner.result("b")).state)
        assert ["a", "b"] == [result.key for result in await runner.results(batch="spring")]
        assert ["b"] == [result.key for result in await runner.results(states=["cancelled"])]
        assert ["c"] == [result.key for result in await runner.results(keys=["c"])]
        assert {"a": "spring", "b": "spring"} == {k: v.batch for k, v in (await runner.kept(batch="spring")).items()}
        assert ("autumn", "spring") == await runner.batches()
        assert (1, 1) == ((await runner.status(batch="autumn")).total, await runner.retry(batch="spring"))
        assert {"waiting": 3} == (await runner.status()).states


async def test_whether_there_is_a_batch_is_seen_without_making_one(tmp_path, url):
    """
    A look leaves nothing behind.
    """
    runner = runner_of(tmp_path, url=url)
    assert not await runner.exists()
    assert not list(tmp_path.glob("batch.sqlite"))
    async with runner:
        assert await runner.exists()
    assert await runner_of(tmp_path, url=url).exists()


@pytest.mark.parametrize("units", [-1, Decimal("NaN"), Decimal("Infinity"), "many", b"5", [1]])
async def test_a_budget_is_a_number_of_units(tmp_path, units):
    """
    From nothing upwards.
    """
    async with runner_of(tmp_path) as runner:
        with pytest.raises(InvalidInputError, match=r"^budget: must be a number of units from 0, not "):
            await runner.set_budget(units)
        for good in (0, Decimal("2.5"), None):
            await runner.set_budget(good)
        assert (await runner.status(batch="default")).budget is None


async def test_work_needs_asyncio(tmp_path, anyio_backend_name):
    """
    On trio it is said what can be done instead, and nothing is begun.
    """
    async with runner_of(tmp_path, simulating()) as runner:
        if anyio_backend_name == "trio":
            with pytest.raises(RuntimeError, match="let workers run as processes apart"):
                await runner.serve()
        assert () == tuple(tmp_path.glob("*-locks/w*"))


@on_asyncio
async def test_a_batch_comes_to_its_results(tmp_path, url):
    """
    A file and a record for each, and an index of them; nothing in the folder is a secret.
    """
    clip = f"{CLIP}?sign=secret"
    async with in_work(tmp_path, simulating(), url=url) as runner:
        await runner.set_budget(9)
        await runner.submit_many((job(key, clip=clip), f"{key}.mp4") for key in "abc")
        assert ["done"] * 3 == await states(runner, "abc")
        index = await runner.write_index(batch="default")
        status = await runner.status()
    out = tmp_path / "out"
    assert out / INDEX == index
    lines = [orjson.loads(line) for line in index.read_bytes().splitlines()]
    assert [(1, "a"), (2, "b"), (3, "c")] == [(line["number"], line["key"]) for line in lines]
    files = [out / f"{key}.mp4" for key in "abc"]
    assert {INDEX, *(path.name for path in files), *(beside(path).name for path in files)} == {
        path.name for path in out.iterdir()
    }
    told = [orjson.loads(beside(path).read_bytes()) for path in files]
    assert [line["sha256"] for line in lines] == [each["sha256"] for each in told]
    text = index.read_text() + str(told)
    assert "secret" not in text
    assert KEY not in text
    assert (3, Decimal(9), Decimal(9), None) == (status.done, status.spent, status.budget, status.paused)


@on_asyncio
async def test_what_ends_before_the_paid_call_is_begun_again(tmp_path):
    """
    Declined by a gate, and refused by the budget: nothing was paid, and each is paid once in the end.
    """
    said = {"b": "too dark"}

    async def gate(asked, _selection):
        await anyio.lowlevel.checkpoint()
        return said.pop(asked.key, None)

    simulator = simulating()
    async with in_work(tmp_path, simulator, gate=gate) as runner:
        await runner.set_budget(2)
        await runner.submit_many((job(key), None) for key in "ab")
        assert ["refused", "declined"] == await states(runner, "ab")
        assert {} == simulator.charges
        await runner.set_budget(6)
        assert 1 == await runner.resume()
        assert 1 == await runner.retry(["b"])
        assert ["done", "done"] == await states(runner, "ab")
    assert [1, 1] == list(simulator.charges.values())


@on_asyncio
async def test_an_empty_balance_pauses_the_batch_and_resuming_goes_on(tmp_path):
    """
    No job fails for it; the status says why nothing moves.
    """
    simulator = simulating(Fault("create", "code", code=1102))
    async with in_work(tmp_path, simulator) as runner:
        await runner.submit_many((job(key), None) for key in "abc")

        async def paused():
            return (await runner.status()).paused

        await until(paused)
        assert (await runner.status()).paused.startswith("AccountError: 1102")
        assert 0 == await runner.resume()
        assert (await runner.status()).paused is None
        assert ["done"] * 3 == await states(runner, "abc")
    assert [1] * 3 == list(simulator.charges.values())


@on_asyncio
async def test_resuming_begins_what_is_owed_and_nothing_that_is_paid_anew(tmp_path):
    """
    What could not be fetched is fetched; a task that failed, and what failed before it was paid, is left alone.
    """
    faults = [Fault("init", "code", code=1201), Fault("task", "failed")]
    simulator = simulating(*faults)
    async with in_work(tmp_path, simulator) as runner:
        for key in "abc":
            if key == "c":
                simulator.script(Fault("media", "status", status=403, times=LINKS))
            await runner.submit(job(key))
            assert ["failed"] == await states(runner, key)
        assert [("prepare", None), ("finish", True), ("finish", None)] == [
            (entry.outcome["stage"], entry.outcome.get("task_failed")) for entry in await runner._records.entries()
        ]
        assert 1 == await runner.resume()
        assert ["failed", "failed", "done"] == await states(runner, "abc")
        assert 2 == await runner.retry()
        assert ["done"] * 3 == await states(runner, "abc")
    second = job("b~2").external_task_id
    assert {ID: 1, job("b").external_task_id: 0, second: 1, job("c").external_task_id: 1} == simulator.charges


@on_asyncio
async def test_a_sweep_fetches_what_could_not_be_fetched(tmp_path, monkeypatch):
    """
    Without being asked, before its 30 days are over; old rows of the engine go at the same time.
    """
    monkeypatch.setattr(_runner, "SWEEP", 0.05)
    gone = Fault("media", "status", status=403, times=LINKS)
    simulator = simulating(gone)
    async with in_work(tmp_path, simulator) as runner:
        await runner.submit(job())

        async def done():
            return (await runner.get("a")).state == "done"

        await until(done)
        assert 2 == (await runner._records.get("a")).attempt
    assert {ID: 1} == simulator.charges


@on_asyncio
async def test_a_body_that_fails_fails_with_its_own_error(tmp_path):
    """
    Not with a group of them.
    """
    with pytest.raises(NotFoundError):
        async with in_work(tmp_path, simulating()) as runner:
            await runner.result("x")


@on_asyncio
async def test_a_worker_that_loses_its_place_ends(tmp_path, monkeypatch):
    """
    With an error that says so, and its body is cut off.
    """
    async with runner_of(tmp_path, simulating()) as runner:
        taken = Lock.taken

        def lost(lock):
            return lock._name != "w0" and taken(lock)

        with pytest.raises(StoreError, match="place w0 is held by another worker now"):
            async with runner.working():
                monkeypatch.setattr(Lock, "taken", lost)
                await anyio.sleep_forever()


@on_asyncio
async def test_serving_lasts_until_it_is_cancelled(tmp_path):
    """
    And leaves nothing behind that would keep the next from working.
    """
    simulator = simulating()
    async with runner_of(tmp_path, simulator) as runner:
        for key in "ab":
            await runner.submit(job(key))
            async with anyio.create_task_group() as group:
                group.start_soon(runner.serve)
                assert ["done"] == await states(runner, key)
                group.cancel_scope.cancel()


def served(folder, simulator, ready, stop):
    """
    A worker on asyncio, in a thread of its own, until it is told to stop.
    """

    async def work():
        async with in_work(folder, simulator):
            ready.set()
            await run_sync(stop.wait)

    anyio.run(work)


async def test_either_loop_submits_and_asks_while_workers_run_elsewhere(tmp_path):
    """
    All that is not work goes through the database.
    """
    simulator, ready, stop = simulating(), Event(), Event()
    async with anyio.create_task_group() as group:
        group.start_soon(run_sync, partial(served, tmp_path, simulator, ready, stop))
        try:
            async with runner_of(tmp_path) as runner:
                await runner.submit_many((job(key), f"{key}.mp4") for key in "abc")
                with anyio.fail_after(15):
                    assert ["done"] * 3 == await states(runner, "abc")
                assert (3, Decimal(9)) == ((await runner.status()).done, (await runner.status()).spent)
        finally:
            stop.set()
    assert [1] * 3 == list(simulator.charges.values())


def test_without_the_engine_the_extra_is_named(monkeypatch):
    """
    Where DBOS is not installed.
    """
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dbos" else found(name))
    with pytest.raises(InvalidInputError, match=r"^dbos: is not installed: pip install 'kling-async\[dbos\]'$"):
        importlib.reload(dbos)


def test_without_the_engine_the_rest_of_the_package_is_there():
    """
    And what needs it says so when it is asked for.
    """
    script = (
        "import sys\n"
        "sys.modules['dbos'] = sys.modules['sqlalchemy'] = None\n"
        "from kling_async import Job, manifest\n"
        "try:\n"
        "    import kling_async.dbos\n"
        "except (ImportError, ValueError) as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "InvalidInputError\n" == done.stdout


def test_what_is_offered_is_there():
    """
    A tuple of names, and no other module of ours imports this one but the command line.
    """
    assert all(hasattr(dbos, name) for name in dbos.__all__)
    root = Path(dbos.__file__).parents[1]
    users = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kling_async.dbos")
    }
    assert users <= {"cli"}
