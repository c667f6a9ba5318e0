"""
Where intents are kept.
"""

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from attrs import evolve

from kling_async import MemoryStore, SqliteStore, StoreError, stores
from kling_async.stores import Abilities, Intent

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


async def test_one_owner_at_a_time_in_memory():
    """
    The second waits until the first lets go; an earlier owner's release changes nothing.
    """
    store = MemoryStore()
    first = await store.claim(intent())
    assert await store.claim(intent()) is None
    await store.release(first)
    second = await store.claim(intent())
    assert (1, 2) == (first.fence, second.fence)
    await store.release(first)
    await store.release(intent(7))
    assert await store.claim(intent()) is None
    assert not await store.put(evolve(first, state="sending"))
    assert await store.put(evolve(first, state="accepted", task_id="8781"))
    assert "accepted" == (await store.claim(intent())).state


async def test_memory_holds_the_last_known_tasks(monkeypatch):
    """
    Older ones are forgotten, those in doubt never.
    """
    monkeypatch.setattr(stores, "KEPT", 2)
    store = MemoryStore()
    await store.put(intent(9, state="unknown"))
    for number in range(1, 5):
        await store.put(intent(number, state="accepted", task_id=f"t-{number}"))
    await store.put(intent(4, state="succeeded", task_id="t-4"))
    assert ["order-4", "order-3", "order-9"] == [kept.external_task_id for kept in await store.recent()]
    assert ["order-9"] == [kept.external_task_id for kept in await store.recent(states=("unknown",))]


async def test_memory_keeps_what_was_learned_of_a_host():
    """
    Each host apart.
    """
    store = MemoryStore()
    await store.learn("https://a.example", Abilities(finds=True))
    assert Abilities(finds=True) == await store.abilities("https://a.example")
    assert Abilities() == await store.abilities("https://b.example")
