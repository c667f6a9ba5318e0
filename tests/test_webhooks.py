"""
Webhooks as users meet them: `parse_webhook`, and the receivers inside Starlette, FastAPI and aiohttp.web for real.
"""

import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import anyio
import orjson
import pytest
import uvicorn
from aiohttp import web
from anyio import to_thread
from attrs import define, field
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from kling_async import (
    ApiKey,
    Inbox,
    InvalidInputError,
    KlingClient,
    Removal,
    SelectionSession,
    SignatureError,
    Task,
    WebhookError,
)
from kling_async._hints import BODY_MOST
from kling_async.simulator import Simulator
from kling_async.webhooks import Hint, aiohttp_handler, parse_webhook, webhook_app
from tests.delivering import CLIP, JSON, PATIENT, payload, post, shop
from tests.strategies import modest
from tests.test_signatures import BODY, HEADERS, NOW, OTHER, SECRET, signed


def test_a_delivery_is_parsed_to_a_hint():
    """
    With header names in any case, with and without a secret; the vendor's example at its own time.
    """
    expected = Hint("1234567890", None, "succeed")
    shouted = {name.upper(): value for name, value in HEADERS.items()}
    assert expected == parse_webhook(BODY, {})
    assert expected == parse_webhook(BODY, shouted, secret=SECRET, now=NOW)
    assert expected == parse_webhook(BODY, shouted, secret=[OTHER, SECRET], now=NOW)


def test_the_clock_is_asked_where_no_time_is_given():
    """
    What was signed now is taken, the vendor's old example is not.
    """
    assert parse_webhook(BODY, signed(BODY, now=time.time()), secret=SECRET)
    with pytest.raises(SignatureError, match="more than 300 s"):
        parse_webhook(BODY, HEADERS, secret=SECRET)


@pytest.mark.parametrize("secret", ["", [], "whsec_"])
def test_an_empty_secret_does_not_turn_signatures_off(secret):
    """
    Whatever receives, it is told at once.
    """
    with pytest.raises(InvalidInputError, match="secret"):
        parse_webhook(BODY, HEADERS, secret=secret)
    for receiver in (webhook_app, aiohttp_handler):
        with pytest.raises(InvalidInputError, match="secret"):
            receiver(Inbox(), secret=secret)


@pytest.mark.parametrize("receiver", [webhook_app, aiohttp_handler])
def test_a_receiver_is_made_for_an_inbox(receiver):
    """
    A client or anything else is told by name.
    """
    with pytest.raises(InvalidInputError, match="inbox: must be an Inbox"):
        receiver(object())


texts = st.text() | st.text(st.characters(codec=None)) | st.sampled_from([*HEADERS.values(), str(NOW), "v1,", ""])
headers = st.dictionaries(st.sampled_from(list(HEADERS)) | texts, texts)


@modest
@given(st.binary() | st.just(BODY), headers, st.none() | st.just(SECRET))
@example(BODY, HEADERS, SECRET)
def test_whatever_bytes_and_headers_come_only_webhook_errors_go_out(body, headers, secret):
    """
    Else a hint.
    """
    try:
        found = parse_webhook(body, headers, secret=secret, now=NOW)
    except WebhookError as error:
        found = error
    assert SECRET not in repr(found)


async def test_a_body_in_many_pieces_is_put_together_and_counted():
    """
    Up to 256 KiB, and not a byte is asked for after the first too many.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order()
        body = payload(task.task_id).ljust(BODY_MOST)
        assert 200 == (await post(made.app, made.path, body, root="/kling", chunk=1000)).status
        asked = []

        async def receive():
            asked.append(1)
            return {"type": "http.request", "body": b" " * 65536, "more_body": True}

        async def send(message):
            asked.append(message.get("status"))

        raw = [(b"Content-Type", b"application/json")]
        await made.app({"type": "http", "method": "POST", "path": made.path[6:], "headers": raw}, receive, send)
        assert [1, 1, 1, 1, 1, 413, None] == asked


async def test_a_sender_that_leaves_in_the_middle_has_delivered_nothing():
    """
    Half a body is not looked at.
    """
    async with shop(task_seconds=0) as made:
        await made.order()
        incoming = [{"type": "http.request", "body": payload(), "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return incoming.pop(0)

        async def send(message):
            assert 400 == message.get("status", 400)

        raw = [(b"content-type", b"application/json")]
        await made.app({"type": "http", "method": "POST", "path": made.path[6:], "headers": raw}, receive, send)
        assert ([], 0) == (made.told, made.looks)


@pytest.mark.parametrize("root", ["", "/kling"])
async def test_the_path_may_or_may_not_hold_what_it_is_mounted_under(root):
    """
    Frameworks and proxies differ.
    """
    async with shop(task_seconds=0) as made:
        task = await made.order()
        reply = await post(made.app, made.path[len("/kling") :], payload(task.task_id), root=root)
        assert 200 == reply.status


async def test_the_lifespan_protocol_is_answered():
    """
    For servers that insist on it; there is nothing to begin.
    """
    sent = []

    async def receive():
        return {"type": ["lifespan.startup", "lifespan.shutdown"][len(sent)]}

    async def send(message):
        sent.append(message["type"])

    await webhook_app(Inbox())({"type": "lifespan"}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent


async def test_a_web_socket_is_closed():
    """
    Nothing is said over one.
    """
    sent = []

    async def send(message):
        sent.append(message)

    await webhook_app(Inbox())({"type": "websocket", "path": "/"}, None, send)
    assert [{"type": "websocket.close"}] == sent


@define
class Site:
    """
    A web application with our client in it, as a user builds it; where it listens is known before it runs.
    """

    service: str
    listening: socket.socket
    inbox: Inbox = field(factory=Inbox)
    told: list[Task] = field(factory=list)
    trouble: list[Exception] = field(factory=list)
    client: KlingClient | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    async def finish(self, task):
        if self.trouble:
            raise self.trouble.pop()
        self.told.append(task)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """
        One client for as long as the server runs.
        """
        settings = {"callback_url": f"{self.url}/kling", "inbox": self.inbox, "poll": PATIENT}
        async with KlingClient(ApiKey("any"), base_url=self.service, **settings) as self.client:
            yield

    async def order(self, request: Request) -> JSONResponse:
        """
        The paid call; the answer comes when the task has ended, which only a delivery tells in time.
        """
        async with SelectionSession(self.client, video_url=CLIP) as selection:
            await selection.add_points(0, [(0.5, 0.5)])
            task = await selection.create_task(Removal.of("x"))
        final = await self.client.wait(task)
        return JSONResponse({"task_id": final.task_id, "status": final.status})


@contextmanager
def listening():
    """
    A socket that takes connections before its server runs.
    """
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@asynccontextmanager
async def served(app, site):
    """
    The application under uvicorn in a thread.
    """
    quiet = {"log_level": "error", "access_log": False, "ws": "none"}
    config = uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=1, **quiet)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [site.listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(thread.join)


@asynccontextmanager
async def starlette(site):
    """
    Starlette, with the receiver mounted.
    """
    routes = [
        Mount("/kling", webhook_app(site.inbox, on_task=site.finish)),
        Route("/orders", site.order, methods=["POST"]),
    ]
    async with served(Starlette(routes=routes, lifespan=site.lifespan), site):
        yield


@asynccontextmanager
async def fastapi(site):
    """
    FastAPI, with the receiver mounted.
    """
    app = FastAPI(lifespan=site.lifespan)
    app.mount("/kling", webhook_app(site.inbox, on_task=site.finish))

    @app.post("/orders")
    async def order() -> dict[str, str]:
        return read(await site.order(None))

    async with served(app, site):
        yield


def read(response):
    """
    What a response says.
    """
    return orjson.loads(response.body)


@asynccontextmanager
async def aiohttp_web(site):
    """
    aiohttp.web, with its own handler, on the loop of the test.
    """

    async def lifetime(app):
        async with site.lifespan(app):
            yield

    async def order(request):
        return web.json_response(read(await site.order(None)))

    app = web.Application()
    app.cleanup_ctx.append(lifetime)
    app.router.add_route("*", "/kling/{name}", aiohttp_handler(site.inbox, on_task=site.finish))
    app.router.add_post("/orders", order)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, site.listening).start()
        yield
    finally:
        await runner.cleanup()


async def answer(session, url, **request):
    """
    Status and text of a POST.
    """
    async with session.post(url, **request) as reply:
        return reply.status, await reply.text()


async def sent_url(simulator, session, url):
    """
    The callback URL of the create, once it has reached the service; requests to the site set the pace.
    """
    while not (created := [seen.json for seen in simulator.log if seen.endpoint == "create"]):
        await answer(session, f"{url}/kling/nothing")
    return created[0]["callback_url"]


@pytest.mark.real_clock
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("framework", [starlette, fastapi, aiohttp_web])
async def test_a_delivery_over_real_sockets_ends_a_wait(framework, anyio_backend):
    """
    An order waits an hour unless a delivery wakes it. Wrong ones are refused, one meets trouble and comes again.
    """
    simulator = Simulator(task_seconds=0)
    # A server closes the connection of an application that failed; the next delivery comes on another.
    each = aiohttp.TCPConnector(force_close=True)
    async with (
        simulator.serve() as service,
        aiohttp.ClientSession(connector=each) as session,
        anyio.create_task_group() as group,
    ):
        with listening() as made:
            site = Site(service, made)
            async with framework(site):
                orders = []

                async def order():
                    orders.append(await answer(session, f"{site.url}/orders"))

                group.start_soon(order)
                url = await sent_url(simulator, session, site.url)
                key = url.rpartition("/")[2].rpartition(".")[0]
                body = payload("8781", key=key)
                asked = [
                    (404, f"{site.url}/kling/{key}.{'x' * 32}", {"data": body, "headers": JSON}),
                    (404, f"{site.url}/kling/nothing", {"data": body, "headers": JSON}),
                    (415, url, {"data": body, "headers": {"content-type": "text/plain"}}),
                    (413, url, {"data": b" " * (BODY_MOST + 1), "headers": JSON}),
                    (400, url, {"data": b"{}", "headers": JSON}),
                ]
                for status, where, request in asked:
                    try:
                        assert status == (await answer(session, where, **request))[0]
                    except aiohttp.ClientConnectionError:
                        # A server may hang up on a body that is too large before all of it was written.
                        assert 413 == status
                async with session.get(url) as reply:
                    assert (405, "POST") == (reply.status, reply.headers["allow"])
                assert [] == orders

                site.trouble.append(OSError("the database is away"))
                assert 500 == (await answer(session, url, data=body, headers=JSON))[0]
                for _ in range(3):
                    assert (200, "ok") == await answer(session, url, data=body, headers=JSON)
                assert [(key, "succeed")] == [(task.external_task_id, task.status) for task in site.told]
                while not orders:
                    await answer(session, f"{site.url}/kling/nothing")
                assert (200, True) == (orders[0][0], '"succeed"' in orders[0][1])


@pytest.mark.real_clock
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_application_runs_by_itself_under_a_server_that_insists_on_lifespan(anyio_backend):
    """
    Without a client there is nothing to check a path with, so senders come again.
    """
    with listening() as made:
        site = Site("", made)
        async with served(webhook_app(site.inbox), site), aiohttp.ClientSession() as session:
            assert (503, "come again") == await answer(session, f"{site.url}/x", data=payload(), headers=JSON)
