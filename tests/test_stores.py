"""
Where intents are kept.
"""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from kling_async import MemoryStore, SqliteStore, StoreError
from kling_async.stores import Intent

pytestmark = pytest.mark.real_clock

BEGAN = datetime(2026, 11, 20, tzinfo=UTC)


def intent(number=1, **more):
    return Intent(
        external_task_id=f"order-{number}",
        payload="ab" * 32,
        base_url="https://api.cometapi.com/kling",
        session_id="8475",
        created_at=BEGAN + timedelta(seconds=number),
        **more,
    )


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "deep" / "intents.sqlite")


async def test_an_intent_is_read_as_it_was_written(store):
    """
    Put, get, put over it, get: the latest stands.
    """
    await store.open()
    assert await store.get("order-1") is None
    await store.put(intent())
    assert intent() == await store.get("order-1")
    later = intent(state="accepted", attempts=2, first_sent_at=BEGAN, task_id="8781")
    await store.put(later)
    assert later == await store.get("order-1")
    await store.aclose()


async def test_the_latest_come_first(store):
    """
    As many as asked for, newest first.
    """
    await store.open()
    for number in range(1, 6):
        await store.put(intent(number))
    assert ["order-5", "order-4"] == [kept.external_task_id for kept in await store.recent(2)]
    await store.aclose()


async def test_sqlite_keeps_intents_for_the_next_process(tmp_path):
    """
    Another store on the same file finds them.
    """
    first, second = (SqliteStore(tmp_path / "intents.sqlite") for _ in range(2))
    await first.open()
    await first.put(intent())
    await first.aclose()
    await second.open()
    assert intent() == await second.get("order-1")
    await second.aclose()
    await second.aclose()


async def test_sqlite_serves_many_tasks_at_once(tmp_path):
    """
    Fifty writers in one process neither lose nor block each other.
    """
    kept = SqliteStore(tmp_path / "intents.sqlite")
    await kept.open()
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(kept.put, intent(number))
    assert 50 == len(await kept.recent())
    await kept.aclose()


async def test_sqlite_says_which_file_cannot_be_used(tmp_path):
    """
    A folder, or bytes that are no database, are a StoreError.
    """
    with pytest.raises(StoreError, match="cannot be used"):
        await SqliteStore(tmp_path).open()
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StoreError, match="text"):
        await SqliteStore(tmp_path / "text").open()


async def test_sqlite_must_be_open(tmp_path):
    """
    A store outside its client says so.
    """
    with pytest.raises(StoreError, match="not open"):
        await SqliteStore(tmp_path / "intents.sqlite").get("order-1")


def test_stores_say_what_they_are(tmp_path):
    """
    Their repr names the file or counts the intents.
    """
    assert "MemoryStore(0 intents)" == repr(MemoryStore())
    assert f"SqliteStore({tmp_path})" == repr(SqliteStore(tmp_path))
