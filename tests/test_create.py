"""
The paid create: written down, sent once, and never in doubt without saying so.
"""

import logging

import anyio
import pytest

from kling_async import (
    AccountError,
    ApiKey,
    ContentRejectedError,
    DecodeError,
    InvalidInputError,
    InvalidRequestError,
    KeyConflictError,
    KlingClient,
    KlingError,
    LostReplyError,
    MemoryStore,
    NotFoundError,
    NotSentError,
    QuotaFullError,
    Removal,
    SelectionExpiredError,
    StoreError,
    UnknownOutcomeError,
)
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.transport import Response
from tests.doubles import KEY, Script, envelope, task_reply

EDIT = Removal.of("the stones")


MISSING = envelope(code=1203, status=404)


async def create(*steps, store=None, edit=EDIT, session="8475", retry=None, **named):
    """
    One create through a client, with what was sent after the look for a given id, and what was stored.

    Looks for a create in doubt find nothing once the steps are used up.
    """
    script, kept = Script(list(steps), rest=MISSING), store or MemoryStore()
    looked = "external_task_id" in named and store is None
    if looked:
        script.steps.insert(0, MISSING)
    async with KlingClient(ApiKey(KEY), transport=script, store=kept, retry=retry) as client:
        try:
            return await client.create_task(session, edit, **named), script, kept
        except KlingError as error:
            return error, script, kept
        finally:
            del script.requests[:looked]


async def test_a_create_always_has_an_external_id():
    """
    Where none is given one is drawn, sent, and kept on the task that the reply left it out of.
    """
    task, script, store = await create(task_reply())
    sent = script.bodies[0]["external_task_id"]
    assert sent == task.external_task_id
    assert sent.startswith("ka1-")
    assert 36 == len(sent)
    assert "accepted" == (await store.get(sent)).state
    assert "8781" == (await store.get(sent)).task_id


async def test_two_creates_have_two_ids():
    """
    A drawn id is drawn for each paid run.
    """
    first, _, _ = await create(task_reply())
    second, _, _ = await create(task_reply())
    assert first.external_task_id != second.external_task_id


async def test_the_body_is_what_is_documented_and_nothing_empty():
    """
    Duration is text, a removal has no pictures, and nothing unset is sent.
    """
    _, script, _ = await create(task_reply(), external_task_id="order-1")
    assert [
        {
            "session_id": "8475",
            "edit_mode": "removal",
            "prompt": "Delete the stones from <<<video_1>>>",
            "mode": "std",
            "duration": "5",
            "external_task_id": "order-1",
        }
    ] == script.bodies
    assert ["POST videos/multi-elements"] == script.paths


@pytest.mark.parametrize(
    "doubt",
    [
        LostReplyError("cut"),
        envelope(code=5000, status=500),
        envelope(code=5002, status=504),
        Response(502, body=b"<html>bad gateway</html>"),
        Response(500),
        Response(200, body=b"{}"),
        Response(200, body=b"<html>"),
        envelope({}),
        envelope([]),
        envelope(),
        envelope(code=1201, status=400, message="external_task_id order-1 already exists"),
        Response(408),
    ],
    ids=lambda step: str(getattr(step, "body", step))[:40],
)
async def test_doubt_is_never_sent_again(doubt):
    """
    Whatever leaves open whether a task exists is looked for in vain, and ends in UnknownOutcomeError after one POST.
    """
    error, script, store = await create(doubt, external_task_id="order-1")
    assert UnknownOutcomeError is type(error)
    assert ("order-1", 1, False) == (error.external_task_id, error.attempts, error.absent)
    assert 1 == script.posts
    assert "unknown" == (await store.get("order-1")).state


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (envelope(code=1201, status=400), InvalidRequestError),
        (envelope(code=1301, status=400), ContentRejectedError),
        (envelope(code=1101, status=429), AccountError),
        (envelope(code=1303, status=429), QuotaFullError),
        (envelope(code=1201, status=200), InvalidRequestError),
        (Response(404, body=b"<html>"), NotFoundError),
        (Response(500, body=b'{"error":{"message":"no","code":"invalid_request"}}'), InvalidRequestError),
        (Response(503, body=b'{"error":{"message":"no","code":"model_not_found"}}'), NotFoundError),
        (Response(307), DecodeError),
    ],
    ids=["1201", "1301", "1101", "1303", "200 with 1201", "404", "invalid_request", "model_not_found", "307"],
)
async def test_a_refusal_is_raised_at_once_and_named(refusal, kind):
    """
    A definite refusal created nothing; it is not sent again, and its error names the id.
    """
    error, script, store = await create(refusal, task_reply(), external_task_id="order-1")
    assert kind is type(error)
    assert "order-1" == error.external_task_id
    assert 1 == len(script.requests)
    assert "refused" == (await store.get("order-1")).state


@pytest.mark.parametrize("fault", [NotSentError("refused"), envelope(code=1302, status=429)], ids=["unsent", "1302"])
async def test_what_was_not_done_is_sent_again_under_the_same_id(fault):
    """
    Never sent, or refused for its rate: again, with the very same body.
    """
    task, script, store = await create(fault, fault, task_reply(), external_task_id="order-1")
    assert "8781" == task.task_id
    assert 3 == len(script.requests)
    assert 1 == len({request.body for request in script.requests})
    assert 3 == (await store.get("order-1")).attempts


async def test_never_sent_is_raised_when_the_attempts_are_spent():
    """
    After three attempts the error says that it was not sent, and the intent stays open.
    """
    error, script, store = await create(*[NotSentError("refused")] * 3, external_task_id="order-1")
    assert NotSentError is type(error)
    assert "order-1" == error.external_task_id
    assert 3 == len(script.requests)
    assert "intent" == (await store.get("order-1")).state


async def test_an_accepted_id_is_not_paid_again():
    """
    The same id and edit once more only looks at the task.
    """
    _, _, store = await create(task_reply(), external_task_id="order-1")
    task, script, _ = await create(task_reply("processing"), store=store, external_task_id="order-1")
    assert ["GET videos/multi-elements/8781"] == script.paths
    assert ("processing", "order-1") == (task.status, task.external_task_id)


@pytest.mark.parametrize(("edit", "session"), [(Removal.of("the bird"), "8475"), (EDIT, "other")])
async def test_an_id_stands_for_one_edit(edit, session):
    """
    The same id with another edit or selection is refused before anything is sent.
    """
    _, _, store = await create(task_reply(), external_task_id="order-1")
    error, script, _ = await create(task_reply(), store=store, external_task_id="order-1", edit=edit, session=session)
    assert KeyConflictError is type(error)
    assert [] == script.requests


async def test_an_id_in_doubt_stays_in_doubt():
    """
    A create whose outcome is unknown is not sent again under the same id.
    """
    _, _, store = await create(LostReplyError("cut"), external_task_id="order-1")
    error, script, _ = await create(store=store, external_task_id="order-1")
    assert UnknownOutcomeError is type(error)
    assert {"GET videos/multi-elements/order-1"} == set(script.paths)


async def test_an_id_in_doubt_is_settled_as_soon_as_its_task_is_found():
    """
    The reply was lost, but the task is there: it is adopted, and nothing is paid again.
    """
    _, _, store = await create(LostReplyError("cut"), external_task_id="order-1")
    found = task_reply("processing", task_info={"external_task_id": "order-1"})
    task, script, _ = await create(found, store=store, external_task_id="order-1")
    assert ("8781", "accepted") == (task.task_id, (await store.get("order-1")).state)
    assert ["GET videos/multi-elements/order-1"] == script.paths


async def test_an_unknown_outcome_says_why():
    """
    A lost reply is told from a gateway's 502.
    """
    error, _, _ = await create(Response(502, body=b"bad gateway"), external_task_id="order-1")
    assert "(bad gateway (HTTP 502)" in str(error)


async def test_a_selection_that_the_service_ended_is_told_as_such():
    """
    1203 for the session at the paid call: nothing was created, and rebuild is the cure.
    """
    error, _, store = await create(envelope(code=1203, status=404), external_task_id="order-1")
    assert SelectionExpiredError is type(error)
    assert "order-1" == error.external_task_id
    assert "refused" == (await store.get("order-1")).state


async def test_a_refused_id_may_be_used_again():
    """
    Nothing was created, so the same id may be sent once more.
    """
    _, _, store = await create(envelope(code=1303, status=429), external_task_id="order-1")
    task, _, _ = await create(task_reply(), store=store, external_task_id="order-1")
    assert "8781" == task.task_id


class Full(MemoryStore):
    """
    A store whose disk is full.
    """

    async def put(self, intent):
        raise StoreError("disk full")


async def test_nothing_is_sent_when_the_intent_cannot_be_written():
    """
    The intent is durable before the first byte, or there is no first byte.
    """
    error, script, _ = await create(MISSING, task_reply(), store=Full(), external_task_id="order-1")
    assert StoreError is type(error)
    assert "order-1" == error.external_task_id
    assert ["GET videos/multi-elements/order-1"] == script.paths


async def test_the_intent_stands_before_the_first_byte():
    """
    When the request is on its way, the store already says that it may have been sent.
    """
    script, store = Script([anyio.Event()]), MemoryStore()
    async with KlingClient(ApiKey(KEY), transport=script, store=store) as client, anyio.create_task_group() as group:
        group.start_soon(client.create_task, "8475", EDIT)
        await script.started.wait()
        [intent] = await store.recent()
        assert ("sending", 1) == (intent.state, intent.attempts)
        assert KEY not in repr(intent)
        group.cancel_scope.cancel()


async def test_cancelling_a_create_underway_names_its_id(caplog):
    """
    A task may exist that nobody has seen: the log and the exception say which.
    """
    caplog.set_level(logging.WARNING, "kling_async")
    notes = []
    script, store = Script([MISSING, anyio.Event()]), MemoryStore()

    async def run(client):
        try:
            await client.create_task("8475", EDIT, external_task_id="order-1")
        except anyio.get_cancelled_exc_class() as cancelled:
            notes.extend(cancelled.__notes__)
            raise

    async with KlingClient(ApiKey(KEY), transport=script, store=store) as client, anyio.create_task_group() as group:
        group.start_soon(run, client)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert "'order-1'" in notes[0]
    assert "'order-1'" in caplog.text
    assert "sending" == (await store.get("order-1")).state


@pytest.mark.parametrize("wrong", ["", "a b", "x/y", "..", "1234", "é", "x" * 65, 7])
async def test_a_wrong_external_id_is_told_before_anything(wrong):
    """
    An id that cannot be looked up later is refused by us.
    """
    error, script, _ = await create(task_reply(), external_task_id=wrong)
    assert InvalidInputError is type(error)
    assert "external_task_id" == error.field
    assert [] == script.requests


async def test_an_id_that_was_paid_elsewhere_is_found_and_adopted():
    """
    Another process, another store: the service knows the id, so nothing is sent and its task is the answer.
    """
    found = task_reply("processing", task_info={"external_task_id": "order-1"})
    store = MemoryStore()
    task, script, _ = await create(found, store=store, external_task_id="order-1")
    assert ["GET videos/multi-elements/order-1"] == script.paths
    assert ("8781", "accepted") == (task.task_id, (await store.get("order-1")).state)


async def test_a_task_that_does_not_say_our_id_is_not_adopted():
    """
    Something answers under our id without naming it: that is a doubt, and nothing is sent.
    """
    error, script, _ = await create(task_reply("processing"), store=MemoryStore(), external_task_id="order-1")
    assert UnknownOutcomeError is type(error)
    assert ["GET videos/multi-elements/order-1"] == script.paths


async def test_nothing_is_sent_while_it_cannot_be_looked_for():
    """
    A look that fails ends the create before anything is paid.
    """
    error, script, _ = await create(*[LostReplyError("cut")] * 3, store=MemoryStore(), external_task_id="order-1")
    assert LostReplyError is type(error)
    assert {"GET videos/multi-elements/order-1"} == set(script.paths)


async def test_an_intent_of_this_process_is_not_looked_for_again():
    """
    What was written but never sent is sent without another look while the first one is fresh.
    """
    error, _, store = await create(*[NotSentError("refused")] * 3, external_task_id="order-1")
    assert NotSentError is type(error)
    _, script, _ = await create(task_reply(), store=store, external_task_id="order-1")
    assert ["POST videos/multi-elements"] == script.paths


async def test_two_creates_of_one_id_at_once_are_one():
    """
    The second waits for the first and returns its task, even where the service would take both.
    """
    simulator, tasks = Simulator(shape=Shape(external_ids="repeatable")), []
    async with KlingClient(ApiKey(KEY), transport=simulator.transport()) as client:
        info = await client.init_selection(video_url="https://example.com/clip.mp4")
        await client.add_selection(info.session_id, 0, [(0.5, 0.5)])

        async def order():
            tasks.append((await client.create_task(info.session_id, EDIT, external_task_id="order-1")).task_id)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(order)
        assert 0 == len(client.creates._turns)
    assert 5 == len(tasks)
    assert 1 == len(set(tasks))
    assert {"order-1": 1} == dict(simulator.charges)


class Failing(MemoryStore):
    """
    A store that fails once a task was accepted.
    """

    async def put(self, intent):
        if intent.state not in {"intent", "sending"}:
            raise StoreError("disk full")
        return await super().put(intent)


async def test_a_paid_task_is_returned_even_if_it_cannot_be_written_down(caplog):
    """
    The log names what the store lost; an error would say that nothing was created.
    """
    task, _, store = await create(task_reply(), store=Failing())
    assert "8781" == task.task_id
    assert task.external_task_id in caplog.text
    assert "sending" == (await store.get(task.external_task_id)).state


async def test_a_refused_create_lets_the_next_of_its_id_try():
    """
    Who waited for the first finds that nothing was created, and creates.
    """
    simulator = Simulator(shape=Shape(external_ids="repeatable"), faults=[Fault("create", "code", code=1303)])
    came = []
    async with KlingClient(ApiKey(KEY), transport=simulator.transport()) as client:
        info = await client.init_selection(video_url="https://example.com/clip.mp4")
        await client.add_selection(info.session_id, 0, [(0.5, 0.5)])

        async def order():
            try:
                came.append((await client.create_task(info.session_id, EDIT, external_task_id="order-1")).status)
            except QuotaFullError:
                came.append("refused")

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(order)
    assert ["refused", "submitted", "submitted"] == came
    assert {"order-1": 1} == dict(simulator.charges)
