"""
Connections with a real server that is stopped, restarted, silent, or was never there.
"""

import logging
import os
import signal
from threading import Event, Thread

import psycopg
import pytest

from kling_async import StoreError, _pool
from kling_async._pool import Connection, Pool

pytestmark = pytest.mark.real_clock

OWNER = 4711


@pytest.fixture
def base(postgres):
    """
    Where the database is.
    """
    return postgres.url("pool")


@pytest.fixture
def pool(base):
    """
    A pool without connections yet, closed in the end.
    """
    made = pool_of(base)
    yield made
    made.close()


def pool_of(url):
    return Pool(url=url, place="postgresql://there", schema="kling", owner=OWNER)


def one(connection, _again):
    return connection.execute("SELECT 1").fetchone()[0]


def setting(name):
    return lambda connection, _again: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]


def server_process(pool):
    [connection] = pool._idle
    return connection.info.backend_pid


def shared_locks(postgres, owner=OWNER):
    """
    How many connections hold the mark of an owner.
    """
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND objid = %s AND granted"
    )
    [(count,)] = postgres.execute(query, (owner,), database="pool")
    return count


def ended(postgres, process):
    """
    Have the server end a connection.
    """
    postgres.execute("SELECT pg_terminate_backend(%s, 10000)", (process,))


def test_a_connection_waits_for_nothing_for_ever(postgres, pool):
    """
    Whatever the database says by default, it writes through to the disk and gives up what takes too long.
    """
    url = f"{pool.url}?options=-csynchronous_commit%3Doff%20-cdefault_transaction_isolation%3Dserializable"
    careless = pool_of(url)
    wanted = {
        "synchronous_commit": "on",
        "transaction_isolation": "read committed",
        "statement_timeout": "30s",
        "lock_timeout": "20s",
        "idle_in_transaction_session_timeout": "10s",
        "search_path": '"kling"',
        "application_name": "kling-async",
    }
    assert wanted == {name: careless.run(setting(name)) for name in wanted}
    careless.close()
    named = pool_of(f"{pool.url}?application_name=mine&connect_timeout=3")
    assert "mine" == named.run(setting("application_name"))
    named.close()


def test_each_connection_holds_the_mark_of_its_owner(postgres, pool):
    """
    From its beginning to its end.
    """
    assert 0 == shared_locks(postgres)
    pool.run(lambda _connection, _again: pool.run(one))
    assert 2 == shared_locks(postgres)
    pool.close()
    while shared_locks(postgres):
        pass


def test_a_connection_is_used_again(pool):
    """
    What is done one after the other needs but one.
    """
    assert [1, 1] == [pool.run(one), pool.run(one)]
    assert 1 == len(pool._idle)


def test_what_fails_is_undone_and_its_connection_is_used_again(pool):
    """
    The server's own word is told; a fault of the work comes out as it is.
    """

    def broken(connection, _again):
        connection.execute("CREATE TABLE public.half_made (x int)")
        connection.execute("SELECT 1 / 0")

    def odd(connection, _again):
        connection.execute("CREATE TABLE public.half_made (x int)")
        raise KeyError("odd")

    with pytest.raises(StoreError, match=r"^postgresql://there cannot be used: division by zero$"):
        pool.run(broken)
    with pytest.raises(KeyError):
        pool.run(odd)
    [connection] = pool._idle
    query = "SELECT to_regclass('public.half_made')"
    assert pool.run(lambda connection, _again: connection.execute(query).fetchone()) == (None,)
    assert [connection] == pool._idle


def test_a_connection_that_was_lost_is_replaced_and_its_work_done_over(postgres, pool, caplog):
    """
    Whether the server ended it before or in the middle of the work, which is told of it.
    """
    caplog.set_level(logging.INFO, logger="kling_async")
    pool.run(one)
    tries = []

    def work(connection, again):
        tries.append(again)
        connection.execute("SELECT 1")
        if len(tries) == 2:
            ended(postgres, connection.info.backend_pid)
        return one(connection, again)

    ended(postgres, server_process(pool))
    assert 1 == pool.run(work)
    assert [False, True, True] == tries
    assert 2 == caplog.text.count("postgresql://there has ended a connection, which is opened anew")
    assert 1 == shared_locks(postgres)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_restarted_is_waited_for(postgres, pool, mode):
    """
    In the middle of work, which is done over once it is back.
    """
    tries, starting = [], Thread(target=postgres.start)

    def work(connection, again):
        tries.append(again)
        connection.execute("SELECT 1")
        if len(tries) == 1:
            postgres.stop(mode)
            starting.start()
        return one(connection, again)

    assert 1 == pool.run(work)
    assert [False, True] == tries
    starting.join()


def test_a_server_that_stays_away_is_given_up(postgres, pool, monkeypatch):
    """
    After a while; when it is there again it is used again.
    """
    monkeypatch.setattr(_pool, "RIDE", 0.2)
    pool.run(one)
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"postgresql://there cannot be reached: .*refused"):
                pool.run(one)
    finally:
        postgres.start()
    assert 1 == pool.run(one)


def test_a_connection_that_is_lost_again_and_again_is_given_up(postgres, pool, monkeypatch):
    """
    Work that ends its own connection does not go on for ever.
    """
    monkeypatch.setattr(_pool, "RIDE", 0.0)

    def work(connection, again):
        ended(postgres, connection.info.backend_pid)
        return one(connection, again)

    with pytest.raises(StoreError, match="cannot be used: terminating connection"):
        pool.run(work)


def test_a_server_that_was_never_there_is_told_at_once(base, monkeypatch):
    """
    Who opens a store hears of a wrong address before ten seconds are over.
    """
    monkeypatch.setattr(_pool, "PAUSE", 3600.0)
    nowhere = pool_of("postgresql://127.0.0.1:1/none")
    with pytest.raises(StoreError, match="cannot be reached"):
        nowhere.run(one, patience=0)


def test_waiting_for_a_server_ends_when_the_pool_is_closed(monkeypatch):
    """
    Nobody wants what comes of it.
    """
    monkeypatch.setattr(_pool, "RIDE", 3600.0)
    monkeypatch.setattr(_pool, "PAUSE", 1800.0)
    nowhere, said = pool_of("postgresql://127.0.0.1:1/none"), []
    reached = Event()

    def waits(seconds):
        reached.set()
        return Event.wait(nowhere._closing, seconds)

    monkeypatch.setattr(nowhere._closing, "wait", waits)

    def run():
        try:
            nowhere.run(one)
        except StoreError as error:
            said.append(str(error))

    thread = Thread(target=run)
    thread.start()
    assert reached.wait(10)
    nowhere.close()
    thread.join(10)
    assert ["postgresql://there cannot be reached"] == [text.partition(": ")[0] for text in said]


def test_a_closed_pool_opens_nothing(pool, base):
    """
    Neither new connections nor the old ones.
    """
    pool.run(one)
    pool.close()
    pool.close()
    with pytest.raises(StoreError, match="was closed meanwhile"):
        pool.run(one, patience=0)
    assert [] == pool._idle


def test_closing_waits_for_work_but_not_for_ever(pool, monkeypatch):
    """
    Its connection is closed by whoever still uses it.
    """
    began, may_end, held = Event(), Event(), []

    def work(connection, again):
        held.append(connection)
        began.set()
        assert may_end.wait(10)
        return one(connection, again)

    thread = Thread(target=pool.run, args=(work,))
    thread.start()
    assert began.wait(10)
    monkeypatch.setattr(_pool, "PARTING", 0.01)
    pool.close()
    assert not held[0].closed
    monkeypatch.setattr(_pool, "PARTING", 10.0)
    closing = Thread(target=pool.close)
    closing.start()
    may_end.set()
    closing.join(10)
    thread.join(10)
    assert held[0].closed
    assert [] == pool._idle


def test_a_server_that_says_nothing_is_given_up(postgres, pool, monkeypatch):
    """
    A process of the server that is stopped keeps the line open and never answers.
    """
    pool.run(one)
    silent = server_process(pool)
    os.kill(silent, signal.SIGSTOP)
    try:
        monkeypatch.setattr(_pool, "ANSWER", 0.3)
        with pytest.raises(StoreError, match=r"no answer within 0\.3 seconds"):
            pool.run(one)
    finally:
        os.kill(silent, signal.SIGCONT)
    monkeypatch.undo()
    assert 1 == pool.run(one)
    assert silent != server_process(pool)


def test_a_longer_wait_is_psycopgs_to_ask_for(base, monkeypatch):
    """
    As for notifications.
    """
    monkeypatch.setattr(_pool, "ANSWER", 0.0)
    monkeypatch.setattr(Connection, "owner", OWNER, raising=False)
    with psycopg.connect(base) as usual:
        connection = Connection(usual.pgconn)
        connection.wait(connection._start_query(), timeout=10.0)
        assert "INTRANS" == connection.info.transaction_status.name


@pytest.mark.parametrize("parameters", ["?no_such=1", "?port=x", "?target_session_attrs=odd"])
def test_a_url_that_cannot_be_used_is_a_store_error(base, parameters):
    """
    What the driver says of it.
    """
    with pytest.raises(StoreError, match="postgresql://there cannot be reached: "):
        pool_of(base + parameters).run(one, patience=0)


def test_a_connection_that_cannot_be_set_up_is_closed(base, monkeypatch):
    """
    A setting that the server does not know is told, and no connection is left open.
    """
    monkeypatch.setitem(_pool._SETTINGS, "no_such_setting", "1")
    with pytest.raises(StoreError, match="unrecognized configuration parameter"):
        pool_of(base).run(one, patience=0)
