"""
Where intents are kept: what holds for every store, for those that processes share, and for memory.
"""

import secrets
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_async import MemoryStore, PostgresStore, SqliteStore, StoreError, stores
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


def maker(kind, request, folder):
    """
    What makes stores that share one place.
    """
    if kind == "memory":
        return MemoryStore
    if kind == "sqlite":
        return lambda: SqliteStore(folder / "deep" / "intents.sqlite")
    url, schema = request.getfixturevalue("postgres").url("stores"), f"s{secrets.token_hex(4)}"
    return lambda: PostgresStore(url, schema=schema)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request, tmp_path):
    """
    A store of any kind.
    """
    return maker(request.param, request, tmp_path)()


@pytest.fixture(params=["sqlite", "postgres"])
async def two(request, tmp_path):
    """
    Two stores on one place, as two processes have them.
    """
    made = maker(request.param, request, tmp_path)
    both = made(), made()
    for each in both:
        await each.open()
    yield both
    for each in both:
        await each.aclose()


# Any store


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


async def test_the_latest_of_some_states(store):
    """
    Those that are asked for, newest first; of those that were meant at the same time, what was written last.
    """
    await store.open()
    for number, state in enumerate(["unknown", "refused", "sending", "unknown"]):
        await store.put(evolve(intent(), external_task_id=f"order-{number}", state=state))
    found = await store.recent(2, states=("unknown", "sending"))
    assert ["order-3", "order-2"] == [row.external_task_id for row in found]
    assert () == await store.recent(states=())
    assert 4 == len(await store.recent())
    await store.aclose()


async def test_one_store_has_one_owner_at_a_time(store):
    """
    Who claims it again waits until it is released, and an earlier owner's release changes nothing.
    """
    await store.open()
    first = await store.claim(intent())
    assert await store.claim(intent()) is None
    await store.release(first)
    second = await store.claim(intent())
    assert (1, 2) == (first.fence, second.fence)
    await store.release(intent(7))
    assert await store.claim(intent()) is None
    assert not await store.put(evolve(first, state="sending"))
    assert await store.put(evolve(first, state="accepted", task_id="8781"))
    assert "accepted" == (await store.claim(intent())).state
    await store.aclose()


async def test_a_known_task_is_claimed_by_nobody(store):
    """
    It is shown as it is; so is one that the store has never seen.
    """
    await store.open()
    known = intent(state="accepted", task_id="8781")
    assert known == await store.claim(known)
    await store.put(known)
    assert known == await store.claim(intent())
    await store.aclose()


async def test_a_task_is_never_written_over_by_another(store):
    """
    Whoever knows it may write it; another, or an earlier state, is not taken.
    """
    await store.open()
    claimed = await store.claim(intent())
    assert await store.put(evolve(claimed, state="sending", attempts=1))
    assert not await store.put(evolve(claimed, state="absent"))
    assert await store.put(evolve(claimed, state="accepted", task_id="8781", fence=0))
    assert not await store.put(evolve(claimed, state="accepted", task_id="8782"))
    assert not await store.put(evolve(claimed, state="unknown"))
    assert await store.put(evolve(claimed, state="succeeded", task_id="8781"))
    assert ("succeeded", "8781") == ((await store.get("order-1")).state, (await store.get("order-1")).task_id)
    await store.aclose()


async def test_what_was_learned_of_a_host_is_kept_for_each_apart(store):
    """
    What was learned last stands; of a host that was never met nothing is known.
    """
    await store.open()
    learned = Abilities(finds=True, enforces=None, echoes=False)
    await store.learn("https://a.example", Abilities(finds=False))
    await store.learn("https://a.example", learned)
    assert learned == await store.abilities("https://a.example")
    assert Abilities() == await store.abilities("https://b.example")
    await store.aclose()


async def test_many_tasks_are_served_at_once(store):
    """
    Fifty writers in one process neither lose nor block each other.
    """
    await store.open()
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(store.put, intent(number))
    assert 50 == len(await store.recent())
    await store.aclose()


# Stores that processes share


async def test_one_owner_at_a_time(two):
    """
    The second is told to wait until the first lets go, and then has the next number.
    """
    first, second = two
    claimed = await first.claim(intent())
    assert intent(fence=1) == claimed
    assert await second.claim(intent()) is None
    await second.release(claimed)
    assert await second.claim(intent()) is None
    await first.release(claimed)
    assert 2 == (await second.claim(intent())).fence


async def test_a_known_task_needs_no_owner(two):
    """
    Once it is accepted anyone has the row as it is.
    """
    first, second = two
    claimed = await first.claim(intent())
    await first.put(evolve(claimed, state="accepted", task_id="8781"))
    assert await first.get("order-1") == await second.claim(intent())
    assert 1 == (await second.claim(intent())).fence


async def test_what_one_writes_the_other_reads(two):
    """
    Intents, their ends, and what was learned of a host.
    """
    first, second = two
    await first.put(intent())
    assert intent() == await second.get("order-1")
    assert (intent(),) == await second.recent()
    await second.learn("https://a.example", Abilities(finds=True))
    assert Abilities(finds=True) == await first.abilities("https://a.example")


async def test_of_many_who_claim_at_once_one_is_the_owner(two):
    """
    Whichever store they ask.
    """
    got = []

    async def ask(store):
        got.append(await store.claim(intent()))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, two[number % 2])
    assert [1] == [claimed.fence for claimed in got if claimed is not None]


async def test_a_store_lives_through_two_clients_one_after_the_other(two):
    """
    Open, close, open again; closing twice does nothing.
    """
    store = two[0]
    await store.aclose()
    for number in (1, 2):
        await store.open()
        claimed = await store.claim(intent())
        assert number == claimed.fence
        await store.release(claimed)
        await store.aclose()
    await store.aclose()


async def test_a_store_must_be_open(two):
    """
    Outside its client it says so.
    """
    await two[0].aclose()
    with pytest.raises(StoreError, match="not open"):
        await two[0].get("order-1")


STEPS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["claim", "put", "put", "put", "release", "lapse"]),
    st.sampled_from(["intent", "sending", "refused", "unknown", "absent", "accepted", "succeeded", "failed"]),
    st.sampled_from([None, "8781", "8782"]),
)


@pytest.mark.timeout(120)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_stores_that_processes_share_answer_alike(request, tmp_path_factory, steps):
    """
    Whatever two owners do with an intent, in whichever order: a file and a database say the same to each of it.
    """
    told = {}
    for kind in ("sqlite", "postgres"):
        made = maker(kind, request, tmp_path_factory.mktemp(kind))
        told[kind] = anyio.run(lived, (made(), made()), steps)
    assert told["sqlite"] == told["postgres"]


async def lapsed(store):
    """
    Have all leases run out.
    """
    if isinstance(store, SqliteStore):
        await store._run(lambda: store._rows("UPDATE owners SET until = 0"))
    else:
        await store._run(lambda connection: connection.execute("UPDATE intents SET until = clock_timestamp()"))


async def lived(both, steps):
    """
    What two stores say to these steps, and what they show in the end.
    """
    held, said = [None, None], []
    for each in both:
        await each.open()
    for who, what, state, task_id in steps:
        if what == "claim":
            found = await both[who].claim(intent())
            held[who] = found or held[who]
            said.append(found)
        elif what == "lapse":
            await lapsed(both[who])
        elif held[who] is not None and what == "put":
            said.append(await both[who].put(evolve(held[who], state=state, task_id=task_id, attempts=len(said))))
        elif held[who] is not None:
            await both[who].release(held[who])
            held[who] = None
    said.append([await each.recent() for each in both])
    for each in both:
        await each.aclose()
    return said


# A file


async def test_sqlite_says_which_file_cannot_be_used(tmp_path):
    """
    A folder, or bytes that are no database, are a StoreError.
    """
    with pytest.raises(StoreError, match="cannot be used"):
        await SqliteStore(tmp_path).open()
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StoreError, match="text"):
        await SqliteStore(tmp_path / "text").open()


def test_stores_say_what_they_are(tmp_path):
    """
    Their repr names the file or counts the intents.
    """
    assert "MemoryStore(0 intents)" == repr(MemoryStore())
    assert f"SqliteStore({tmp_path})" == repr(SqliteStore(tmp_path))


# Memory


async def test_a_release_by_an_earlier_owner_changes_nothing():
    """
    Its fencing number tells it from the owner that came after it.
    """
    store = MemoryStore()
    first = await store.claim(intent())
    await store.release(first)
    await store.claim(intent())
    await store.release(first)
    assert await store.claim(intent()) is None


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
