"""
What a crash or a lost reply left open is settled later.
"""

from datetime import timedelta

import anyio
import pytest
from attrs import evolve

from kling_async import (
    ApiKey,
    KlingClient,
    MemoryStore,
    Reconciled,
    RetryPolicy,
    StoreError,
    UnknownOutcomeError,
    from_dict,
    to_dict,
)
from kling_async.simulator import Fault, Shape, Simulator
from tests.doubles import KEY, Account

SHORT = RetryPolicy(doubt=1)


def client_of(simulator, store, **named):
    return KlingClient(ApiKey(KEY), transport=simulator.transport(), store=store, retry=SHORT, **named)


async def order(client, key):
    return await Account(client).order(key)


async def doubted(simulator, store, key, *faults):
    """
    An order that ends in doubt.
    """
    simulator.script(*faults)
    async with client_of(simulator, store) as client:
        with pytest.raises(UnknownOutcomeError):
            await order(client, key)


async def test_what_exists_is_adopted():
    """
    The index had lagged behind; now the task is there, is returned, and stands in the store.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=60)), MemoryStore()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    async with client_of(simulator, store) as client:
        await anyio.sleep(60)
        found = await client.reconcile()
        assert ["order-1"] == [task.external_task_id for task in found.adopted]
        assert ((), ()) == (found.absent, found.unknown)
        assert "accepted" == (await store.get("order-1")).state
        assert Reconciled() == await client.reconcile()
    assert {"order-1": 1} == dict(simulator.charges)


async def test_what_is_proven_absent_is_told_as_such():
    """
    A known task shows that the host finds external ids, and it never showed this one.
    """
    simulator, store = Simulator(), MemoryStore()
    async with client_of(simulator, store) as client:
        await order(client, "order-0")
    await doubted(simulator, store, "order-1", Fault("create", "code", code=5000))
    async with client_of(simulator, store) as client:
        assert Reconciled(absent=("order-1",)) == await client.reconcile()
    assert {"order-0": 1} == dict(simulator.charges)


async def test_with_leave_to_resend_the_absent_may_be_sent_once_more():
    """
    It is not sent by this, but by its next create.
    """
    simulator, store = Simulator(), MemoryStore()
    async with client_of(simulator, store) as client:
        await order(client, "order-0")
    await doubted(simulator, store, "order-1", Fault("create", "code", code=5000))
    client = KlingClient(
        ApiKey(KEY), transport=simulator.transport(), store=store, retry=evolve(SHORT, on_unknown="resend")
    )
    async with client:
        assert Reconciled(absent=("order-1",)) == await client.reconcile()
        assert {"order-0": 1} == dict(simulator.charges)
        await order(client, "order-1")
    assert {"order-0": 1, "order-1": 1} == dict(simulator.charges)


async def test_what_cannot_be_found_stays_unknown():
    """
    On a host that does not look by external ids nothing is proven.
    """
    simulator, store = Simulator(shape=Shape(finds_external_ids=False, lists=False)), MemoryStore()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    await doubted(simulator, store, "order-2", Fault("create", "lost"))
    async with client_of(simulator, store) as client:
        found = await client.reconcile()
    assert {"order-1", "order-2"} == set(found.unknown)
    assert () == found.absent == found.adopted


async def test_what_is_too_old_stays_unknown():
    """
    The service may have forgotten it.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=9)), MemoryStore()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    row = store._intents["order-1"]
    store._intents["order-1"] = evolve(row, created_at=row.created_at - timedelta(days=30))
    async with client_of(simulator, store) as client:
        assert Reconciled(unknown=("order-1",)) == await client.reconcile()


async def test_what_another_is_seeing_to_is_left_alone():
    """
    A create underway is no leftover, in this client or in another one on the same store.
    """
    simulator, store = Simulator(faults=[Fault("create", "hang", handled=True)]), MemoryStore()
    async with client_of(simulator, store) as first, client_of(simulator, store) as second:
        async with anyio.create_task_group() as group:
            group.start_soon(order, first, "order-1")
            await anyio.wait_all_tasks_blocked()
            assert "sending" == (await store.get("order-1")).state
            assert Reconciled() == await first.reconcile()
            assert Reconciled() == await second.reconcile()
            group.cancel_scope.cancel()
        assert ["order-1"] == [task.external_task_id for task in (await second.reconcile()).adopted]


async def test_only_creates_of_this_host_are_looked_for():
    """
    Another service's are not its business.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=60)), MemoryStore()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    async with client_of(simulator, store, base_url="https://api-singapore.klingai.com") as client:
        assert Reconciled() == await client.reconcile()


class Overtaken(MemoryStore):
    """
    A store in which a delivery settles the row between its reading and its claiming.
    """

    settled = None

    async def claim(self, intent):
        if self.settled is not None:
            await self.put(self.settled)
        return await super().claim(intent)


@pytest.mark.parametrize("state", ["accepted", "refused"])
async def test_what_was_settled_meanwhile_is_taken_as_it_is(state):
    """
    Its task is returned, or there is nothing to say.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=60)), Overtaken()
    async with client_of(simulator, store) as client:
        task = await order(client, "order-0")
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    row = store._intents["order-1"]
    if state == "accepted":
        store.settled = evolve(row, state=state, task_id=task.task_id)
    else:
        store._intents["order-1"], store.settled = evolve(row, state="sending"), evolve(row, state=state)
    async with client_of(simulator, store) as client:
        found = await client.reconcile()
    assert [task.task_id] * (state == "accepted") == [each.task_id for each in found.adopted]
    assert () == found.absent == found.unknown


class Broken(MemoryStore):
    """
    A store that cannot be written any more.
    """

    broken = False

    async def claim(self, intent):
        if self.broken:
            raise StoreError("disk full")
        return await super().claim(intent)


async def test_a_store_that_fails_is_told():
    """
    As itself, never in a group.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=60)), Broken()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    store.broken = True
    async with client_of(simulator, store) as client:
        with pytest.raises(StoreError, match="disk full") as caught:
            await client.reconcile()
    assert "order-1" == caught.value.external_task_id


async def test_what_was_reconciled_is_a_value():
    """
    Plain types and back.
    """
    simulator, store = Simulator(shape=Shape(lag_seconds=60)), MemoryStore()
    await doubted(simulator, store, "order-1", Fault("create", "lost"))
    async with client_of(simulator, store) as client:
        await anyio.sleep(60)
        found = await client.reconcile()
    assert found == from_dict(Reconciled, to_dict(found))
