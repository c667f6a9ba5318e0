"""
Intents in a file that several processes share: one owner at a time, numbered, followed when it is gone.
"""

import os
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from attrs import evolve

from kling_async import InvalidInputError, SqliteStore, StoreError, _sqlite
from kling_async.stores import Intent

pytestmark = pytest.mark.real_clock

ROW = Intent(
    external_task_id="order-1",
    payload="ab" * 32,
    base_url="https://api.cometapi.com/kling",
    session_id="8475",
    created_at=datetime(2026, 11, 20, tzinfo=UTC),
)


@pytest.fixture
async def two(tmp_path):
    """
    Two stores on one file, as two processes have them.
    """
    stores = SqliteStore(tmp_path / "a.sqlite"), SqliteStore(tmp_path / "a.sqlite")
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.aclose()


def seized(store, owner, *, until=None):
    """
    Make another the owner, as a process that has ended or hangs leaves it.
    """
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE owners SET owner = ?, until = ?", (owner, until or time.time() + 60))
    connection.close()


def ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


async def test_what_an_earlier_owner_writes_is_not_taken(two):
    """
    Its lease ran out, another has taken over: it cannot send any more, but may tell of a task.
    """
    first = two[0]
    early = await first.claim(ROW)
    seized(first, first._owner, until=1.0)
    late = await two[1].claim(ROW)
    assert (1, 2) == (early.fence, late.fence)
    assert not await first.put(evolve(early, state="sending"))
    assert await two[1].put(evolve(late, state="sending"))
    assert await first.put(evolve(early, state="accepted", task_id="8781"))
    assert not await two[1].put(evolve(late, state="unknown"))
    assert "accepted" == (await first.get("order-1")).state


async def test_an_owner_that_was_killed_is_followed_at_once(two):
    """
    Its process has ended, so its lease is not waited for.
    """
    await two[0].claim(ROW)
    seized(two[0], f"{_sqlite._machine()} {ended_process()} x")
    assert 2 == (await two[1].claim(ROW)).fence


@pytest.mark.parametrize("owner", [f"elsewhere {os.getpid()} x", " 4194000 x", "{here} 1 x"])
async def test_an_owner_that_may_live_is_waited_for(two, owner):
    """
    On another machine, on one that nobody knows, or a process that is not ours to signal.
    """
    await two[0].claim(ROW)
    seized(two[0], owner.format(here=_sqlite._machine()))
    assert await two[1].claim(ROW) is None
    seized(two[0], owner.format(here=_sqlite._machine()), until=1.0)
    assert 2 == (await two[1].claim(ROW)).fence


async def test_a_process_that_may_not_be_signalled_lives(two, monkeypatch):
    """
    Another user's is alive all the same.
    """

    def refused(_process, _signal):
        raise PermissionError

    await two[0].claim(ROW)
    monkeypatch.setattr(_sqlite, "os", SimpleNamespace(kill=refused))
    assert await two[1].claim(ROW) is None


async def test_an_owner_that_was_killed_and_not_asked_after_is_gone(two, tmp_path, monkeypatch):
    """
    A zombie has its number still, but sends nothing any more; a name with brackets in it misleads nobody.
    """
    await two[0].claim(ROW)
    stat = tmp_path / "stat"
    monkeypatch.setattr(_sqlite, "_STATUS", str(stat))
    stat.write_text("17 (a) Z (b) S 1 17 17 0")
    assert await two[1].claim(ROW) is None
    stat.write_text("17 (a) Z 1 17 17 0")
    assert 2 == (await two[1].claim(ROW)).fence


async def test_where_processes_cannot_be_told_leases_decide(tmp_path, monkeypatch):
    """
    Without Linux's names for this boot and these processes nobody is taken for gone.
    """
    monkeypatch.setattr(_sqlite, "_BOOT", str(tmp_path / "none"))
    store = SqliteStore(tmp_path / "a.sqlite")
    await store.open()
    await store.claim(ROW)
    seized(store, " 4194000 x")
    assert await store.claim(ROW) is None
    await store.aclose()


async def test_a_sending_owner_keeps_its_lease(two):
    """
    Each thing that it writes makes its lease run anew.
    """
    claimed = await two[0].claim(ROW)
    seized(two[0], two[0]._owner, until=1.0)
    await two[0].put(evolve(claimed, state="sending"))
    assert await two[1].claim(ROW) is None


async def test_a_change_that_fails_midway_is_undone(two, monkeypatch):
    """
    The row is not owned by one whose claim could not be written whole.
    """

    def full(_value):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(_sqlite, "written", full)
    with pytest.raises(StoreError, match="disk is full"):
        await two[0].claim(ROW)
    monkeypatch.undo()
    assert 1 == (await two[1].claim(ROW)).fence


async def test_a_file_of_the_first_version_is_read_and_gone_on_with(tmp_path):
    """
    Its rows know neither owners nor fences.
    """
    body = (
        '{"external_task_id":"order-1","payload":"ab","base_url":"https://api.cometapi.com/kling","session_id":"8475",'
        '"created_at":"2026-11-20T00:00:00+00:00","state":"sending","attempts":1,'
        '"first_sent_at":"2026-11-20T00:00:01+00:00","task_id":null}'
    )
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    connection.execute(
        "CREATE TABLE intents (external_task_id TEXT PRIMARY KEY, created_at TEXT NOT NULL, body TEXT NOT NULL) STRICT"
    )
    connection.execute("INSERT INTO intents VALUES ('order-1', '2026-11-20T00:00:00+00:00', ?)", (body,))
    connection.commit()
    connection.close()
    store = SqliteStore(tmp_path / "old.sqlite")
    await store.open()
    claimed = await store.claim(ROW)
    assert ("sending", 1, 1) == (claimed.state, claimed.attempts, claimed.fence)
    assert await store.put(evolve(claimed, state="unknown"))
    await store.aclose()


def test_many_processes_may_make_the_file_at_once(tmp_path):
    """
    The switch to the write-ahead log is not something that SQLite waits for: we do.
    """
    path = tmp_path / "new.sqlite"
    script = (
        "import anyio, sys; from kling_async import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(sys.argv[1]); print('ready', flush=True); sys.stdin.readline(); await store.open()\n"
        "    await store.aclose()\n"
        "anyio.run(main)"
    )
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=pipe, stdout=pipe, text=True)
        for _ in range(4)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
    assert [0] * 4 == [child.returncode for child in children]


def test_a_file_that_another_process_switches_is_tried_again():
    """
    Busy is waited for, up to a limit; any other fault is told at once.
    """
    busy, other = sqlite3.OperationalError("database is locked"), sqlite3.OperationalError("disk I/O error")
    busy.sqlite_errorcode, other.sqlite_errorcode = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR
    tries = [busy, busy, None, other]

    def execute(_statement):
        answer = tries.pop(0)
        if answer is not None:
            raise answer

    _sqlite._write_ahead(SimpleNamespace(execute=execute))
    assert [other] == tries
    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        _sqlite._write_ahead(SimpleNamespace(execute=execute))


@pytest.mark.parametrize("lease", [0, -1, True, float("nan"), "60"])
def test_a_lease_is_a_number_of_seconds(lease):
    """
    Nothing else can be waited for.
    """
    with pytest.raises(InvalidInputError, match="lease"):
        SqliteStore("a.sqlite", lease=lease)


@pytest.mark.parametrize("path", ["", ".", ":memory:", None, 7])
def test_a_store_is_a_file(path):
    """
    What keeps nothing for the next process is refused before anything relies on it.
    """
    with pytest.raises(InvalidInputError, match="path"):
        SqliteStore(path)
