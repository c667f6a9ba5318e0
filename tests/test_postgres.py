"""
Intents in a database that machines share: a real server, with processes that race, are killed, are stopped and wake,
and with connections and a server that end in the middle of it.
"""

import copy
import logging
import pickle
import re
import secrets
import subprocess
import sys
import traceback
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from threading import Event
from types import SimpleNamespace

import anyio
import psycopg
import pytest
from anyio import from_thread, to_thread
from attrs import evolve

from kling_async import (
    ApiKey,
    InvalidInputError,
    KlingClient,
    PostgresStore,
    Removal,
    StoreError,
    _pool,
    _postgres,
)
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.stores import Intent
from tests.checkpoints import called_off, cuts, natives
from tests.crashing import NAMES
from tests.postgres import GUARDED
from tests.simulating import Caller
from tests.test_canary import MARK, kept  # noqa: F401 (a fixture)
from tests.test_crash import LEASE, child, ended, shop

pytestmark = pytest.mark.real_clock

ROW = Intent(
    external_task_id="order-1",
    payload="ab" * 32,
    base_url="https://api.cometapi.com/kling",
    session_id="8475",
    created_at=datetime(2026, 11, 20, tzinfo=UTC),
)
DATABASE = "intents"
SECRET = f"{MARK}Pass/word@1"


@pytest.fixture
def place(postgres):
    """
    URL and schema that nobody else uses.
    """
    return SimpleNamespace(url=postgres.url(DATABASE), schema=f"s{secrets.token_hex(4)}")


def store_of(place, **more):
    return PostgresStore(place.url, schema=place.schema, **more)


@pytest.fixture
async def two(place):
    """
    Two stores in one place, as two machines have them.
    """
    both = store_of(place), store_of(place)
    for each in both:
        await each.open()
    yield both
    for each in both:
        await each.aclose()


def changed(postgres, place, assignment, *values):
    """
    Change all rows behind the backs of their owners.
    """
    postgres.execute(f"UPDATE {place.schema}.intents SET {assignment}", values, database=DATABASE)


def cut_off(postgres, store):
    """
    Have the server end all connections of a store, and return when it has.
    """
    for connection in store._pool._idle:
        postgres.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))


async def claimed_by(store, row=ROW):
    """
    Claim it until it is ours: the server may still be busy with noticing that an owner has gone.
    """
    while (intent := await store.claim(row)) is None:
        await anyio.lowlevel.checkpoint()
    return intent


# Owners


async def test_what_an_earlier_owner_writes_is_not_taken(two, postgres, place):
    """
    Its lease ran out, another has taken over: it cannot send any more, but may tell of a task.
    """
    early = await two[0].claim(ROW)
    changed(postgres, place, "until = clock_timestamp()")
    late = await two[1].claim(ROW)
    assert (1, 2) == (early.fence, late.fence)
    assert not await two[0].put(evolve(early, state="sending"))
    await two[0].release(early)
    assert await two[1].put(evolve(late, state="sending"))
    assert await two[0].put(evolve(early, state="accepted", task_id="8781"))
    assert not await two[1].put(evolve(late, state="unknown"))
    assert "accepted" == (await two[0].get("order-1")).state


async def test_each_thing_that_an_owner_writes_makes_its_lease_run_anew(two, postgres, place):
    """
    Who sends lives.
    """
    claimed = await two[0].claim(ROW)
    changed(postgres, place, "until = clock_timestamp()")
    await two[0].put(evolve(claimed, state="sending"))
    assert await two[1].claim(ROW) is None


async def test_leases_run_by_the_clock_of_the_database(two, postgres, place, monkeypatch):
    """
    Whatever that of a worker says.
    """
    monkeypatch.setattr("time.time", lambda: 0.0)
    await two[0].claim(ROW)
    query = f"SELECT until - clock_timestamp() BETWEEN '200 s' AND '300 s' FROM {place.schema}.intents"
    assert [(True,)] == postgres.execute(query, database=DATABASE)
    assert await two[1].claim(ROW) is None


async def test_a_lease_that_ran_out_needs_no_help(place):
    """
    An owner that shows no sign of life is followed once its own lease has passed.
    """
    first, second = store_of(place, lease=0.2), store_of(place)
    for each in (first, second):
        await each.open()
    await first.claim(ROW)
    assert 2 == (await claimed_by(second)).fence
    for each in (first, second):
        await each.aclose()


async def test_an_owner_that_has_closed_its_store_is_followed_at_once(two):
    """
    Nobody is there any more who could send.
    """
    await two[0].claim(ROW)
    await two[0].aclose()
    assert 2 == (await claimed_by(two[1])).fence


async def test_an_owner_that_lost_all_its_connections_is_followed_at_once(two, postgres):
    """
    To others it looks as if it had ended; it connects anew, and finds that it owns nothing.
    """
    claimed = await two[0].claim(ROW)
    cut_off(postgres, two[0])
    late = await claimed_by(two[1])
    assert not await two[0].put(evolve(claimed, state="sending"))
    assert await two[1].put(evolve(late, state="sending"))
    await two[0].release(claimed)
    assert await two[0].claim(ROW) is None


async def test_an_owner_that_connects_anew_in_time_stays_the_owner(two, postgres):
    """
    Its new connection holds its mark as the old one did.
    """
    claimed = await two[0].claim(ROW)
    cut_off(postgres, two[0])
    assert await two[0].put(evolve(claimed, state="sending"))
    assert await two[1].claim(ROW) is None


async def test_an_owner_with_one_connection_left_is_there(two, postgres):
    """
    It may lose any but the last.
    """
    claimed = await two[0].claim(ROW)
    pool = two[0]._pool
    await to_thread.run_sync(pool.run, lambda _connection, _again: pool.run(lambda _connection, _again: None))
    one, _ = pool._idle
    postgres.execute("SELECT pg_terminate_backend(%s, 10000)", (one.info.backend_pid,))
    assert await two[1].claim(ROW) is None
    assert await two[0].put(evolve(claimed, state="sending"))


async def test_a_table_of_another_server_proves_nobody_gone(two, postgres, place):
    """
    A missing lock tells nothing on a server that the owner never locked at, such as a copy that took its place.
    """
    await two[0].claim(ROW)
    changed(postgres, place, "server = server - interval '1 hour'")
    await two[0].aclose()
    assert await two[1].claim(ROW) is None
    changed(postgres, place, "until = clock_timestamp()")
    assert 2 == (await two[1].claim(ROW)).fence


# Processes


SCRIPT = """
import anyio, sys
from datetime import UTC, datetime
from kling_async import PostgresStore
from kling_async.stores import Intent

async def main():
    row = Intent(external_task_id="order-1", payload="ab", base_url="b", session_id="s", created_at=datetime.now(UTC))
    store = PostgresStore(sys.argv[1], schema=sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open()
    claimed = await store.claim(row)
    print(claimed and claimed.fence, flush=True)
    sys.stdin.readline()
    await store.aclose()

anyio.run(main, backend=sys.argv[3])
"""


@pytest.mark.timeout(60)
def test_of_processes_that_make_the_tables_and_claim_at_once_one_is_the_owner(place):
    """
    None of them fails for the others, and none of the others owns it too.
    """
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", SCRIPT, place.url, place.schema, backend], **pipe)
            )
            for backend in ["asyncio", "trio"] * 2
        ]
        for one in children:
            assert "ready\n" == one.stdout.readline()
        for one in children:
            one.stdin.write("\n")
            one.stdin.flush()
        assert ["1\n", *["None\n"] * 3] == sorted(one.stdout.readline() for one in children)
        for one in children:
            one.communicate("\n")
        assert [0] * 4 == [one.returncode for one in children]


@pytest.fixture
def intents(postgres):
    """
    URL of a database of its own, as orders to children name it.
    """
    database = f"c{secrets.token_hex(4)}"
    yield postgres.url(database)
    postgres.drop(database)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flow, backend", [("create", "asyncio"), ("edit", "trio")])
@pytest.mark.parametrize("point", ["before intent", "after intent", "after send", "after reply", "after commit"])
def test_f23_a_create_that_was_killed_is_paid_once_by_its_next_run(tmp_path, intents, point, flow, backend):
    """
    Its owner is followed at once, at whatever point it was killed, and the same order again is the one task.
    """
    faults = [Fault("create", "hang", handled=True)] if point == "after send" else []
    repeatable = Shape(external_ids="repeatable")
    with shop(tmp_path, flow, *faults, shape=repeatable, backend=backend, store=intents) as open_shop:
        with child(evolve(open_shop.order, point=point)) as one:
            one.reached(point)
            one.kill()
        end = ended(open_shop.order)
        assert {"end": "succeed", "task_id": open_shop.task_id} == end
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_f25_an_owner_stopped_before_it_sends_finds_that_another_has_sent(tmp_path, intents, backend):
    """
    Its lease runs out, another pays; woken, it may not write its row any more, and returns the other's task.
    """
    with shop(tmp_path, "create", lease=LEASE, backend=backend, store=intents) as open_shop:
        with child(evolve(open_shop.order, point="after intent")) as first:
            first.reached("after intent")
            first.stop()
            first.go_on()
            end = ended(open_shop.order)
            assert {"end": "succeed", "task_id": open_shop.task_id} == end
            first.wake()
            assert end == first.heard()
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.timeout(60)
def test_f25_an_owner_stopped_while_it_sends_is_not_paid_for_twice(tmp_path, intents):
    """
    Whoever takes over cannot know whether it was sent, and says so; woken, the first one sends, and is paid once.
    """
    with shop(tmp_path, "create", lease=LEASE, store=intents) as open_shop:
        with child(evolve(open_shop.order, point="before send")) as first:
            first.reached("before send")
            first.stop()
            first.go_on()
            assert {"end": "UnknownOutcomeError", "absent": False} == ended(open_shop.order)
            first.wake()
            end = first.heard()
        assert {"end": "succeed", "task_id": open_shop.task_id} == end == ended(open_shop.order)
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flow, processes", [("create", 4), ("edit", 2)])
def test_w8_processes_with_one_key_at_the_same_moment_pay_once(tmp_path, intents, flow, processes):
    """
    One of them owns the create; the others wait for it, and all get the same task.
    """
    with shop(tmp_path, flow, point="start", store=intents) as open_shop, ExitStack() as stack:
        backends = (["asyncio", "trio"] * processes)[:processes]
        children = [stack.enter_context(child(evolve(open_shop.order, backend=backend))) for backend in backends]
        for one in children:
            one.reached("start")
        for one in children:
            one.go_on()
        ends = [one.heard() for one in children]
        assert [{"end": "succeed", "task_id": open_shop.task_id}] * processes == ends
        assert {NAMES[flow]: 1} == dict(open_shop.simulator.charges)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "point, mode",
    [("before intent", "fast"), ("after intent", "immediate"), ("after reply", "fast"), ("after reply", "immediate")],
)
def test_f28_a_create_lives_through_a_restart_of_the_server(tmp_path, postgres, intents, point, mode):
    """
    At whatever point it stands: the next call connects anew, and it is paid once.
    """
    with shop(tmp_path, "create", store=intents) as open_shop, child(evolve(open_shop.order, point=point)) as one:
        one.reached(point)
        postgres.restart(mode)
        one.go_on()
        end = one.heard()
        assert {"end": "succeed", "task_id": open_shop.task_id} == end == ended(open_shop.order)
        assert (1, 1) == (open_shop.posts, open_shop.charges)


class Failing(PostgresStore):
    """
    A store whose server goes away just before a create is sent.
    """

    async def put(self, intent):
        if intent.state == "sending":
            await to_thread.run_sync(self.stop)
        return await super().put(intent)


async def test_f28_nothing_is_sent_while_the_server_is_away(place, postgres, monkeypatch):
    """
    A create whose sending cannot be written ends with StoreError; with the server back it is paid once.
    """
    monkeypatch.setattr(_pool, "RIDE", 0.1)
    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="repeatable"))
    session_id = await Caller(simulator.transport()).marked()

    async def pay(store):
        async with KlingClient(ApiKey("any"), transport=simulator.transport(), store=store) as client:
            return await client.create_task(session_id, Removal.of("x"), external_task_id="order-1")

    store = Failing(place.url, schema=place.schema, lease=LEASE)
    store.stop = postgres.stop
    try:
        with pytest.raises(StoreError, match="cannot be reached"):
            await pay(store)
    finally:
        await to_thread.run_sync(postgres.start)
    assert {} == dict(simulator.charges)
    assert "order-1" == (await pay(store_of(place))).external_task_id
    assert {"order-1": 1} == dict(simulator.charges)


# The server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_what_was_written_outlives_a_crash_of_the_server(two, postgres, mode):
    """
    And whoever wrote it goes on; after that a missing lock proves an owner gone again.
    """
    claimed = await two[0].claim(ROW)
    await to_thread.run_sync(postgres.restart, mode)
    assert claimed == await two[1].get("order-1")
    assert await two[1].claim(ROW) is None
    assert await two[0].put(evolve(claimed, state="sending"))
    await two[0].aclose()
    assert 2 == (await claimed_by(two[1])).fence


async def test_an_owner_from_before_a_restart_is_followed_after_its_lease(two, postgres, place):
    """
    No lock outlives the server, so its absence proves nothing of an owner that did not write since.
    """
    await two[0].claim(ROW)
    await two[0].aclose()
    await to_thread.run_sync(postgres.restart)
    assert await two[1].claim(ROW) is None
    changed(postgres, place, "until = clock_timestamp()")
    assert 2 == (await two[1].claim(ROW)).fence


async def test_what_an_owner_could_not_give_back_is_free_to_itself(two, postgres, monkeypatch):
    """
    It knows better than the server, which did not hear of it; others wait for its lease.
    """
    monkeypatch.setattr(_pool, "RIDE", 0.0)
    claimed = await two[0].claim(ROW)
    await to_thread.run_sync(postgres.stop)
    try:
        with pytest.raises(StoreError):
            await two[0].release(claimed)
    finally:
        await to_thread.run_sync(postgres.start)
    monkeypatch.undo()
    await two[0].get("order-1")
    assert await two[1].claim(ROW) is None
    assert 2 == (await two[0].claim(ROW)).fence
    assert await two[0].claim(ROW) is None


@pytest.fixture(params=[True, False], ids=["committed", "not-committed"])
def lossy(request, monkeypatch):
    """
    A switch that loses the connection just as a change is committed: behind the commit, or before it.
    """
    commit, lose = _pool.Connection.commit, []

    def lossy_commit(connection):
        if not lose:
            commit(connection)
            return
        lose.pop()
        if request.param:
            commit(connection)
        connection.pgconn.finish()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(_pool.Connection, "commit", lossy_commit)
    return lose


async def test_a_claim_whose_commit_got_no_answer_is_made_once(two, lossy):
    """
    It is known again by its own number, whether it was committed or not.
    """
    lossy.append(1)
    assert 1 == (await two[0].claim(ROW)).fence
    assert await two[0].claim(ROW) is None
    assert await two[1].claim(ROW) is None
    await two[0].release(await two[0].get("order-1"))
    lossy.append(1)
    assert 2 == (await two[1].claim(ROW)).fence


async def test_a_claim_of_which_nothing_was_heard_is_free_to_its_store(two, lossy, monkeypatch):
    """
    It may have been committed, and the server was gone for too long to tell.
    """
    monkeypatch.setattr(_pool, "RIDE", -1.0)
    lossy.append(1)
    with pytest.raises(StoreError, match="the connection is lost"):
        await two[0].claim(ROW)
    monkeypatch.undo()
    assert (await two[0].claim(ROW)).fence in {1, 2}
    assert await two[1].claim(ROW) is None


async def test_a_put_whose_commit_got_no_answer_is_made_once(two, lossy):
    """
    What stands there as it was to be written has been written, whether it was a new row or an old one.
    """
    lossy.append(1)
    assert await two[0].put(ROW)
    await two[0].release(ROW)
    claimed = await two[0].claim(ROW)
    lossy.append(1)
    sending = evolve(claimed, state="sending", attempts=1)
    assert await two[0].put(sending)
    assert not await two[0].put(sending)
    lossy.append(1)
    assert not await two[0].put(evolve(claimed, state="absent"))
    assert sending == await two[1].get("order-1")


async def test_a_put_whose_commit_got_no_answer_does_not_pass_over_another_owner(
    two, lossy, postgres, place, monkeypatch
):
    """
    Who took over meanwhile has another number.
    """
    claimed = await two[0].claim(ROW)
    lossy.append(1)
    put = PostgresStore._put

    def overtaken(store, connection, intent, *, again):
        if again:
            numbers = f'"fence":{claimed.fence}', f'"fence":{claimed.fence + 1}'
            changed(postgres, place, "fence = fence + 1, body = replace(body, %s, %s)", *numbers)
        return put(store, connection, intent, again=again)

    monkeypatch.setattr(PostgresStore, "_put", overtaken)
    assert not await two[0].put(evolve(claimed, state="sending", attempts=1))


async def test_a_row_that_another_transaction_keeps_is_not_waited_for_for_ever(two, place, monkeypatch):
    """
    The server gives it up and says so; the same connection serves the next call.
    """
    await two[0].claim(ROW)
    with psycopg.connect(place.url) as other:
        other.execute(f"SELECT FROM {place.schema}.intents FOR UPDATE")
        await to_thread.run_sync(two[1]._pool.run, partial(setting, "lock_timeout", "50ms"))
        with pytest.raises(StoreError, match="cannot be used: canceling statement due to lock timeout"):
            await two[1].claim(ROW)
    assert await two[1].claim(ROW) is None
    assert 1 == len(two[1]._pool._idle)


def setting(name, value, connection, _again):
    connection.execute("SELECT set_config(%s, %s, false)", (name, value))


async def test_two_who_want_a_free_row_do_not_both_find_it_free(two, place, monkeypatch):
    """
    Before one of them has decided the other does not even look.
    """
    await two[0].release(await two[0].claim(ROW))
    is_free, ended, got = PostgresStore._is_free, Event(), {}

    async def ask(number):
        got[number] = await two[number].claim(ROW)
        ended.set()

    def slow(store, connection, row):
        if store is two[0]:
            from_thread.run_sync(group.start_soon, ask, 1)
            with psycopg.connect(place.url, autocommit=True) as watcher:
                for _ in range(1000):
                    if ended.wait(0.01) or watcher.execute(WAITING).fetchone() != (0,):
                        break
        return is_free(store, connection, row)

    monkeypatch.setattr(PostgresStore, "_is_free", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, 0)
    assert (2, None) == (got[0].fence, got[1])


async def test_a_stopped_process_does_not_keep_its_row(two, place, postgres):
    """
    One that was stopped in the middle of a transaction is thrown out of it by the server.
    """
    claimed = await two[0].claim(ROW)
    await two[0].release(claimed)
    with closing(psycopg.connect(place.url)) as stopped:
        stopped.execute("SET idle_in_transaction_session_timeout = '100ms'")
        stopped.commit()
        stopped.execute(f"SELECT FROM {place.schema}.intents FOR UPDATE")
        assert 2 == (await two[1].claim(ROW)).fence


# Tables


async def test_tables_that_are_there_need_no_rights_to_make_them(postgres, place):
    """
    A role that may only read and write them is enough; one that may not make them says so.
    """
    role = f"plain{secrets.token_hex(4)}"
    postgres.execute(f"CREATE ROLE {role} LOGIN", database=DATABASE)
    plain = PostgresStore(postgres.url(DATABASE, user=role), schema=place.schema)
    with pytest.raises(StoreError, match="cannot be used: permission denied for database"):
        await plain.open()
    owner = store_of(place)
    await owner.open()
    await owner.aclose()
    postgres.execute(f"GRANT USAGE ON SCHEMA {place.schema} TO {role}", database=DATABASE)
    postgres.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {place.schema} TO {role}", database=DATABASE)
    await plain.open()
    assert 1 == (await plain.claim(ROW)).fence
    await plain.aclose()


async def test_opening_twice_opens_once(place):
    """
    Its connections are those of the first time.
    """
    store = store_of(place)
    await store.open()
    pool = store._pool
    await store.open()
    assert pool is store._pool
    await store.aclose()


# Cancellation


async def test_f29_a_claim_that_is_cancelled_at_any_point_is_given_back(two, anyio_backend_name):
    """
    Whoever comes next does not wait for a lease that nobody holds.
    """
    for cut in cuts(anyio_backend_name):
        row = evolve(ROW, external_task_id=f"order-{cut.number}")
        await cut.run(partial(two[0].claim, row))
        if cut.cancelled:
            assert (await claimed_by(two[1], row)).fence in {1, 2}
        else:
            assert await two[1].claim(row) is None


async def test_f29_a_claim_that_is_cancelled_while_it_waits_for_a_row_is_given_back(
    two, place, anyio_backend_name, monkeypatch
):
    """
    The cancellation does not wait for it; the thread that does gives it back.
    """
    monkeypatch.setattr("kling_async._shelter.GRACE", 0.01)
    await two[0].release(await two[0].claim(ROW))
    for native in natives(anyio_backend_name):
        with psycopg.connect(place.url) as other:
            other.execute(f"SELECT FROM {place.schema}.intents FOR UPDATE")
            _, end = await called_off(partial(two[0].claim, ROW), native=native, once=Waiting(place))
            assert isinstance(end, anyio.get_cancelled_exc_class())
        await two[1].release(await claimed_by(two[1]))


WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


class Waiting:
    """
    An event: somebody waits for a row.
    """

    def __init__(self, place):
        self.url = place.url

    async def wait(self):
        with psycopg.connect(self.url, autocommit=True) as connection:
            while connection.execute(WAITING).fetchone() == (0,):
                await anyio.lowlevel.checkpoint()


async def test_f29_a_put_that_is_cancelled_at_any_point_is_whole_or_not_there(two, anyio_backend_name):
    """
    And what comes after it finds a store that works.
    """
    for cut in cuts(anyio_backend_name):
        claimed = await two[0].claim(evolve(ROW, external_task_id=f"order-{cut.number}"))
        sending = evolve(claimed, state="sending", attempts=1)
        await cut.run(partial(two[0].put, sending))
        assert await two[0].get(claimed.external_task_id) in {claimed, sending}
        assert cut.cancelled or cut.result


async def test_f29_opening_that_is_cancelled_at_any_point_leaves_no_connection(place, postgres, anyio_backend_name):
    """
    The thread that has opened them closes them.
    """
    for cut in cuts(anyio_backend_name):
        store = PostgresStore(f"{place.url}?application_name={place.schema}", schema=place.schema)
        await cut.run(store.open)
        assert (store._pool is None) == cut.cancelled
        await store.aclose()
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    while postgres.execute(query, (place.schema,)) != [(0,)]:
        await anyio.lowlevel.checkpoint()


# With a client


async def test_a_client_pays_once_with_whichever_store_it_comes(place):
    """
    Two clients with a store each on one database get the one task of an id.
    """
    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="repeatable"))
    session_id, tasks = await Caller(simulator.transport()).marked(), []

    async def pay():
        async with KlingClient(ApiKey("any"), transport=simulator.transport(), store=store_of(place)) as client:
            task = await client.create_task(session_id, Removal.of("x"), external_task_id="order-1")
            tasks.append(await client.wait(task))

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(pay)
    assert tasks[0].task_id == tasks[1].task_id
    assert {"order-1": 1} == dict(simulator.charges)


# What it is given


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example/orders",
        "postgres://kling@db.example:5432/orders",
        "postgresql://kling:p%40ss:w%C3%B6rd+1@db.example,other.example:5433/orders?sslmode=require",
        "postgresql://kling:secret@[::1]:5432/orders",
        "postgresql:///orders?host=/var/run/postgresql&password=secret",
        "postgresql://",
    ],
)
def test_urls_are_shown_without_what_is_secret_in_them(url):
    """
    Neither the password nor the parameters.
    """
    place = re.sub(r":(secret|p%40\S*1)@", "@", url.partition("?")[0])
    assert f"PostgresStore({place})" == repr(PostgresStore(url))


@pytest.mark.parametrize(
    "url",
    [
        None,
        b"postgresql://h",
        "",
        "mysql://h/db",
        "postgresql+psycopg://h/db",
        "host=h password=secret",
        "postgresql://kling:sec@ret@h/db",
        "postgresql://kling:sec/ret@h/db",
        "postgresql://kling:sec#ret@h/db",
        "postgresql://kling:sec?ret@h/db",
        "postgresql://kling:sec ret@h/db",
        "postgresql://kling:s\u00e4cret@h/db",
        "postgresql://kling:secret%@h/db",
        "postgresql://kling:secret%zz@h/db",
        "postgresql://kling:secret%00@h/db",
        "postgresql://kling:secret",
        "postgresql://:secret@h/db",
        "postgresql://kling:secret\n@h/db",
    ],
)
def test_a_url_that_would_be_misread_is_refused_and_never_quoted(url):
    """
    The driver would take a part of the password for the host, and say which.
    """
    with pytest.raises(InvalidInputError, match=r"^url: must be postgresql://user:password@host/database") as caught:
        PostgresStore(url)
    assert "ret" not in str(caught.value)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lease", value) for value in (0, -1, True, float("nan"), "60")],
        *[("connections", value) for value in (0, -1, True, 1.5, "4")],
        *[("schema", value) for value in ("", "Kling", "a b", 'a"b', "1a", None, "a" * 64)],
    ],
)
def test_settings_must_make_sense(name, value):
    """
    Each is refused by its name.
    """
    with pytest.raises(InvalidInputError, match=f"^{name}: "):
        PostgresStore("postgresql://h", **{name: value})


def test_without_psycopg_it_says_how_to_get_it(monkeypatch):
    """
    When it is made, not when the first create needs it.
    """
    monkeypatch.setattr(_postgres, "find_spec", lambda _name: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'kling-async\[postgres\]'"):
        PostgresStore("postgresql://h")


async def test_with_half_a_psycopg_it_says_so_when_it_is_opened(monkeypatch):
    """
    It is installed, but without the library that it needs.
    """
    store = PostgresStore("postgresql://h")
    monkeypatch.delitem(sys.modules, "kling_async._pool", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'kling-async\[postgres\]'"):
        await store.open()


# Secrets


async def failures(postgres, place):
    """
    Stores with a password in their URL, each of which fails in another way, and how.
    """
    secret, schema = {"user": GUARDED, "password": SECRET}, {"schema": place.schema}
    yield PostgresStore(postgres.url(DATABASE, user=GUARDED, password=f"{SECRET}wrong"), **schema)
    yield PostgresStore(postgres.url("postgres", **secret).replace("/postgres", "/none"), **schema)
    yield PostgresStore(postgres.url(DATABASE, **secret).replace(f":{postgres.port}", ":1"), **schema)
    yield PostgresStore(postgres.url(DATABASE, **secret, no_such=SECRET), **schema)
    yield PostgresStore(postgres.url(DATABASE, **secret, sslmode="require"), **schema)
    yield PostgresStore(postgres.url(DATABASE, **secret), **schema)  # may make no tables


async def test_f54_no_failure_of_the_store_tells_its_password(postgres, place, kept):  # noqa: F811 (the fixture)
    """
    Not in any error, frame, log, repr or pickle, whatever fails; nor where the driver keeps what it connected with.
    """
    logging.getLogger("psycopg").setLevel(logging.DEBUG)
    postgres.execute(f"DROP ROLE IF EXISTS {GUARDED}")
    postgres.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{SECRET}'")
    count = 0
    async for store in failures(postgres, place):
        with pytest.raises(StoreError) as caught:
            await store.open()
        kept.keep_error(caught.value)
        kept.keep("store", store)
        count += 1
    assert 6 == count
    assert [] == kept.search(SECRET, f"{SECRET}wrong")


async def test_f54_a_store_at_work_tells_no_password(postgres, place, kept, monkeypatch):  # noqa: F811 (the fixture)
    """
    Neither when its connection is lost, nor when the server refuses, nor when it stays away.
    """
    logging.getLogger("psycopg").setLevel(logging.DEBUG)
    store = PostgresStore(postgres.url(DATABASE, password=SECRET), schema=place.schema)
    await store.open()
    claimed = await store.claim(ROW)
    cut_off(postgres, store)
    await store.put(evolve(claimed, state="sending"))
    with pytest.raises(StoreError) as caught:
        await store.recent(-1)
    kept.keep_error(caught.value)
    monkeypatch.setattr(_pool, "RIDE", 0.0)
    await to_thread.run_sync(postgres.stop)
    try:
        with pytest.raises(StoreError) as caught:
            await store.get("order-1")
    finally:
        await to_thread.run_sync(postgres.start)
    kept.keep_error(caught.value)
    kept.keep("store", store, store._pool, store._threads)
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="is not pickled") as refused:
            duplicate(store)
        kept.keep("refusal", "".join(traceback.format_exception(refused.value)))
    await store.aclose()
    [(rows,)] = postgres.execute(f"SELECT json_agg(i)::text FROM {place.schema}.intents AS i", database=DATABASE)
    kept.keep("rows", rows)
    assert [] == kept.search(SECRET)
