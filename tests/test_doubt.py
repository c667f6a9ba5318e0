"""
A create whose reply never came, or said nothing: looked for, adopted, and never gambled with.

The simulator's own count of charges is the judge.
"""

from datetime import timedelta

import anyio
import pytest

from kling_async import (
    ApiKey,
    KeyConflictError,
    KlingClient,
    MemoryStore,
    Removal,
    RetryPolicy,
    StoreError,
    SubmissionError,
    UnknownOutcomeError,
)
from kling_async.events import Created
from kling_async.simulator import Fault, Shape, Simulator
from tests.doubles import KEY, ORDER, Account

RESEND = RetryPolicy(on_unknown="resend")
HIDDEN = Shape(finds_external_ids=False, lists=False, external_ids="repeatable")


def posts(simulator):
    """
    Paid creates that reached it.
    """
    return sum(seen.method == "POST" and seen.path.endswith("/multi-elements") for seen in simulator.log)


def looked(simulator):
    return sum(seen.method == "GET" for seen in simulator.log)


def client_of(simulator, **named):
    return KlingClient(ApiKey(KEY), transport=simulator.transport(), **named)


async def ordered(simulator, key="order-1", **named):
    async with client_of(simulator, **named) as client:
        return await Account(client).order(key)


@pytest.mark.parametrize("ids", ["unique", "repeatable"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", "lost"),
        Fault("create", "code", code=5000, handled=True),
        Fault("create", "code", code=5002, handled=True),
        Fault("create", "html", status=502, handled=True),
        Fault("create", "html", status=504, handled=True),
        Fault("create", "status", status=408, handled=True),
    ],
    ids=["lost", "5000", "5002", "502", "504", "408"],
)
async def test_f9_a_create_accepted_behind_a_bad_answer_is_found(fault, ids):
    """
    Whatever was answered instead, its task is looked for and returned: one charge, one POST.
    """
    simulator = Simulator(faults=[fault], shape=Shape(external_ids=ids))
    events = []
    task = await ordered(simulator, observer=events.append)
    assert "order-1" == task.external_task_id
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == posts(simulator)
    assert [task.task_id] == [event.task_id for event in events if isinstance(event, Created)]


@pytest.mark.parametrize("known", [True, False], ids=["a host that was seen to find", "a host that was not"])
@pytest.mark.parametrize("retry", [RetryPolicy(), RESEND], ids=["raise", "resend"])
async def test_f11_a_create_refused_with_500(retry, known):
    """
    It is not there: it goes out again only with leave, and where a known task shows that this can be told.
    """
    simulator = Simulator(shape=Shape(external_ids="repeatable"))
    async with client_of(simulator, retry=retry) as client:
        if known:
            await Account(client).order("order-0")
        simulator.script(Fault("create", "code", code=5000))
        if known and retry is RESEND:
            assert "order-1" == (await Account(client).order()).external_task_id
            assert 1 == simulator.charges["order-1"]
            return
        with pytest.raises(UnknownOutcomeError) as caught:
            await Account(client).order()
    assert ("order-1", known) == (caught.value.external_task_id, caught.value.absent)
    assert "order-1" not in simulator.charges
    assert 1 + known == posts(simulator)


async def test_a_create_is_resent_as_often_as_the_policy_says():
    """
    Then its outcome is unknown all the same.
    """
    simulator = Simulator()
    async with client_of(simulator, retry=RESEND) as client:
        await Account(client).order("order-0")
        simulator.script(Fault("create", "code", code=5000, times=None))
        with pytest.raises(UnknownOutcomeError) as caught:
            await Account(client).order()
    assert (3, True) == (caught.value.attempts, caught.value.absent)
    assert 4 == posts(simulator)


async def test_a_host_that_enforces_ids_gives_leave_to_resend():
    """
    Where one key is one account, a second task of the same id is impossible: the absent one is sent again.
    """
    simulator = Simulator(shape=Shape(lag_seconds=5))
    async with KlingClient(
        ApiKey(KEY), transport=simulator.transport(), base_url="https://api-singapore.klingai.com"
    ) as client:
        await Account(client).order("order-0")
        client.creates.store._intents.clear()
        await Account(client).order("order-0")
        simulator.script(Fault("create", "code", code=5000))
        await Account(client).order()
    assert {"order-0": 1, "order-1": 1} == dict(simulator.charges)
    assert 4 == posts(simulator)


async def test_f17_an_id_that_is_taken_by_our_own_earlier_create_is_adopted():
    """
    Sent twice by a relay, or by an earlier process whose task is indexed late: 1201 with our id leads to the task.
    """
    simulator = Simulator(shape=Shape(lag_seconds=5))
    first = await ordered(simulator)
    async with client_of(simulator) as client:
        second = await Account(client).order()
        assert (await client.creates.search.able()).enforces is True
    assert first.task_id == second.task_id
    assert {"order-1": 1} == dict(simulator.charges)
    assert 2 == posts(simulator)


async def test_f18_the_same_id_for_another_payload_is_a_conflict():
    """
    Told from the store's own row, before anything is sent.
    """
    simulator, store = Simulator(), MemoryStore()
    await ordered(simulator, store=store)
    async with client_of(simulator, store=store) as client:
        with pytest.raises(KeyConflictError, match="order-1"):
            await Account(client).order(edit=Removal.of("the bird"))
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == posts(simulator)


@pytest.mark.parametrize("retry", [RetryPolicy(), RESEND], ids=["raise", "resend"])
async def test_f19_a_task_that_is_found_late_is_waited_for(retry):
    """
    The index lags five seconds behind: nothing is sent a second time.
    """
    simulator = Simulator(faults=[Fault("create", "lost")], shape=Shape(lag_seconds=5, external_ids="repeatable"))
    await ordered(simulator, retry=retry)
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == posts(simulator)


@pytest.mark.parametrize("retry", [RetryPolicy(), RESEND], ids=["raise", "resend"])
async def test_f20_a_host_that_never_finds_external_ids_is_never_sent_to_again(retry):
    """
    That it finds nothing proves nothing, whatever the policy.
    """
    simulator = Simulator(shape=HIDDEN)
    async with client_of(simulator, retry=retry) as client:
        await Account(client).order("order-0")
        simulator.script(Fault("create", "lost"))
        with pytest.raises(UnknownOutcomeError) as caught:
            await Account(client).order()
    assert caught.value.absent is False
    assert {"order-0": 1, "order-1": 1} == dict(simulator.charges)
    assert 2 == posts(simulator)


async def test_a_host_that_is_known_not_to_find_is_asked_once():
    """
    Nobody waits a minute and a half for what cannot come.
    """
    simulator, store = Simulator(shape=HIDDEN, faults=[Fault("create", "lost")]), MemoryStore()
    async with client_of(simulator, store=store) as client:
        await client.creates.search.learn(finds=False)
        began = anyio.current_time()
        with pytest.raises(UnknownOutcomeError):
            await Account(client).order()
        assert anyio.current_time() - began < 1


async def test_f21_a_gateway_that_drops_external_ids_is_noticed(caplog):
    """
    The first task at its end does not tell our id: that is said, kept, and no create is sent again there.
    """
    simulator, store = Simulator(shape=Shape(external_ids="dropped")), MemoryStore()
    async with client_of(simulator, store=store, retry=RESEND) as client:
        await client.wait(await Account(client).order("order-0"))
        assert (await store.abilities(client.base_url)).echoes is False
        assert 1 == caplog.text.count("drops external ids")
        simulator.script(Fault("create", "lost"))
        with pytest.raises(UnknownOutcomeError):
            await Account(client).order()
    assert [1, 1] == sorted(simulator.charges.values())
    assert 2 == posts(simulator)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"<html>", b'{"code":0}', b'{"code":0,"data":null}', b'{"code":0,"data":[]}', b'{"code":0,"data":{}}'],
)
async def test_f22_a_success_without_a_task_is_a_doubt(body):
    """
    It was accepted all the same, and is found.
    """
    simulator = Simulator(faults=[Fault("create", "status", status=200, body=body, handled=True)])
    task = await ordered(simulator)
    assert task.task_id
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == posts(simulator)


async def test_a_task_that_no_query_finds_is_found_in_the_list():
    """
    The host does not look by external ids, but lists what they were.
    """
    simulator = Simulator(faults=[Fault("create", "lost")], shape=Shape(finds_external_ids=False))
    async with KlingClient(
        ApiKey(KEY), transport=simulator.transport(), base_url="https://api-singapore.klingai.com"
    ) as client:
        assert "order-1" == (await Account(client).order()).external_task_id
    assert {"order-1": 1} == dict(simulator.charges)


async def test_what_another_key_sent_is_adopted_but_never_sent_again():
    """
    Not finding it proves nothing about another account.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=1000)), MemoryStore()
    simulator.script(Fault("create", "lost"))
    with pytest.raises(UnknownOutcomeError):
        await ordered(simulator, store=store)
    async with KlingClient(ApiKey("sk-rotated-key"), transport=simulator.transport(), store=store) as client:
        with pytest.raises(UnknownOutcomeError, match="another key"):
            await Account(client).order()
        await anyio.sleep(1000)
        assert "order-1" == (await Account(client).order()).external_task_id
    assert {"order-1": 1} == dict(simulator.charges)


async def test_an_id_of_a_month_ago_is_refused():
    """
    The service forgets tasks after thirty days: neither their presence nor their absence can be told.
    """
    simulator, store = Simulator(), MemoryStore()
    await ordered(simulator, store=store)
    async with client_of(simulator, store=store) as client:
        search = client.creates.search
        now = search.now
        search.now = lambda: now() + timedelta(days=30)
        with pytest.raises(SubmissionError, match="29 days") as caught:
            await Account(client).order()
    assert SubmissionError is type(caught.value)
    assert {"order-1": 1} == dict(simulator.charges)


async def test_a_first_look_is_good_for_a_minute():
    """
    Longer ago, the id is looked for again before it is sent.
    """
    simulator, store = Simulator(), MemoryStore()
    async with client_of(simulator, store=store) as client:
        assert await client.creates.known("order-1", ORDER.prompt) is None
        once = looked(simulator)
        search = client.creates.search
        now = search.now
        search.now = lambda: now() + timedelta(seconds=61)
        await Account(client).order()
        assert once < looked(simulator)


class Stopped(MemoryStore):
    """
    A store whose first owner is stopped before it writes a state, until another has taken over and is done.
    """

    def __init__(self, state, meanwhile):
        super().__init__()
        self.state, self.meanwhile = state, meanwhile

    async def put(self, intent):
        if intent.state == self.state:
            self.state = None
            self._owned.clear()
            await self.meanwhile()
        return await super().put(intent)


@pytest.mark.parametrize("ids", ["unique", "repeatable"])
@pytest.mark.parametrize("state", ["sending", "accepted", "unknown"])
async def test_an_owner_that_was_overtaken_does_not_send(ids, state):
    """
    Whoever is stopped before it sends, or before it writes what came, finds the other's task when it goes on.
    """
    faults = [Fault("create", "lost")] if state == "unknown" else []
    simulator, tasks = Simulator(shape=Shape(external_ids=ids), faults=faults), []

    async def overtake():
        tasks.append(await Account(second).order())

    store = Stopped(state, overtake)
    async with client_of(simulator, store=store) as first, client_of(simulator, store=store) as second:
        tasks.append(await Account(first).order())
    assert 2 == len(tasks)
    assert 1 == len({task.task_id for task in tasks})
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == posts(simulator)


async def test_two_clients_on_one_store_create_once():
    """
    The second waits for the first, and has its task.
    """
    simulator, store, tasks = Simulator(shape=Shape(external_ids="repeatable")), MemoryStore(), []
    async with client_of(simulator, store=store) as first, client_of(simulator, store=store) as second:

        async def order(client):
            tasks.append(await Account(client).order())

        async with anyio.create_task_group() as group:
            group.start_soon(order, first)
            group.start_soon(order, second)
    assert 1 == len({task.task_id for task in tasks})
    assert {"order-1": 1} == dict(simulator.charges)


class Stuck(MemoryStore):
    """
    A store that cannot let go.
    """

    async def release(self, intent):
        raise StoreError("disk full")


async def test_a_create_that_cannot_be_released_is_told_of(caplog):
    """
    The caller gets the error of the create, the log that of the store.
    """
    simulator = Simulator(shape=HIDDEN, faults=[Fault("create", "lost")])
    with pytest.raises(UnknownOutcomeError):
        await ordered(simulator, store=Stuck())
    assert "could not be released: disk full" in caplog.text
