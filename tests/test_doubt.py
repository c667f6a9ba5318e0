"""
A create whose reply never came, or said nothing: looked for, adopted, and never gambled with.

The simulator's own count of charges is the judge.
"""

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from attrs import evolve

from kling_async import (
    ApiKey,
    KeyConflictError,
    KlingClient,
    KlingError,
    MemoryStore,
    Removal,
    RetryPolicy,
    StoreError,
    SubmissionError,
    TaskFailedError,
    UnknownOutcomeError,
)
from kling_async._doubt import named
from kling_async._submit import Intent
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
        assert (await client.creates.doubts.search.able()).enforces is True
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
        await client.creates.doubts.search.learn(finds=False)
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
        search = client.creates.doubts.search
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
        search = client.creates.doubts.search
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


class Lame(MemoryStore):
    """
    A store that fails in some of its calls.
    """

    def __init__(self, *failing):
        super().__init__()
        self.failing = failing

    def _check(self, call):
        if call in self.failing:
            raise StoreError("disk full")

    async def put(self, intent):
        self._check(intent.state)
        return await super().put(intent)

    async def get(self, external_task_id):
        self._check("get")
        return await super().get(external_task_id)

    async def abilities(self, base_url):
        self._check("abilities")
        return await super().abilities(base_url)


async def test_a_store_that_fails_after_the_send_never_reads_as_if_nothing_was_sent(caplog):
    """
    The doubt is told as a doubt, and a found task is returned; the log has what the store lost.
    """
    for found in (True, False):
        shape = Shape() if found else HIDDEN
        simulator = Simulator(shape=shape, faults=[Fault("create", "lost")])
        ordering = ordered(simulator, store=Lame("unknown", "accepted", "abilities", "get"))
        if found:
            assert "order-1" == (await ordering).external_task_id
        else:
            with pytest.raises(UnknownOutcomeError):
                await ordering
    assert "is unknown (task None), but that could not be written: disk full" in caplog.text
    assert "could not be read: disk full" in caplog.text


async def test_a_wait_ends_well_although_its_end_cannot_be_written(caplog):
    """
    The video is there, whatever the store says.
    """
    simulator = Simulator()
    async with client_of(simulator, store=Lame("get")) as client:
        assert "succeed" == (await client.wait(await Account(client).order())).status
    assert "could not be written: disk full" in caplog.text


@pytest.mark.parametrize("failing", [False, True])
async def test_the_end_of_a_task_is_kept(failing):
    """
    Succeeded or failed, for the record of what was done.
    """
    simulator, store = Simulator(faults=[Fault("task", "failed")] * failing), MemoryStore()
    async with client_of(simulator, store=store) as client:
        task = await Account(client).order()
        if failing:
            with pytest.raises(TaskFailedError):
                await client.wait(task.task_id)
        else:
            await client.wait(task.task_id)
        assert ("failed" if failing else "succeeded") == (await store.get("order-1")).state
        await Account(client).order()
    assert {"order-1": 1 - failing} == dict(simulator.charges)


async def test_a_task_of_others_is_waited_for_without_a_row():
    """
    A client that has not created it writes nothing.
    """
    simulator, store = Simulator(), MemoryStore()
    task = await ordered(simulator)
    async with client_of(simulator, store=store) as client:
        assert "succeed" == (await client.wait(task)).status
    assert () == await store.recent()


async def test_an_overtaken_create_whose_task_cannot_be_shown_is_a_doubt():
    """
    This client may have sent it: no other error would be true.
    """
    simulator = Simulator()

    async def overtake():
        await Account(second).order()
        simulator.script(Fault("get", "code", code=5000, times=None))

    store = Stopped("accepted", overtake)
    async with client_of(simulator, store=store) as first, client_of(simulator, store=store) as second:
        store.state = "sending"
        with pytest.raises(UnknownOutcomeError, match="5000"):
            await Account(first).order()
    assert {"order-1": 1} == dict(simulator.charges)


async def test_a_key_that_was_overtaken_while_it_was_looked_up_is_looked_up_again():
    """
    The other's task is the answer.
    """
    simulator = Simulator(shape=Shape(lag_seconds=1))

    async def overtake():
        await Account(second).order()

    store = Stopped("intent", overtake)
    async with client_of(simulator, store=store) as first, client_of(simulator, store=store) as second:
        task = await first.creates.known("order-1", ORDER.prompt)
    assert "order-1" == task.external_task_id
    assert {"order-1": 1} == dict(simulator.charges)


async def test_an_absent_create_that_was_overtaken_is_not_resent():
    """
    Another owner has sent it meanwhile, and its task is the answer.
    """
    simulator = Simulator(shape=Shape(external_ids="repeatable"))

    async def overtake():
        await Account(second).order()

    store = Stopped("absent", overtake)
    async with client_of(simulator, store=store, retry=RESEND) as first, client_of(simulator, store=store) as second:
        await Account(first).order("order-0")
        simulator.script(Fault("create", "code", code=5000))
        second.creates.exchange.retry = RESEND
        store.state = "absent"
        first_task = await Account(first).order()
    assert first_task.external_task_id == "order-1"
    assert {"order-0": 1, "order-1": 1} == dict(simulator.charges)


async def test_a_create_that_others_are_at_is_asked_for_again_and_again(caplog):
    """
    First soon, then every second, until its owner lets go.
    """
    caplog.set_level("INFO", "kling_async")
    simulator, store = Simulator(), MemoryStore()
    async with client_of(simulator, store=store) as client, anyio.create_task_group() as group:
        key = client.creates._intent("order-1", ORDER.prompt, "")
        held = await store.claim(key)
        group.start_soon(Account(client).order)
        await anyio.sleep(30)
        assert 0 == posts(simulator)
        await store.release(held)
    assert {"order-1": 1} == dict(simulator.charges)
    assert 1 == caplog.text.count("seen to by another client")


async def test_a_doubt_ends_as_soon_as_anyone_knows_the_task():
    """
    A delivery settles the row while its task is still being looked for in vain.
    """
    simulator, store, tasks = Simulator(shape=HIDDEN, faults=[Fault("create", "lost")]), MemoryStore(), []
    async with client_of(simulator, store=store) as client, anyio.create_task_group() as group:

        async def order():
            tasks.append(await Account(client).order())

        group.start_soon(order)
        await anyio.sleep(30)
        row = await store.get("order-1")
        assert "unknown" == row.state
        [run] = simulator._desk.machine.tasks._all.values()
        await store.put(evolve(row, state="accepted", task_id=run.task_id))
    assert [run.task_id] == [task.task_id for task in tasks]
    assert {"order-1": 1} == dict(simulator.charges)


async def test_leaving_a_doubt_names_its_create(caplog):
    """
    Cancelled while its task is looked for: a paid task may exist, and the next create of its id finds it.
    """
    simulator, store, notes = (
        Simulator(shape=Shape(lag_seconds=20), faults=[Fault("create", "lost")]),
        MemoryStore(),
        [],
    )
    async with client_of(simulator, store=store) as client:
        with anyio.move_on_after(10):
            try:
                await Account(client).order()
            except anyio.get_cancelled_exc_class() as cancelled:
                notes.extend(cancelled.__notes__)
                raise
        assert "unknown" == (await store.get("order-1")).state
        assert "'order-1'" in notes[0]
        assert "'order-1'" in caplog.text
        assert "order-1" == (await Account(client).order()).external_task_id
    assert {"order-1": 1} == dict(simulator.charges)


def test_a_cut_that_passes_two_who_name_the_create_is_noted_once(caplog):
    """
    A create that was taken over midway and then cut off is named by both of its tries: one note, one line in the log.
    """
    intent = Intent(
        external_task_id="order-1",
        payload="",
        base_url="",
        session_id="",
        created_at=datetime.now(UTC),
        state="unknown",
    )
    with pytest.raises(KeyboardInterrupt) as caught, named(intent), named(intent):
        raise KeyboardInterrupt
    assert 1 == len(caught.value.__notes__)
    assert 1 == caplog.text.count("'order-1' was cut off")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", "gateway", handled=True),
        Fault("create", "status", status=404, handled=True),
        Fault("create", "redirect", handled=True),
    ],
    ids=["invalid_request", "404", "redirect"],
)
async def test_a_refusal_that_covers_an_acceptance_is_not_paid_again(fault):
    """
    A relay's words are taken for a refusal, but the next create of that id looks for it first.
    """
    simulator, store = Simulator(shape=Shape(external_ids="repeatable"), faults=[fault]), MemoryStore()
    with pytest.raises(KlingError):
        await ordered(simulator, store=store)
    assert "order-1" == (await ordered(simulator, store=store)).external_task_id
    assert {"order-1": 1} == dict(simulator.charges)
