"""
The database of a batch: what it may be, what it rides out, and its locks, on a file and on a real server.
"""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import sqlalchemy as sa
from anyio.to_thread import run_sync
from psycopg import sql
from sqlalchemy.exc import DBAPIError, OperationalError

from kling_async import InvalidInputError, SqliteStore, StoreError
from kling_async.dbos import _database
from kling_async.dbos._database import Database, Lock
from kling_async.dbos._tables import JOBS, TABLES, WORKERS, insert
from kling_async.stores import PostgresStore
from tests.batching import (
    emptied,
    given_url,  # noqa: F401 - a fixture
    url_of,
)
from tests.postgres import free_port

pytestmark = pytest.mark.real_clock


@pytest.fixture
def database(url):
    """
    A database without tables, on a file and on a server.
    """
    made = Database(url)
    yield made
    made.close()


@pytest.fixture
def served(postgres):
    """
    One on a server.
    """
    made = Database(emptied(postgres))
    yield made
    made.close()


@pytest.fixture
def filed(tmp_path):
    """
    One on a file.
    """
    made = Database(url_of(tmp_path))
    yield made
    made.close()


def failing(*said, then="done"):
    """
    Work that the driver lets fail with these words, one after another, before it succeeds.
    """
    left = list(said)

    def work():
        if left:
            raise OperationalError("SELECT 1", {}, sqlite3.OperationalError(left.pop(0)))
        return then

    return work


def patient(monkeypatch, *, outage=60.0):
    monkeypatch.setattr(_database, "AGAIN", 0.01)
    monkeypatch.setattr(_database, "OUTAGE", outage)


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "batch.sqlite",
        "mysql://me:secret@host/batch",
        "postgresql://me:secret@host:secret/batch",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_what_is_no_file_and_no_server_is_refused(url):
    """
    By what it should be, for what was given may hold a password.
    """
    with pytest.raises(InvalidInputError, match="sqlite:///FILE or postgresql://") as caught:
        Database(url)
    assert "database" == caught.value.field
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_a_password_is_never_shown(postgres):
    """
    Not in the URL nor in its query; those who connect get it.
    """
    made = Database("postgresql://me:secret@host/batch?password=hidden")
    assert "Database(postgresql+psycopg://me:***@host/batch)" == repr(made)
    assert "postgresql://me:secret@host/batch?password=hidden" == made.plain


def test_a_driver_of_ones_own_is_not_taken(tmp_path):
    """
    The engine needs the ones that it knows.
    """
    assert "sqlite" == Database(f"sqlite+aiosqlite:///{tmp_path}/a").url.drivername
    assert "postgresql+psycopg" == Database("postgresql+asyncpg://host/a").url.drivername


async def test_a_file_is_shared_as_several_processes_need_it(filed):
    """
    With a log of its own, writers that wait, and its folder made.
    """
    database = Database(f"sqlite:///{filed.path.parent}/deep/er/batch.sqlite")
    await database.make(TABLES)
    names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
    told = await database.transact(lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names])
    assert ["wal", 1, _database.BUSY, 1] == told
    database.close()


async def test_a_file_tells_the_time_whichever_sqlite_there_is(filed):
    """
    Finely enough, as the engine asks for it from Python 3.12 on.
    """
    query = "SELECT unixepoch('subsec') - strftime('%s', 'now')"
    assert 0 <= await filed.read(lambda connection: connection.exec_driver_sql(query).scalar()) < 60


async def test_a_session_ends_with_a_transaction_that_nobody_goes_on_with(served):
    """
    Whatever became of the first one; else whoever was stopped in its midst would keep all others waiting.
    """
    query = "SHOW idle_in_transaction_session_timeout"

    def failing_first(connection):
        connection.exec_driver_sql(query)
        raise OSError

    with pytest.raises(StoreError):
        await served.read(failing_first)
    assert "30s" == await served.read(lambda connection: connection.exec_driver_sql(query).scalar())


def test_a_server_needs_another_extra(monkeypatch):
    """
    Without it the extra is named.
    """
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'kling-async\[dbos,postgres\]'"):
        Database("postgresql://host/batch")


async def test_who_takes_jobs_counts_and_takes_in_one_turn(filed):
    """
    The engine's threads that do so keep others from writing from their first look on, as our own changes do.
    """
    await filed.make(TABLES)

    def begun():
        with filed.pool.begin() as connection:
            return connection.connection.driver_connection.in_transaction

    with ThreadPoolExecutor(thread_name_prefix="queue-worker-kling-default") as threads:
        assert threads.submit(begun).result()
    assert not begun()
    assert await filed.transact(lambda connection: connection.connection.driver_connection.in_transaction)
    assert not await filed.read(lambda connection: connection.connection.driver_connection.in_transaction)


async def test_tables_are_made_once_by_however_many(database):
    """
    Who comes second, or at the same time, finds them; whether they are there is seen without making any.
    """
    other = Database(database.plain)
    assert not await other.holds(JOBS)
    async with anyio.create_task_group() as group:
        for each in (database, other, database):
            group.start_soon(each.make, TABLES)
    assert await other.holds(JOBS)
    assert await database.transact(lambda connection: insert(connection, WORKERS, {"executor": "w0", "seen_at": 1.0}))
    assert not await other.transact(lambda connection: insert(connection, WORKERS, {"executor": "w0", "seen_at": 2.0}))
    assert 1.0 == await other.transact(lambda connection: connection.execute(sa.select(WORKERS.c.seen_at)).scalar())
    other.close()


async def test_who_hangs_in_a_transaction_keeps_others_out_for_a_while_only(served, monkeypatch):
    """
    A process that was stopped there may never come back; the server gives it up.
    """
    monkeypatch.setattr(_database, "IDLE", 0.2)
    await served.make(TABLES)
    hung = served.engine.connect()
    assert insert(hung, WORKERS, {"executor": "w0", "seen_at": 1.0})
    assert await served.transact(lambda connection: insert(connection, WORKERS, {"executor": "w0", "seen_at": 2.0}))
    with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
        hung.execute(sa.text("SELECT 1"))
    hung.invalidate()
    hung.close()


async def test_time_is_the_databases(database):
    """
    Seconds since 1970, more than whole ones, and it goes on.
    """
    asked = sa.select(database.clock)
    first, second = [await database.transact(lambda c: float(c.execute(asked).scalar_one())) for _ in range(2)]
    assert 1_700_000_000 < first <= second < first + 60


def test_intents_are_kept_beside_a_file_or_in_the_same_database(filed):
    """
    In a file of their own, or in the database itself.
    """
    assert isinstance(filed.store(), SqliteStore)
    assert isinstance(Database("postgresql://host/batch").store(), PostgresStore)


async def test_a_database_that_is_away_is_waited_for(filed, monkeypatch):
    """
    As while it is started anew, or another writes for long.
    """
    patient(monkeypatch)
    said = ["database is locked", "the database system is starting up", "server closed the connection"]
    assert "done" == await filed.run(failing(*said))


async def test_a_database_that_stays_away_is_told(filed, monkeypatch):
    """
    After a while, in one line of what its driver said.
    """
    patient(monkeypatch)
    text = r"^Database\(sqlite:///.+batch\.sqlite\) cannot be used: OperationalError: database is locked$"
    with pytest.raises(StoreError, match=text):
        await filed.run(failing("database is locked\nand more"), outage=-1.0)


async def test_what_waiting_does_not_change_is_told_at_once(filed, monkeypatch):
    """
    A table that is not there, a folder that is a file, an error without words.
    """
    patient(monkeypatch)
    with pytest.raises(StoreError, match="no such table: kling_jobs"):
        await filed.transact(lambda connection: connection.execute(sa.select(JOBS)))
    (filed.path.parent / "file").write_text("")
    below = Database(f"sqlite:///{filed.path.parent}/file/batch.sqlite")
    with pytest.raises(StoreError, match=r"NotADirectoryError|FileExistsError"):
        await below.make(TABLES)

    def mute():
        raise OSError

    with pytest.raises(StoreError, match=r"OSError: $"):
        await filed.run(mute)


@pytest.mark.parametrize("rest", ["batch", "batch?password=secret"])
async def test_a_server_that_lets_nobody_in_is_told_at_once_without_the_password(postgres, monkeypatch, rest):
    """
    A wrong password is wrong for ever.
    """
    patient(monkeypatch)
    user = "guarded" if "?" in rest else "guarded:secret"
    made = Database(f"postgresql://{user}@127.0.0.1:{postgres.port}/{rest}")
    with pytest.raises(StoreError, match="authentication failed") as caught:
        await made.make(TABLES)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


async def test_a_server_that_is_not_there_is_told_to_who_looks_whether_there_is_a_batch():
    """
    At once: its name may be misspelt.
    """
    made = Database(f"postgresql://me:secret@127.0.0.1:{free_port()}/batch")
    with pytest.raises(StoreError, match="connection") as caught:
        await made.holds(JOBS)
    assert "secret" not in str(caught.value)


async def test_work_rides_out_a_restart(postgres, served, monkeypatch):
    """
    Its connections are cut, the server is away for a moment, and then it is done.
    """
    patient(monkeypatch)
    await served.make(TABLES)
    postgres.stop()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(served.make, TABLES)
            await run_sync(postgres.start)
    finally:
        if not postgres.runs:
            postgres.start()
    assert await served.holds(JOBS)


def test_a_lock_is_held_by_one(database):
    """
    Whoever else wants it gets none before it is let go.
    """
    other = Database(database.plain)
    lock = database.lock("w0")
    assert lock.taken()
    assert other.lock("w0") is None
    assert database.lock("w0") is None
    other.lock("w1").release()
    lock.release()
    lock.release()
    again = other.lock("w0")
    assert again is not None
    again.release()
    other.close()


def test_a_lock_ends_with_its_process(filed):
    """
    Even by SIGKILL, after which nobody could let it go.
    """
    script = (
        "import sys\n"
        "from kling_async.dbos._database import Database\n"
        "lock = Database(sys.argv[1]).lock('w0')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, filed.plain]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert b"held\n" == process.stdout.readline()
        assert filed.lock("w0") is None
        process.kill()
    lock = filed.lock("w0")
    assert lock is not None
    lock.release()


def killed(postgres, lock):
    """
    End a lock's session from outside.
    """
    query = sql.SQL("SELECT pg_terminate_backend(%s)")
    backend = lock._connection.connection.driver_connection.info.backend_pid
    assert [(True,)] == postgres.execute(query, [backend])


def test_a_lock_whose_session_was_ended_is_taken_anew(postgres, served):
    """
    Where nobody was quicker; else it is lost, and whoever held it hears so.
    """
    other = Database(served.plain)
    lock = served.lock("w0")
    killed(postgres, lock)
    assert lock.taken()
    killed(postgres, lock)
    taken = other.lock("w0")
    while taken is None:
        taken = other.lock("w0")  # the server ends a session in its own time
    assert not lock.taken()
    taken.release()
    assert lock.taken()
    lock.release()
    other.close()


def test_a_lock_that_cannot_be_asked_for_keeps_no_connection(served, monkeypatch):
    """
    The error is told, and its connection is not used again.
    """
    monkeypatch.setattr(_database, "_LOCKS", 1 << 40)
    with pytest.raises(sa.exc.DBAPIError):
        Lock(served, "w0").taken()
    assert 0 == served.pool.pool.checkedout()


def test_a_lock_can_be_waited_for(filed, monkeypatch):
    """
    Until it is let go, or for so long.
    """
    patient(monkeypatch)
    with filed.locked("migrating"):
        assert filed.lock("migrating") is None
        patient(monkeypatch, outage=-1.0)
        with pytest.raises(TimeoutError, match="migrating is held by another process"), filed.locked("migrating"):
            pass
    with filed.locked("migrating"):
        pass


async def test_who_waits_for_a_lock_gets_it(filed, monkeypatch):
    """
    As soon as it is let go.
    """
    patient(monkeypatch)
    lock, got = filed.lock("migrating"), []

    def wait():
        with filed.locked("migrating"):
            got.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(run_sync, wait)
        await anyio.wait_all_tasks_blocked()
        assert [] == got
        lock.release()
    assert [True] == got
