"""
The inbox: hints wake those who wait for their task, and polling goes on, slower, beneath.
"""

from functools import partial
from math import inf

import anyio
import pytest
from anyio import to_thread

from kling_async import (
    ApiKey,
    Inbox,
    InvalidInputError,
    KeyPair,
    KlingClient,
    LostReplyError,
    MemoryStore,
    NotFoundError,
    PollPolicy,
    Removal,
    RetryPolicy,
    Task,
    UnknownOutcomeError,
)
from kling_async._auth import webhook_token
from kling_async._inbox import KEPT, calmer
from kling_async.simulator import Simulator
from kling_async.webhooks import Hint
from tests.doubles import KEY, Script, envelope, task_reply

STEADY = PollPolicy(jitter=0)
HOOK = "https://me.example/kling"
HINT = Hint("8781", "order-17", "succeed")
RUNNING = Task(task_id="8781", status="submitted", external_task_id="order-17")


def client_of(*steps, inbox=None, poll=STEADY, **named):
    transport = Script(list(steps))
    named = {"retry": RetryPolicy(attempts=1), "callback_url": HOOK, **named}
    return KlingClient(ApiKey(KEY), transport=transport, inbox=inbox or Inbox(), poll=poll, **named)


def later(seconds, group, function, *arguments):
    """
    Call a function after a while.
    """

    async def wait():
        await anyio.sleep(seconds)
        function(*arguments)

    group.start_soon(wait)


@pytest.mark.parametrize("hint", [HINT, Hint("8781", None, "?"), Hint("another", "order-17", "submitted")])
async def test_a_hint_ends_the_pause_of_who_waits_for_its_task(hint):
    """
    By either id, whatever status it claims: what the look shows is what counts.
    """
    inbox = Inbox()
    client = client_of(task_reply("succeed"), inbox=inbox, poll=PollPolicy(first=60, ceiling=60))
    async with client, anyio.create_task_group() as group:
        began = anyio.current_time()
        later(5, group, inbox.put, hint)
        assert "succeed" == (await client.wait(RUNNING)).status
        assert 5 == pytest.approx(anyio.current_time() - began)


async def test_a_hint_about_another_task_wakes_nobody():
    """
    The pause goes on to its end.
    """
    inbox = Inbox()
    async with client_of(task_reply("succeed"), inbox=inbox) as client, anyio.create_task_group() as group:
        began = anyio.current_time()
        later(0.5, group, inbox.put, Hint("8782", "order-18", "succeed"))
        await client.wait(RUNNING)
        assert 1 == pytest.approx(anyio.current_time() - began)


async def test_all_who_wait_for_a_task_are_woken():
    """
    Three waits and a watch, and nobody is left in the inbox afterwards.
    """
    inbox, ends = Inbox(), []
    patient = PollPolicy(first=60, ceiling=60, jitter=0)
    async with client_of(*[task_reply("succeed")] * 4, inbox=inbox, poll=patient) as client:

        async def wait():
            await client.wait(RUNNING)
            ends.append(anyio.current_time())

        async def watch():
            assert ["submitted", "succeed"] == [task.status async for task in client.watch(RUNNING)]
            ends.append(anyio.current_time())

        client._borrowed.steps.insert(0, task_reply("submitted"))
        async with anyio.create_task_group() as group:
            began = anyio.current_time()
            for waiter in (wait, wait, wait, watch):
                group.start_soon(waiter)
            later(5, group, lambda: repr(inbox).endswith("4 waiting>") and inbox.put(HINT))
        assert [5] * 4 == pytest.approx([end - began for end in ends])
        assert "<Inbox, of an open client, 0 waiting>" == repr(inbox)


async def test_a_hint_that_came_before_the_wait_is_remembered():
    """
    A delivery may be quicker than the create's own reply: the first look then does not wait.
    """
    inbox = Inbox()
    inbox.put(HINT)
    async with client_of(task_reply("succeed"), inbox=inbox) as client:
        began = anyio.current_time()
        await client.wait(RUNNING)
        assert began == pytest.approx(anyio.current_time())


async def test_hints_that_come_fast_are_a_look_every_two_seconds():
    """
    A hundred replays in ten seconds cost six looks, not a hundred.
    """
    inbox = Inbox()
    patient = PollPolicy(first=60, ceiling=60, jitter=0)
    async with client_of(*[task_reply("processing")] * 99, inbox=inbox, poll=patient) as client:
        async with anyio.create_task_group() as group:
            for number in range(100):
                later(number / 10, group, inbox.put, HINT)
            with anyio.move_on_after(15):
                await client.wait(RUNNING)
        assert 6 == len(client._borrowed.requests)


async def test_a_hint_begins_the_rhythm_anew():
    """
    The service's own query may lag behind what it told: looks are frequent again, not half a minute apart.
    """
    inbox, looks = Inbox(), []
    async with client_of(*[task_reply("processing")] * 99, inbox=inbox) as client, anyio.create_task_group() as group:
        later(399, group, lambda: looks.append(len(client._borrowed.requests)))
        later(400, group, inbox.put, HINT)
        with anyio.move_on_after(405):
            await client.wait(RUNNING)
        assert [4] == [len(client._borrowed.requests) - before for before in looks]


async def test_polling_goes_on_slower_beneath():
    """
    Without any hint, looks come to be thirty seconds apart instead of ten.
    """
    async with client_of(*[task_reply("processing")] * 400) as client:
        with anyio.move_on_after(3600):
            await client.wait(RUNNING)
        assert 120 < len(client._borrowed.requests) < 132


@pytest.mark.parametrize(("ceiling", "expected"), [(10, 30), (3000, 3600), (7200, 7200), (1.7e308, 1.7e308)])
def test_calmer_is_three_times_the_ceiling_but_an_hour_at_most(ceiling, expected):
    """
    What was slower already stays so.
    """
    assert expected == calmer(PollPolicy(ceiling=ceiling)).ceiling < inf


async def test_a_wait_that_is_cancelled_leaves_the_inbox_empty():
    """
    Nobody is woken who has gone.
    """
    inbox = Inbox()
    async with client_of(inbox=inbox, poll=PollPolicy(first=60, ceiling=60)) as client:
        with anyio.move_on_after(1):
            await client.wait(RUNNING)
        assert {} == inbox._waiting


def test_an_inbox_keeps_the_last_few_thousand_ids():
    """
    Memory is bounded; those that were heard of longest ago are forgotten first.
    """
    inbox = Inbox()
    for number in [*range(KEPT), 0, *range(KEPT, KEPT + 9)]:
        inbox.put(Hint(f"{number}", None, "succeed"))
    assert KEPT == len(inbox._numbers)
    assert (KEPT + 1, 0, KEPT + 10) == (inbox.last("0"), inbox.last("9"), inbox.last("9", None, f"{KEPT + 8}"))


@pytest.mark.parametrize("hint", [None, "8781", {"task_id": "8781"}, RUNNING])
def test_only_hints_are_put(hint):
    """
    A Task or a body is not one.
    """
    with pytest.raises(InvalidInputError, match="parse_webhook"):
        Inbox().put(hint)


async def test_put_belongs_to_the_clients_own_loop():
    """
    From a thread it is a RuntimeError; through anyio it is fine.
    """
    inbox = Inbox()
    async with client_of(inbox=inbox):
        with pytest.raises(RuntimeError):
            await to_thread.run_sync(inbox.put, HINT)
        await to_thread.run_sync(partial(anyio.from_thread.run_sync, inbox.put, HINT))
        assert 1 == inbox.last("8781")


async def test_an_inbox_serves_one_open_client_at_a_time():
    """
    A second one is told so as it opens, and takes nothing from the first; after it, another may have it.
    """
    inbox = Inbox()
    async with client_of(inbox=inbox):
        with pytest.raises(InvalidInputError, match="inbox: belongs to another"):
            async with client_of(inbox=inbox):
                pass
        assert inbox.reader is not None
    assert "<Inbox, of no open client, 0 waiting>" == repr(inbox)
    async with client_of(inbox=inbox):
        assert inbox.reader is not None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"inbox": "mine"}, "inbox"),
        ({"inbox": Inbox(), "callback_url": f"{HOOK}?key=1"}, "callback_url"),
        ({"inbox": Inbox(), "callback_url": f"{HOOK}/{'x' * 2000}"}, "callback_url"),
    ],
)
def test_what_does_not_fit_an_inbox_is_told_by_name(settings, named):
    """
    Each task's path follows the URL, so there must be room and no query.
    """
    with pytest.raises(InvalidInputError, match=f"{named}: must"):
        KlingClient(ApiKey(KEY), **settings)


def test_an_inbox_is_taken_from_the_environments_client_too(monkeypatch):
    """
    `from_env` has the same keywords.
    """
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    inbox = Inbox()
    assert inbox is KlingClient.from_env(inbox=inbox, callback_url=HOOK)._inbox


@pytest.mark.parametrize("url", [HOOK, f"{HOOK}/"])
async def test_with_an_inbox_each_task_has_a_path_of_its_own(url):
    """
    Its external id, given or drawn, and a token that only our credentials make; a slash at the end is no second one.
    """
    missing = envelope(code=1203, status=404)
    async with client_of(missing, task_reply(), task_reply(), callback_url=url) as client:
        for given in ("order-17", None):
            task = await client.create_task("s-1", Removal.of("x"), external_task_id=given)
            body, key = client._borrowed.bodies[-1], task.external_task_id
            assert key == given or given is None
            assert (key, f"{HOOK}/{key}.{webhook_token(ApiKey(KEY), key)}") == (
                body["external_task_id"],
                body["callback_url"],
            )


async def test_a_url_given_to_a_create_is_sent_as_it_is():
    """
    And without a callback URL there is none, inbox or not.
    """
    async with client_of(task_reply()) as client:
        await client.create_task("s-1", Removal.of("x"), callback_url="https://other.example/hook?x=1")
        assert "https://other.example/hook?x=1" == client._borrowed.bodies[-1]["callback_url"]
    async with client_of(task_reply(), callback_url=None) as client:
        await client.create_task("s-1", Removal.of("x"))
        assert "callback_url" not in client._borrowed.bodies[-1]


async def test_an_odd_external_id_is_told_before_a_token_is_made():
    """
    It must fit a path.
    """
    async with client_of() as client:
        with pytest.raises(InvalidInputError, match="external_task_id"):
            await client.create_task("s-1", Removal.of("x"), external_task_id=17)


async def test_the_simulator_takes_the_path_of_a_task():
    """
    The longest id there may be makes a URL that the service takes.
    """
    settings = {"callback_url": f"{HOOK}/{'x' * 1900}", "inbox": Inbox()}
    async with KlingClient(ApiKey(KEY), transport=Simulator().transport(), **settings) as client:
        info = await client.init_selection(video_url="https://example.com/clip.mp4")
        await client.add_selection(info.session_id, 0, [(0.5, 0.5)])
        assert await client.create_task(info.session_id, Removal.of("x"), external_task_id="x" * 64)


def test_tokens_differ_by_task_and_by_credentials_and_tell_neither():
    """
    Text for a path, of 24 bytes, and the same in every worker.
    """
    pair = KeyPair("access", "secret-canary")
    tokens = {
        webhook_token(credentials, task)
        for credentials in (ApiKey(KEY), ApiKey("sk-other"), pair, KeyPair("access", "secret-other"))
        for task in ("order-17", "order-18")
    }
    assert 8 == len(tokens)
    assert {32} == {len(token) for token in tokens}
    assert webhook_token(ApiKey(KEY), "order-17") == webhook_token(ApiKey(KEY, source="COMETAPI_KEY"), "order-17")
    assert not any("canary" in token for token in tokens)


KLING = "https://api-singapore.klingai.com"


def told(task_id="8781", **info):
    return task_reply("succeed", task_id=task_id, task_info=info)


async def looked(client, hint=HINT):
    return await client._inbox.reader.look(hint)


async def test_our_own_query_takes_the_id_from_the_store():
    """
    A body cannot choose which task is shown.
    """
    async with client_of(task_reply(task_id="1"), told("1")) as client:
        await client.create_task("s-1", Removal.of("x"), external_task_id=None)
        (intent,) = await client._store.recent()
        task = await looked(client, Hint("8781", intent.external_task_id, "succeed"))
        assert ("1", intent.external_task_id) == (task.task_id, task.external_task_id)
        assert "GET videos/multi-elements/1" == client._borrowed.paths[-1]


@pytest.mark.parametrize("info", [{}, {"external_task_id": "order-17"}])
async def test_where_the_host_finds_external_ids_it_is_asked_for_that(info):
    """
    Kling documents the query; a reply without the id is still about it.
    """
    async with client_of(told(**info), base_url=KLING) as client:
        assert "order-17" == (await looked(client)).external_task_id
        assert ["GET videos/multi-elements/order-17"] == client._borrowed.paths


async def test_elsewhere_the_reply_must_tell_the_external_id():
    """
    Through CometAPI the body's id is asked for, and shown only if the service says that it is this task.
    """
    async with client_of(told(external_task_id="order-17")) as client:
        assert "8781" == (await looked(client)).task_id
        assert ["GET videos/multi-elements/8781"] == client._borrowed.paths
    for info in ({}, {"external_task_id": "order-18"}):
        async with client_of(told(**info)) as client:
            with pytest.raises(NotFoundError, match="order-17"):
                await looked(client)


async def test_a_create_in_doubt_is_settled_by_a_delivery():
    """
    Its reply was lost, the delivery names the task, the service says that it is it: the next create finds it.
    """
    store = MemoryStore()
    missing, proof = envelope(code=1203, status=404), told(external_task_id="order-17")
    steps, short = [missing, LostReplyError("cut"), *[missing] * 3, proof, proof], RetryPolicy(doubt=1)
    async with client_of(*steps, store=store, retry=short) as client:
        with pytest.raises(UnknownOutcomeError):
            await client.create_task("s-1", Removal.of("x"), external_task_id="order-17")
        assert ("unknown", None) == ((await store.get("order-17")).state, (await store.get("order-17")).task_id)
        await looked(client)
        assert ("accepted", "8781") == ((await store.get("order-17")).state, (await store.get("order-17")).task_id)
        assert "8781" == (await client.create_task("s-1", Removal.of("x"), external_task_id="order-17")).task_id
