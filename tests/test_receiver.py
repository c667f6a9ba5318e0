"""
Deliveries of every kind: what the sender hears, what `on_task` gets, and how often we look.
"""

import logging
import time
import tracemalloc
from types import SimpleNamespace
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import to_thread
from attrs import define, field

from kling_async import ApiKey, ClosedError, Inbox, KlingClient
from kling_async import _receiver as receiver
from kling_async._auth import webhook_token
from kling_async._hints import BODY_MOST
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.webhooks import aiohttp_handler, webhook_app
from tests.delivering import HOOK, JSON, KLING, payload, post, shop
from tests.doubles import KEY, Script, task_reply
from tests.test_signatures import OTHER, SECRET, signed

AGAIN = {"content-type": "text/plain; charset=utf-8", "content-length": "10", "retry-after": "2"}


async def test_a_delivery_gives_on_task_what_our_own_query_returned():
    """
    The body claims a failure; the service says that it succeeded, and that is what counts.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order("order-17")
        reply = await made.deliver(task, "failed", updated_at=1)
        assert (200, "ok") == (reply.status, reply.text)
        (told,) = made.told
        assert ("succeed", "order-17", task.task_id) == (told.status, told.external_task_id, told.task_id)
        assert told.video.url
        assert 1 == made.looks


async def test_a_delivery_wakes_who_waits():
    """
    With and without an `on_task`; without one the delivery itself costs no query.
    """
    for on_task in (True, False):
        async with shop(task_seconds=5, on_task=on_task) as made, anyio.create_task_group() as group:
            task, ends = await made.order(), []

            async def wait(made=made, task=task, ends=ends):
                ends.append((await made.client.wait(task)).status)

            group.start_soon(wait)
            await anyio.sleep(6)
            assert 200 == (await made.deliver(task)).status
            with anyio.fail_after(1):
                await anyio.wait_all_tasks_blocked()
            assert ["succeed"] == ends
            assert 1 + on_task == made.looks


async def test_what_is_wrong_from_outside_is_answered_before_anything_is_read():
    """
    Method, path, type, size, body, and another task's id: each its own answer, and no query.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order("order-17")
        body, path = payload(task.task_id, key="order-17"), made.path
        key, _, token = path.rpartition("/")[2].rpartition(".")
        forged = f"/kling/{key}.{token[:-1]}{'A' if token[-1] != 'A' else 'B'}"
        replies = {
            (405, "deliveries are posted"): [{"method": "GET"}, {"method": "PUT", "path": "/kling/x"}],
            (404, "not found"): [
                {"path": forged},
                {"path": f"/kling/order-18.{token}"},
                {"path": "/kling/nothing"},
                {"path": f"/kling/x/{key}.{token}"},
                {"path": f"/kling/{key}.{token}ü"},
                {"path": "/kling"},
                {"path": forged, "body": b"x" * BODY_MOST * 2, "headers": {}},
            ],
            (415, "deliveries are application/json"): [{"headers": {}}, {"headers": {"content-type": "text/plain"}}],
            (413, "too large"): [{"body": b" " * (BODY_MOST + 1)}, {"body": b" " * BODY_MOST * 4}],
            (400, "not a delivery about this task"): [
                {"body": b"not json"},
                {"body": b""},
                {"body": payload(task.task_id, key="order-18")},
            ],
        }
        for expected, changes in replies.items():
            for change in changes:
                asked = {"path": path, "body": body, "root": "/kling", **change}
                reply = await post(made.app, asked.pop("path"), asked.pop("body"), **asked)
                assert expected == (reply.status, reply.text), change
        assert (0, []) == (made.looks, made.told)
        wrong = [await post(made.app, each, body, root="/kling") for each in (forged, "/kling/nothing")]
        assert wrong[0] == wrong[1]


@pytest.mark.parametrize(
    "forge",
    [
        lambda key, token, stranger: f"{key}.{stranger}",
        lambda key, token, stranger: f"order-18.{token}",
        lambda key, token, stranger: f"{key}.{token[1:]}A",
        lambda key, token, stranger: f"{key}.{'A' * 32}",
        lambda key, token, stranger: key,
    ],
    ids=["other-credentials", "other-task", "changed", "made-up", "none"],
)
async def test_f50_a_forged_token_is_as_good_as_no_path(forge):
    """
    It is answered word for word as a path that was never told, before a byte of the body is read.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order("order-17")
        token = made.path.rpartition(".")[2]
        forged = forge("order-17", token, webhook_token(ApiKey("sk-another"), "order-17"))
        answers = []
        for name in (forged, "nothing"):

            async def read():
                pytest.fail("was read")

            actor = receiver.Receiver(made.inbox, (), made.finish)
            answers.append(await actor.answer("POST", name, JSON, read))
            reply = await post(made.app, f"/kling/{name}", payload(task.task_id, key="order-17"), root="/kling")
            assert (404, "not found") == (reply.status, reply.text)
        assert [receiver.NOT_FOUND] * 2 == answers
        assert (0, [], 0) == (made.looks, made.told, made.inbox.last(task.task_id, "order-17"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body, now: signed(body + b" ", now=now),
        lambda body, now: signed(body, now=now, secret=OTHER),
        lambda body, now: {**signed(body, now=now), "webhook-id": "msg-2"},
        lambda body, now: {**signed(body, now=now), "webhook-timestamp": f"{int(now) + 1}"},
        lambda body, now: {},
    ],
    ids=["of-another-body", "by-another-secret", "for-another-id", "for-another-time", "none"],
)
async def test_f50_a_bad_signature_is_refused(spoil):
    """
    With 401, whatever the token; nobody is woken, and no query is made.
    """
    async with shop(task_seconds=0, secret=SECRET) as made:
        task = await made.order("order-17")
        body = payload(task.task_id, key="order-17")
        reply = await post(made.app, made.path, body, headers={**JSON, **spoil(body, time.time())}, root="/kling")
        assert (401, "the signature does not verify") == (reply.status, reply.text)
        assert (0, [], 0) == (made.looks, made.told, made.inbox.last(task.task_id, "order-17"))


@pytest.mark.parametrize("off", [-301, -86_400, 302])
async def test_f50_an_old_timestamp_is_refused(off):
    """
    However well it is signed: more than five minutes ago, or ahead.
    """
    async with shop(task_seconds=0, secret=SECRET) as made:
        task = await made.order("order-17")
        body = payload(task.task_id, key="order-17")
        headers = {**JSON, **signed(body, now=time.time() + off)}
        assert 401 == (await post(made.app, made.path, body, headers=headers, root="/kling")).status
        assert (0, []) == (made.looks, made.told)


@define
class Endless:
    """
    A sender that has a gibibyte to say, in pieces of 64 KiB.
    """

    taken: int = 0

    def iter_any(self):
        """
        As aiohttp has it.
        """
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        return self.piece()

    async def receive(self):
        """
        As ASGI has it.
        """
        return {"type": "http.request", "body": self.piece(), "more_body": True}

    def piece(self):
        assert self.taken < 2**24, "as much as there is"
        self.taken += 65536
        return bytes(65536)


@pytest.mark.parametrize("server", ["asgi", "aiohttp"])
async def test_f50_a_body_of_a_gibibyte_is_refused_after_a_quarter_of_a_mebibyte(server):
    """
    With 413; nothing is asked for after the first piece too many, and what was taken stays small.
    """
    async with shop(task_seconds=0) as made:
        await made.order()
        body, sent, handler = Endless(), [], aiohttp_handler(made.inbox)

        async def send(message):
            sent.append(message)

        tracemalloc.start()
        try:
            if server == "asgi":
                raw = [(b"content-type", b"application/json")]
                scope = {"type": "http", "method": "POST", "path": made.path, "root_path": "/kling", "headers": raw}
                await made.app(scope, body.receive, send)
                status = sent[0]["status"]
            else:
                request = SimpleNamespace(method="POST", path=made.path, headers=JSON, content=body)
                status = (await handler(request)).status
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 413 == status
        assert BODY_MOST < body.taken <= BODY_MOST + 65536
        assert peak < 2 * 2**20
        assert (0, []) == (made.looks, made.told)


async def test_the_body_is_not_read_before_the_token_was_right():
    """
    A stranger cannot make us take in a byte.
    """
    async with shop() as made:

        async def receive():
            pytest.fail("was read")

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/order-17." + "x" * 32, "headers": []}
        await made.app(scope, receive, send)
        assert 404 == sent[0]["status"]


async def test_while_no_client_is_open_the_sender_must_come_again():
    """
    Without credentials no token can be checked, so that every path is answered alike.
    """
    app = webhook_app(Inbox())
    for path in ("/kling/nothing", "/kling/order-17." + "x" * 32):
        reply = await post(app, path, payload(), root="/kling")
        assert (503, "come again", AGAIN) == (reply.status, reply.text, reply.headers)


async def test_f50_a_hundred_replays_are_one_query_and_one_call():
    """
    One after the other and all at once.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order()
        replies = []

        async def deliver():
            replies.append((await made.deliver(task)).status)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(deliver)
        for _ in range(100):
            await deliver()
        assert [200] * 200 == replies
        assert (1, ["succeed"]) == (made.looks, made.statuses)


async def test_f50_replays_wake_nobody_twice_where_nothing_is_told():
    """
    Without an `on_task`, the same body again is no hint; another body is.
    """
    async with shop(on_task=False) as made:
        task = await made.order()
        for _ in range(100):
            await made.deliver(task, "processing")
        assert 1 == made.inbox.last(task.task_id)
        await made.deliver(task, "processing", updated_at=2)
        assert 2 == made.inbox.last(task.task_id)


async def test_forged_floods_cannot_spend_our_quota():
    """
    A hundred different bodies with the right token in ten seconds are a query every two seconds.
    """
    async with shop(task_seconds=3600) as made, anyio.create_task_group() as group:
        task, replies = await made.order(), []

        async def deliver(number):
            await anyio.sleep(number / 10)
            replies.append((await made.deliver(task, "submitted", updated_at=number)).status)

        began = anyio.current_time()
        for number in range(100):
            group.start_soon(deliver, number)
        while len(replies) < 100:
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.1)
        assert {200} == set(replies)
        assert 6 >= made.looks >= 5
        assert 12.5 > anyio.current_time() - began
        assert ["submitted"] == made.statuses


async def test_f50_states_come_in_order_and_the_end_is_never_left():
    """
    Each new status once; a late delivery of an earlier one costs no query.
    """
    async with shop(task_seconds=60) as made:
        task = await made.order()
        for seconds, status in [(0, "submitted"), (40, "processing"), (40, "succeed")]:
            await anyio.sleep(seconds)
            assert 200 == (await made.deliver(task, status)).status
        for status in ("processing", "submitted", "failed"):
            assert 200 == (await made.deliver(task, status, updated_at=9)).status
        assert ["submitted", "processing", "succeed"] == made.statuses
        assert 3 == made.looks


async def scripted(*steps, secret=None, told=None, trouble=None):
    """
    Deliveries of `order-17`, two seconds apart, whose queries are answered by a script: statuses of answers.
    """
    inbox, told = Inbox(), [] if told is None else told
    transport = Script([reply for reply, _ in steps if reply is not None])
    async with KlingClient(ApiKey(KEY), transport=transport, base_url=KLING, callback_url=HOOK, inbox=inbox) as client:

        async def finish(task):
            told.append(task.status)

        app = webhook_app(inbox, on_task=finish)
        path = urlsplit(client._callback_url_of("order-17")).path
        answers = []
        for number, (_, claimed) in enumerate(steps):
            await anyio.sleep(3)
            reply = await post(app, path, payload(status=claimed, updated_at=number), root="/kling")
            answers.append(reply.status)
        assert [] == transport.steps
    return answers, told


async def test_f50_a_state_that_steps_back_is_not_told():
    """
    Replicas of the service may lag: what is older than what we know is answered with 200 and dropped.
    """
    steps = [
        (task_reply("processing"), "processing"),
        (task_reply("submitted"), "processing"),
        (task_reply("pondering"), "pondering"),
        (task_reply("processing"), "processing"),
        (task_reply("failed"), "failed"),
        (None, "processing"),
    ]
    assert ([200] * 6, ["processing", "pondering", "processing", "failed"]) == await scripted(*steps)


async def test_what_our_query_does_not_see_yet_must_come_again():
    """
    The delivery claims an end that the service does not show, or a success whose video is missing.
    """
    empty = task_reply("succeed", task_result={"videos": []})
    steps = [
        (task_reply("processing"), "succeed"),
        (empty, "succeed"),
        (task_reply("succeed"), "succeed"),
    ]
    assert ([503, 503, 200], ["processing", "succeed"]) == await scripted(*steps)


async def test_a_query_that_fails_must_come_again(caplog):
    """
    A passing fault of the service is the sender's to repeat, and one line in the log.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order("order-17")
        made.simulator.script(Fault("get", "code", code=5000), Fault("get", "hang"))
        for expected in (503, 503, 200, 200):
            began = anyio.current_time()
            assert expected == (await made.deliver(task)).status
            assert 4.1 > anyio.current_time() - began
        assert ["succeed"] == made.statuses
    assert "order-17 must come again: ServerError" in caplog.text
    assert "order-17 must come again: TimeoutError" in caplog.text


async def test_what_on_task_raises_is_the_servers_to_answer_and_it_comes_again():
    """
    Nothing is acknowledged before `on_task` has returned.
    """
    async with shop(task_seconds=0) as made:
        made.trouble.append(RuntimeError("the database is away"))
        task = await made.order()
        with pytest.raises(RuntimeError, match="database"):
            await made.deliver(task)
        assert [] == made.told
        for _ in range(3):
            assert 200 == (await made.deliver(task)).status
        assert (2, ["succeed"]) == (made.looks, made.statuses)


async def test_a_delivery_does_not_wait_long_for_an_earlier_one():
    """
    While `on_task` is at work, others are told to come again, and find it done.
    """
    async with shop(task_seconds=0) as made, anyio.create_task_group() as group:
        task = await made.order()

        async def finish(task):
            await anyio.sleep(60)

        made.app = webhook_app(made.inbox, on_task=finish)
        group.start_soon(made.deliver, task)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        assert 503 == (await made.deliver(task)).status
        assert receiver.TURN_MOST == pytest.approx(anyio.current_time() - began)
        await anyio.sleep(60)
        assert 200 == (await made.deliver(task)).status
        assert 1 == made.looks


@define
class Late:
    """
    A transport that keeps the reply of a create back.
    """

    inner: object
    accepted: anyio.Event = field(factory=anyio.Event)
    release: anyio.Event = field(factory=anyio.Event)

    async def exchange(self, request):
        reply = await self.inner.exchange(request)
        if request.method == "POST" and request.url.endswith("/multi-elements"):
            self.accepted.set()
            await self.release.wait()
        return reply


async def test_f50_a_delivery_before_the_creates_own_reply_is_adopted():
    """
    The service accepts, posts, and only then answers: our query finds the task, and `wait` looks at once.
    """
    simulator = Simulator(task_seconds=0)
    late = Late(simulator.transport())
    async with shop(simulator=simulator, transport=late, base_url=KLING) as made, anyio.create_task_group() as group:
        tasks = []

        async def order():
            tasks.append(await made.order("order-17"))

        group.start_soon(order)
        await late.accepted.wait()
        reply = await post(made.app, made.path, payload("unknown", key="order-17"), root="/kling")
        assert (200, ["succeed"]) == (reply.status, made.statuses)
        late.release.set()
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        assert made.told == [await made.client.wait(tasks[0])]
        assert 1 > anyio.current_time() - began


async def test_a_body_cannot_lead_our_query_to_another_task():
    """
    Two tasks; a delivery with the first one's token names the second, and `on_task` gets the first.
    """
    async with shop(task_seconds=0) as made:
        first = await made.order()
        path = made.path
        second = await made.order()
        reply = await post(made.app, path, payload(second.task_id), root="/kling")
        assert (200, first.task_id) == (reply.status, made.told[0].task_id)


async def test_where_the_service_does_not_tell_whose_task_it_is_only_the_store_knows():
    """
    Through a gateway that drops external ids, another worker's task cannot be told from a forged one.
    """
    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="dropped", finds_external_ids=False))
    async with shop(simulator=simulator) as first:
        task = await first.order()
        path = first.path
        assert 200 == (await first.deliver(task)).status
    async with shop(simulator=simulator) as second:
        assert 503 == (await second.deliver(task, path=path)).status
        assert [] == second.told


async def test_with_a_secret_only_signed_deliveries_are_taken(caplog):
    """
    Missing, wrong, old, and changed by a byte are 401; a replay is 200 and does nothing, another id is another one.
    """
    async with shop(task_seconds=3600, secret=[OTHER, SECRET]) as made:
        task = await made.order()
        body, now = payload(task.task_id, "submitted"), time.time()
        good = {**JSON, **signed(body, now=now)}
        bad = [
            JSON,
            {**good, "webhook-signature": "v1,xxxx"},
            {**JSON, **signed(body, now=now - 600)},
            {**JSON, **signed(body + b" ", now=now)},
        ]
        for headers in bad:
            reply = await post(made.app, made.path, body, headers=headers, root="/kling")
            assert (401, "the signature does not verify") == (reply.status, reply.text)
        assert 0 == made.looks
        for headers in [good, {**JSON, **signed(body, now=now, secret=OTHER)}] * 2:
            reply = await post(made.app, made.path, body, headers=headers, root="/kling")
            assert (200, "ok") == (reply.status, reply.text)
        assert 1 == made.looks
        another = {**JSON, **signed(body, now=now, delivery="msg-2")}
        assert 200 == (await post(made.app, made.path, body, headers=another, root="/kling")).status
        assert 2 == made.looks
    assert 4 == caplog.text.count("is refused")


async def test_neither_key_nor_token_nor_secret_is_ever_logged_or_shown(caplog):
    """
    At every level, for refusals and failures alike.
    """
    caplog.set_level(logging.DEBUG)
    secret = "whsec_" + "canary00" * 4
    async with shop(task_seconds=0, secret=secret, faults=[Fault("get", "code", code=5000)]) as made:
        task = await made.order()
        body = payload(task.task_id)
        for headers in [JSON, {**JSON, **signed(body, secret=secret, now=time.time())}]:
            assert 200 < (await post(made.app, made.path, body, headers=headers, root="/kling")).status
        actor = receiver.Receiver(made.inbox, (b"canary",), None)
        shown = f"{made.app!r} {made.inbox!r} {made.inbox.reader!r} {made.client!r} {actor!r}"
        for hidden in (KEY, "canary", made.path.rpartition(".")[2]):
            assert hidden not in caplog.text
            assert hidden not in shown


async def test_a_client_that_is_closing_makes_the_sender_come_again():
    """
    Its inbox answers that before any query.
    """

    class Closing:
        def token(self, external_task_id):
            return "x" * 32

        def check(self):
            raise ClosedError("is closed")

    inbox = Inbox()
    inbox.attach(Closing())
    reply = await post(webhook_app(inbox), "/order-17." + "x" * 32, payload())
    assert 503 == reply.status


@pytest.mark.real_clock
async def test_a_server_on_another_loop_is_told_so():
    """
    The application belongs on the loop of the inbox's client.
    """
    async with shop() as made:
        task = await made.order()
        with pytest.raises(RuntimeError, match="open one on each loop"):
            await to_thread.run_sync(anyio.run, made.deliver, task)


async def test_what_is_remembered_is_bounded(monkeypatch):
    """
    Of tasks and of each one's deliveries; what is forgotten only costs a query.
    """
    monkeypatch.setattr(receiver, "CASES", 2)
    monkeypatch.setattr(receiver, "DELIVERIES", 3)
    async with shop() as made:
        made_receiver = receiver.Receiver(made.inbox, (), None)

        async def deliver(key, number):
            async def read():
                return payload(key=key, updated_at=number)

            name = urlsplit(made.client._callback_url_of(key)).path.rpartition("/")[2]
            assert receiver.OK == await made_receiver.answer("POST", name, JSON, read)

        for key in ("a", "b", "c"):
            for number in range(10):
                await deliver(key, number)
        assert [3, 3] == [len(case.done) for case in made_receiver._cases.values()]
