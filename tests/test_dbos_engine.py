"""
DBOS under a batch: what it is told, what it writes down, and who goes on with whose work.
"""

import asyncio
import logging
import pickle
from base64 import b64encode
from contextlib import asynccontextmanager

import anyio
import dbos
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from kling_async import ClosedError, StoreError
from kling_async.dbos import _engine
from kling_async.dbos._database import Database
from kling_async.dbos._engine import Engine, check_loop
from kling_async.simulator import Fault, Simulator
from tests.batching import (
    KEY,
    given_url,  # noqa: F401 - a fixture
    hurry,
    in_work,
    job,
    runner_of,
    until,
)

pytestmark = pytest.mark.real_clock
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ID = job().external_task_id
PICKLED = b64encode(pickle.dumps({"a": 1}))[:4].decode()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    """
    And an engine that is gone after each test, whatever it did.
    """
    hurry(monkeypatch)
    yield
    assert _engine._here.worker is None
    assert dbos._dbos._dbos_global_instance is None


@asynccontextmanager
async def in_engine(url, *, slots=5):
    """
    An engine with its tables, that does not work.
    """
    database = Database(url)
    engine = Engine(database, "kling-default")
    await engine.make(slots, polling=0.05)
    yield engine
    database.close()


def rows(runner, table):
    """
    What the engine has written down.
    """
    database = runner._database
    name = table if database.on_file else f"dbos.{table}"
    with database.engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()]


def steps_of(runner):
    """
    The names of the steps of each attempt, in their order.
    """
    found = {}
    for row in sorted(rows(runner, "operation_outputs"), key=lambda row: row["function_id"]):
        found.setdefault(row["workflow_uuid"], []).append(row["function_name"])
    return found


def all_rows(runner):
    """
    All that is written down anywhere, ours included.
    """
    database = runner._database
    seen = sa.inspect(database.pool)
    schemas = [None] if database.on_file else ["dbos", "kling"]
    names = [(schema, name) for schema in schemas for name in seen.get_table_names(schema=schema)]
    with database.pool.connect() as connection:
        tables = [sa.Table(name, sa.MetaData(), autoload_with=connection, schema=schema) for schema, name in names]
        return {table.name: connection.execute(table.select()).all() for table in tables}


def concurrency(engine):
    """
    How many jobs the engine lets run at once.
    """
    return engine.client.retrieve_queue(engine.queue).global_concurrency


def gate_of(*steps):
    """
    A gate that raises what is an error, and waits for what is an event, one a call; then it agrees.
    """
    left = list(steps)

    async def gate(_job, _selection):
        step = left.pop(0) if left else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step.wait()

    return gate


async def test_work_needs_asyncio(anyio_backend_name):
    """
    On trio it is said what can be done instead.
    """
    await anyio.lowlevel.checkpoint()
    if anyio_backend_name == "asyncio":
        check_loop()
    else:
        with pytest.raises(RuntimeError, match="DBOS works on asyncio alone: submit and ask from here"):
            check_loop()


@on_asyncio
async def test_the_engine_keeps_plain_json_and_no_secret(tmp_path, url):
    """
    Keys and numbers go in, and what each step came to; no key of the account, no pickle.
    """
    async with in_work(tmp_path, Simulator(task_seconds=0), url=url) as runner:
        await runner.submit(job())
        assert "done" == (await runner.result("a")).state

        async def settled():
            await anyio.lowlevel.checkpoint()
            return [row["status"] for row in rows(runner, "workflow_status")] == ["SUCCESS"]

        await until(settled)
        [workflow] = rows(runner, "workflow_status")
        steps, everything = rows(runner, "operation_outputs"), all_rows(runner)
    assert {
        "workflow_uuid": f"edit-default-{ID}-1",
        "name": "kling_edit",
        "queue_name": "kling-default",
        "executor_id": "w0",
        "application_version": "1",
        "serialization": "portable_json",
    }.items() <= workflow.items()
    assert ["prepare", "submit"] == [step["function_name"] for step in steps]
    assert {"portable_json"} == {step["serialization"] for step in steps}
    assert ['{"namedArgs":{},"positionalArgs":["a",1]}'] == [row.inputs for row in everything["workflow_input"]]
    assert {"kling_jobs", "workflow_status", "operation_outputs"} <= everything.keys()
    assert KEY not in str(everything)
    assert PICKLED not in str(everything)


@on_asyncio
async def test_a_worker_that_leaves_is_followed_by_the_next(tmp_path):
    """
    Its job was being prepared; the next one does it, and it is paid once.
    """
    simulator, reached = Simulator(task_seconds=0), anyio.Event()

    async def gate(_job, _selection):
        reached.set()
        await anyio.sleep_forever()

    async with in_work(tmp_path, simulator, gate=gate) as runner:
        await runner.submit(job())
        await reached.wait()
    assert {} == simulator.charges
    async with in_work(tmp_path, simulator) as runner:
        assert "done" == (await runner.result("a")).state
    assert {ID: 1} == simulator.charges


@on_asyncio
async def test_a_worker_that_leaves_after_the_paid_call_is_followed_by_the_next(tmp_path):
    """
    Which waits for the task that is there; runner and worker may be others.
    """
    simulator = Simulator(task_seconds=0, faults=[Fault("get", "hang", after=1)])

    async def waiting():
        await anyio.lowlevel.checkpoint()
        return [seen.endpoint for seen in simulator.log].count("get") == 2

    async with runner_of(tmp_path, simulator) as runner:
        await runner.submit(job())
        async with runner.working():
            await until(waiting)
        assert "running" == (await runner.get("a")).state
        async with runner.working():
            assert "done" == (await runner.result("a")).state
    assert {ID: 1} == simulator.charges


@on_asyncio
async def test_loops_keep_threads_of_their_own_after_the_engine_has_left(tmp_path):
    """
    It puts its own in their place, and ends them.
    """
    async with in_work(tmp_path, Simulator(task_seconds=0)) as runner:
        await runner.submit(job())
        await runner.result("a")
    assert 7 == await asyncio.to_thread(int, "7")


@on_asyncio
async def test_one_runner_of_a_process_works_at_a_time(tmp_path):
    """
    The second is told so, and the first goes on.
    """
    simulator = Simulator(task_seconds=0)
    async with in_work(tmp_path, simulator) as runner, runner_of(tmp_path, simulator) as other:
        with pytest.raises(StoreError, match="this process works for a batch already"):
            async with other.working():
                pass
        await other.submit(job())
        assert "done" == (await runner.result("a")).state


@on_asyncio
@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), OperationalError("SELECT", {}, Exception("no disk"))])
async def test_an_engine_that_cannot_begin_leaves_nothing_behind(tmp_path, monkeypatch, error):
    """
    What the database says is a StoreError; the next try begins afresh.
    """
    launch = dbos.DBOS.launch

    def fail():
        monkeypatch.setattr(dbos.DBOS, "launch", launch)
        raise error

    monkeypatch.setattr(dbos.DBOS, "launch", fail)
    expected = StoreError if isinstance(error, OperationalError) else ZeroDivisionError
    async with runner_of(tmp_path, Simulator(task_seconds=0)) as runner:
        with pytest.raises(expected):
            async with runner.working():
                pass
        assert _engine._here.worker is None
        await runner.submit(job())
        async with runner.working():
            assert "done" == (await runner.result("a")).state


@on_asyncio
@pytest.mark.parametrize("error", [ClosedError("it closes"), StoreError("the disk is full")])
async def test_what_is_no_jobs_fault_puts_it_back(tmp_path, error, caplog, monkeypatch):
    """
    It is taken up again, and done.
    """
    async with runner_of(tmp_path, Simulator(task_seconds=0)) as runner:
        reserve, left = runner._money.reserve.__func__, [error]

        async def failing(money, *given, **named):
            if left:
                raise left.pop()
            return await reserve(money, *given, **named)

        monkeypatch.setattr(type(runner._money), "reserve", failing)
        await runner.submit(job())
        with caplog.at_level(logging.WARNING):
            async with runner.working():
                assert "done" == (await runner.result("a")).state
        assert 1 == sum(f"a job is put back: {error}" == record.message for record in caplog.records)


@on_asyncio
async def test_a_mistake_of_a_gate_ends_the_worker_with_it(tmp_path):
    """
    No job is blamed for it: the next worker does them all.
    """
    simulator = Simulator(task_seconds=0)
    async with runner_of(tmp_path, simulator, gate=gate_of(ZeroDivisionError("a mistake"))) as runner:
        await runner.submit_many([(job("a"), None), (job("b"), None)])
        with pytest.raises(ZeroDivisionError, match="a mistake"):
            await runner.serve()
        async with runner.working():
            assert ["done", "done"] == [(await runner.result(key)).state for key in "ab"]
    assert [1, 1] == list(simulator.charges.values())


@on_asyncio
async def test_no_more_run_than_there_are_slots(tmp_path):
    """
    All are done all the same.
    """
    simulator = Simulator(quota=50, task_seconds=0.1)
    async with in_work(tmp_path, simulator, slots=2) as runner:
        await runner.submit_many((job(key), None) for key in "abcdefg")
        assert {"done"} == {(await runner.result(key)).state for key in "abcdefg"}
    assert (2, 7) == (simulator.most_running, len(simulator.charges))


@on_asyncio
async def test_learned_slots_reach_the_engine(tmp_path):
    """
    Fewer after a full quota.
    """
    full = Fault("create", "code", code=1303)
    async with in_work(tmp_path, Simulator(task_seconds=0, faults=[full]), slots="learned") as runner:
        await runner.submit(job())
        assert "done" == (await runner.result("a")).state
        assert 4 == await anyio.to_thread.run_sync(concurrency, runner._engine)


@on_asyncio
async def test_what_was_cancelled_is_settled_when_it_is_handed_out(tmp_path):
    """
    Nothing is sent for it; nor for an attempt that another has followed.
    """
    simulator = Simulator(task_seconds=0)
    async with runner_of(tmp_path, simulator) as runner:
        await runner.submit_many([(job("a"), None), (job("b"), None)])
        assert 2 == await runner.cancel()
        assert 1 == await runner.retry(["b"])
        async with runner.working():
            assert "done" == (await runner.result("b")).state

            async def ended():
                await anyio.lowlevel.checkpoint()
                return {row["status"] for row in rows(runner, "workflow_status")} == {"SUCCESS"}

            await until(ended)
        assert ("cancelled", 3) == ((await runner.get("a")).state, len(rows(runner, "workflow_status")))
    assert {job("b").external_task_id: 1} == simulator.charges


@on_asyncio
async def test_a_job_that_nobody_knows_of_is_settled(tmp_path):
    """
    Such as one of a database that was copied without our tables.
    """
    simulator = Simulator(task_seconds=0)
    async with in_work(tmp_path, simulator) as runner:
        await runner._database.transact(lambda connection: runner._engine.enqueue(connection, "x", 1, "edit-x"))

        async def ended():
            await anyio.lowlevel.checkpoint()
            return [row["status"] for row in rows(runner, "workflow_status")] == ["SUCCESS"]

        await until(ended)
    assert () == simulator.log


@on_asyncio
async def test_a_job_handed_out_while_its_worker_leaves_stays_with_the_engine():
    """
    It has no result: it is cut off.
    """
    with pytest.raises(asyncio.CancelledError):
        await _engine._edit.__orig_func("a", 1)


@on_asyncio
async def test_work_that_died_with_its_place_is_handed_on(tmp_path):
    """
    To whoever lives; here what a worker left that is not coming back.
    """
    simulator, reached = Simulator(task_seconds=0), anyio.Event()

    async def gate(_job, _selection):
        if not reached.is_set():
            reached.set()
            await anyio.sleep_forever()

    async with runner_of(tmp_path, simulator, gate=gate) as runner:
        await runner.submit(job())
        async with runner.working():
            await reached.wait()
            assert ["w0"] == list(await runner._engine.holders())
        lock = runner._database.lock("w0")
        async with runner.working():
            lock.release()
            assert "done" == (await runner.result("a")).state
            assert "w1" == rows(runner, "workflow_status")[0]["executor_id"]
    assert {ID: 1} == simulator.charges


@on_asyncio
async def test_steps_that_are_needless_are_left_out(tmp_path):
    """
    Nothing is taken for what a gate declines, and nothing is sent for what the budget refuses.
    """

    async def gate(asked, _selection):
        await anyio.lowlevel.checkpoint()
        return "no" if asked.key == "b" else None

    async with in_work(tmp_path, Simulator(task_seconds=0), gate=gate) as runner:
        await runner.set_budget(0)
        await runner.submit_many((job(key), None) for key in "ab")
        assert ["refused", "declined"] == [(await runner.result(key)).state for key in "ab"]
        assert [["prepare"], ["prepare"]] == list(steps_of(runner).values())


async def test_a_queue_is_made_and_resized(url):
    """
    Made again it has the new number; one that is not there is left alone.
    """
    async with in_engine(url, slots=5) as engine:
        assert 5 == concurrency(engine)
        await engine.resize(3)
        assert 3 == concurrency(engine)
        await engine.make(8, polling=0.05)
        assert 8 == concurrency(engine)
        await Engine(engine.database, "kling-other").resize(3)
        assert engine.client.retrieve_queue("kling-other") is None


async def test_an_attempt_is_in_the_queue_once(url):
    """
    However often the engine is told of it; it is told within the batch's own transaction or not at all.
    """
    async with in_engine(url) as engine:

        def failing(connection):
            engine.enqueue(connection, "a", 1, "edit-a")
            raise StoreError("no")

        with pytest.raises(StoreError, match="no"):
            await engine.database.transact(failing)
        assert [] == engine.client.list_workflows()
        for _ in range(2):
            await engine.database.transact(lambda connection: engine.enqueue(connection, "a", 1, "edit-a"))
        [found] = engine.client.list_workflows()
        assert ("edit-a", "ENQUEUED", "kling-default") == (found.workflow_id, found.status, found.queue_name)
        assert {} == await engine.holders()


def moved(engine, *, status, completed_at=None):
    """
    Put the engine's only job into another state.
    """
    table = sa.table("workflow_status", sa.column("status"), sa.column("completed_at"), sa.column("executor_id"))
    table.schema = None if engine.database.on_file else "dbos"
    change = sa.update(table).values(status=status, completed_at=completed_at, executor_id=None)
    with engine.database.pool.begin() as connection:
        connection.execute(change)


async def test_jobs_are_handed_on_and_forgotten(url):
    """
    What runs goes back to the queue; what ended long ago is dropped, and nothing else.
    """
    async with in_engine(url) as engine:
        await engine.database.transact(lambda connection: engine.enqueue(connection, "a", 1, "edit-a"))
        moved(engine, status="PENDING")
        assert {"": ("edit-a",)} == await engine.holders()
        await engine.hand_on(("edit-a",))
        assert {} == await engine.holders()
        await engine.forget()
        assert ["ENQUEUED"] == [found.status for found in engine.client.list_workflows()]
        moved(engine, status="SUCCESS", completed_at=1)
        await engine.forget()
        assert [] == engine.client.list_workflows()


@on_asyncio
async def test_what_the_engine_says_goes_through_our_log(tmp_path, caplog):
    """
    From errors on; it has no console of its own.
    """
    async with in_work(tmp_path, Simulator(task_seconds=0)):
        engine_log = logging.getLogger("dbos")
        with caplog.at_level(logging.INFO):
            engine_log.error("of %s", "importance")
            engine_log.warning("of none")
        assert ["dbos: of importance"] == [line.message for line in caplog.records if line.name == "kling_async"]
        assert not engine_log.propagate


def test_what_a_process_holds_and_does_not_know_is_lost():
    """
    Nothing else.
    """
    engine = Engine(Database("sqlite:///batch.sqlite"), "kling-default")
    _engine._here.ids.add("known")
    assert ("lost",) == engine.lost(("known", "lost"))
    _engine._here.ids.clear()
