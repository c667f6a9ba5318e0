"""
Canaries: secrets that must come to light nowhere, whatever fails and whoever looks.

Each walk goes through the package with made-up secrets, lets things go wrong, and keeps all that could be written
down: logs at DEBUG of every logger, errors with the locals of their frames, reprs, pickles, events, answers, output and
files. All of it is searched for the secrets: as they are, quoted, in base64 at any offset, in hexadecimal, as bytes. A
one-way fingerprint is none.
"""

import asyncio
import gc
import logging
import pickle
import time
import traceback
import warnings
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import orjson
import pytest
from attrs import define, field, frozen

from kling_async import (
    ApiKey,
    Image,
    Inbox,
    InvalidInputError,
    Job,
    KeyPair,
    KlingClient,
    KlingError,
    PollPolicy,
    Removal,
    RetryPolicy,
    SelectionSession,
    SqliteStore,
    WebhookError,
    edit,
    to_dict,
)
from kling_async._auth import webhook_token
from kling_async.simulator import Fault, Simulator
from kling_async.transport import Response
from kling_async.webhooks import aiohttp_handler, parse_webhook
from tests.commanding import KNOWN, alone, commands, serving
from tests.delivering import JSON, payload, post, shop
from tests.doubles import KEY
from tests.test_signatures import signed

MARK = "Canary4711"
"""Stands in every secret below, and in nothing else."""
API = ApiKey(f"sk-{MARK}ApiKey")
SHAPELESS = ApiKey(f"{MARK}+of/no=shape")
PAIR = KeyPair(f"{MARK}Access", f"{MARK}SecretOfThirtyTwoCharacters")
SIGNS = f"{MARK}SignsDeliveries!"
WHSEC = f"whsec_{b64encode(SIGNS.encode()).decode()}"
QUERY = f"signature={MARK}Query%2F1"
CLIP = f"https://example.com/clip.mp4?{QUERY}"
HOOK = "https://me.example/kling"
HOST = "https://api-singapore.klingai.com"

EVERY = [pytest.param(API, id="api-key"), pytest.param(SHAPELESS, id="shapeless"), pytest.param(PAIR, id="pair")]
"""Credentials: of a known shape, of none, and the pair that signs tokens."""


def secrets_of(credentials):
    """
    What must stay hidden of credentials.
    """
    return [credentials.key] if isinstance(credentials, ApiKey) else [credentials.access_key, credentials.secret_key]


def forms(secret):
    """
    A secret in each way in which it might be written.
    """
    raw = secret.encode()
    yield from (raw, quote(secret, safe="").encode(), repr(secret).strip("'").encode(), raw.hex().encode())
    for offset in range(3):
        # What stands before and behind it shares the first and the last two characters with it.
        for encoded in (b64encode(bytes(offset) + raw), urlsafe_b64encode(bytes(offset) + raw)):
            yield encoded[2 * offset : -4]


@define(repr=False)
class Kept:
    """
    All that could have been written down, by where it was.
    """

    caplog: pytest.LogCaptureFixture
    pieces: list[tuple[str, bytes]] = field(factory=list)
    tokens: set[str] = field(factory=set)
    before: set[int] = field(factory=set)
    """What was alive before: what other tests left is theirs."""

    def keep(self, where, *values):
        """
        Text or bytes as they are, anything else as it shows itself.
        """
        for value in values:
            text = value if isinstance(value, str | bytes) else f"{value!r} {value!s} {value:}"
            self.pieces.append((where, text.encode(errors="surrogateescape") if isinstance(text, str) else text))

    def keep_error(self, error, *, locals_too=True):
        """
        An error as text, as data, as a pickle, and with all frames and what is in them.
        """
        told = traceback.TracebackException.from_exception(error, capture_locals=locals_too)
        self.keep("traceback", "".join(told.format()))
        self.keep("traceback as printed", "".join(traceback.format_exception(error)))
        seen = error
        while seen is not None:
            self.keep("error", seen, vars(seen))
            seen = seen.__cause__ or seen.__context__
        if isinstance(error, KlingError):
            self.keep("pickle of an error", pickle.dumps(error))

    def search(self, *secrets, apart=frozenset()):
        """
        Where any of the secrets came to light, apart from some places.
        """
        self.keep("log", self.caplog.text, *[f"{vars(record)!r}" for record in self.caplog.records])
        assert self.pieces
        found = []
        wanted = [form for secret in secrets for form in forms(secret)]
        for where, blob in self.pieces:
            at = max(blob.find(form) for form in wanted)
            if at >= 0 and where not in apart:
                found.append((where, blob[max(0, at - 200) : at + 60]))
        return found


@pytest.fixture
def alive(kept):
    """
    Note what is alive before a test begins.
    """
    kept.before.update(map(id, gc.get_objects()))


@pytest.fixture
def kept(caplog):
    """
    A place for everything, with every logger and every warning told to speak.
    """
    caplog.set_level(logging.DEBUG)
    for name in ("kling_async", "aiohttp", "aiohttp.client", "aiohttp.access", "asyncio", "trio", "anyio"):
        caplog.set_level(logging.DEBUG, logger=name)
    kept = Kept(caplog)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield kept
    assert [] == [str(each.message) for each in warned if MARK in str(each.message)]


# Calls that fail


IN_HEADERS = "this one tells it in its headers"


@frozen(repr=False)
class Echo:
    """
    A transport whose replies hold the very header that came, where the service's words leave room; as gateways do.

    Its frames are in every traceback that is searched, so that none of its locals may hold what is searched for.
    """

    inner: object
    kept: "Kept"

    async def exchange(self, request):
        self.note(request)
        response = await self.inner.exchange(request)
        return self.echoed(request, response)

    def note(self, request):
        self.kept.keep("request", request)
        self.kept.tokens.add(request.headers["Authorization"].removeprefix("Bearer "))

    def echoed(self, request, response):
        said = request.headers["Authorization"]
        body = response.body.replace(b"@header", said.encode())
        more = {"x-oneapi-request-id": said} if IN_HEADERS.encode() in body else {}
        return Response(response.status, {**response.headers, **more}, body)

    async def download(self, url, path, **options):
        return await self.inner.download(url, path, **options)

    async def aclose(self):
        await self.inner.aclose()


def refusals(endpoint, words):
    """
    Everything that a service and the network can refuse or cut, in words that hold the key.
    """
    page = f"<html>{words}</html>".encode()
    codes = (1000, 1004, 1102, 1201, 1203, 1301, 1302, 1303, 5001, 7777)
    return [
        *[Fault(endpoint, kind) for kind in ("lost", "cut", "unsent", "html", "empty", "wrong_path")],
        *[Fault(endpoint, "code", code=code, message=words) for code in codes],
        *[Fault(endpoint, "status", status=status, body=page) for status in (401, 403, 408, 429, 500, 524)],
        *[Fault(endpoint, "gateway", status=status, word=words, message=words) for status in (401, 500)],
        Fault(endpoint, "account", message=words),
        Fault(endpoint, "nested", code=1002, message=words, depth=2),
    ]


def answers(endpoint, words):
    """
    The same in replies whose HTTP status says that all is well.
    """
    odd = [
        {"code": 1002, "message": words},
        {"code": words, "message": words, "request_id": words},
        {"error": {"type": words, "message": {"said": words}}},
        {"code": 0, "data": {"task_id": [words], "task_status": {"x": words}, "status": words, "session_id": [words]}},
        {"code": 0, "data": {"res": {"rle_mask_list": [{"object_id": words, "rle_mask": {"counts": words}}]}}},
        {"code": 0, "data": words},
        words,
    ]
    return [Fault(endpoint, "status", status=200, body=orjson.dumps(each)) for each in odd]


def headers(endpoint, words):
    """
    The same in header fields.
    """
    return [
        Fault(endpoint, "redirect", location=f"https://elsewhere.example/?key={words}"),
        Fault(endpoint, "code", code=1201, message=IN_HEADERS),
    ]


CALLS = {
    "init": lambda client: client.init_selection(video_url=CLIP),
    "add": lambda client: client.add_selection("s-1", 0, [(0.5, 0.5)]),
    "delete": lambda client: client.delete_selection("s-1", 0, [(0.5, 0.5)]),
    "clear": lambda client: client.clear_selection("s-1"),
    "preview": lambda client: client.preview_selection("s-1"),
    "create": lambda client: client.create_task("s-1", Removal.of("x"), external_task_id="order-17"),
    "get": lambda client: client.get_task("8781"),
    "list": lambda client: client.list_tasks(),
}


async def failed(call, client):
    """
    What a call raises; in the locals of this frame there is nothing to be found.
    """
    try:
        await call(client)
    except KlingError as error:
        return error
    return None


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize("credentials", EVERY)
@pytest.mark.parametrize("echoes", [refusals, answers, headers])
async def test_f54_no_failed_call_tells_a_secret(echoes, credentials, endpoint, kept):
    """
    Each endpoint, each fault that there is, each echo of the key in it: not in any frame, text, pickle, log or event.
    """
    words = f"{' '.join(secrets_of(credentials))} is invalid: @header"
    kinds = set()
    for fault in echoes(endpoint, words):
        transport = Echo(Simulator(faults=[fault]).transport(), kept)
        told = {"retry": RetryPolicy(attempts=1, doubt=4), "observer": lambda event: kept.keep("event", event)}
        async with KlingClient(credentials, base_url=HOST, transport=transport, **told) as client:
            error = await failed(CALLS[endpoint], client)
            kept.keep("client", client, vars(client))
        if error is not None:
            kinds.add(type(error).__name__)
            kept.keep_error(error)
    assert len(kinds) > (8 if echoes is refusals else 0)
    assert [] == kept.search(*secrets_of(credentials), *kept.tokens)


# A whole edit


def walk(credentials):
    """
    Faults on the way of one edit, all of which it gets over, in words that hold the key.
    """
    words = f"{' '.join(secrets_of(credentials))} is invalid: @header"
    page = f"<html>{words}</html>".encode()
    return [
        Fault("init", "code", code=5001, message=words),
        Fault("init", "lost"),
        Fault("add", "code", code=1302, message=words),
        Fault("create", "code", code=1302, message=words),
        Fault("create", "status", status=503, body=page, handled=True),
        Fault("get", "status", status=502, body=page, after=2),
        Fault("get", "cut"),
        Fault("media", "cut"),
    ]


JOB = Job(CLIP, marks={0: [(0.5, 0.5)]}, edit=Removal.of("x"), key="order-17")


def keep_living(kept):
    """
    Everything of ours that is alive, as it shows itself; the simulator has been told what to say.
    """
    for each in gc.get_objects():
        module = str(type(each).__module__)
        ours = module.startswith("kling_async") and not module.startswith("kling_async.simulator")
        if ours and id(each) not in kept.before:
            kept.keep("living", f"{each!r} {each!s}")


def keep_files(kept, folder):
    """
    Every file below a folder, and its name.
    """
    for path in folder.rglob("*"):
        kept.keep("name of a file", str(path))
        if path.is_file():
            kept.keep("file", path.read_bytes())


async def edited(client, kept, folder):
    """
    An edit from its clip to its file, with everything that it leaves.
    """
    job = JOB
    task = await edit(client, job)
    video = await client.download(task.video, folder / "out.mp4")
    async with SelectionSession(client, video_url=CLIP) as selection:
        marked = await selection.add_points(0, [(0.5, 0.5)])
        preview = await selection.preview()
        keep_living(kept)
        with pytest.raises(TypeError, match="pickle") as refused:
            pickle.dumps(client)
        kept.keep("refusal to pickle", refused.value)
        kept.keep("selection", selection, selection.state, selection.info, marked, preview, job, task, video)
    for value in (task, marked, preview, selection.info):
        kept.keep("pickle of a value", pickle.dumps(value), orjson.dumps(to_dict(value)), value.raw)
    keep_files(kept, folder)


SOON = {"retry": RetryPolicy(base=0.01, doubt=0.5, attempts=5), "poll": PollPolicy(first=0.01, ceiling=0.01)}
APART = {"traceback", "selection", "pickle of a value"}
"""Where the link of a clip is data: values hold what they were given, and a caller's frames do so anyway."""


def assert_hidden(kept, credentials):
    """
    Neither keys nor tokens are anywhere, and the query of a signed link is only where links are kept.
    """
    token = webhook_token(credentials, JOB.external_task_id)
    assert [] == kept.search(*secrets_of(credentials), *kept.tokens, token)
    assert [] == kept.search(QUERY, apart=APART)


@pytest.mark.real_clock
@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("credentials", EVERY)
async def test_f54_a_whole_edit_tells_no_secret(credentials, kept, tmp_path):
    """
    With a store on disk, an inbox and an observer; while it goes on, and in what it leaves behind.
    """
    simulator = Simulator(faults=walk(credentials), task_seconds=0)
    store, inbox = SqliteStore(tmp_path / "intents.sqlite"), Inbox()
    async with KlingClient(
        credentials,
        base_url=HOST,
        transport=Echo(simulator.transport(), kept),
        store=store,
        callback_url=HOOK,
        inbox=inbox,
        observer=lambda event: kept.keep("event", event, pickle.dumps(event)),
        **SOON,
    ) as client:
        await edited(client, kept, tmp_path)
        assert {"intents.sqlite", "intents.sqlite-wal", "intents.sqlite-shm"} <= {
            path.name for path in tmp_path.iterdir()
        }
        kept.keep("store", store, *await store.recent())
    keep_files(kept, tmp_path)
    assert {JOB.external_task_id: 1} == dict(simulator.charges)
    assert_hidden(kept, credentials)


@pytest.mark.real_clock
@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("credentials", EVERY)
async def test_f54_a_whole_edit_over_sockets_tells_no_secret(credentials, kept, tmp_path, anyio_backend_name):
    """
    The same with aiohttp beneath, its loggers and asyncio's at their most talkative, and a host that is dead.
    """
    if anyio_backend_name == "asyncio":
        asyncio.get_running_loop().set_debug(True)
    simulator = Simulator(faults=walk(credentials), task_seconds=0)
    async with simulator.serve() as base_url:
        store = SqliteStore(tmp_path / "intents.sqlite")
        async with KlingClient(credentials, base_url=base_url, store=store, **SOON) as client:
            await edited(client, kept, tmp_path)
        for where in (base_url, "http://127.0.0.1:1/kling"):
            simulator.script(*[Fault(each, "cut", times=2) for each in CALLS])
            for call in CALLS.values():
                async with KlingClient(credentials, base_url=where, retry=RetryPolicy(attempts=1, doubt=0.1)) as client:
                    error = await failed(call, client)
                    if error is not None:
                        kept.keep_error(error)
    assert {JOB.external_task_id: 1} == dict(simulator.charges)
    assert_hidden(kept, credentials)


# Deliveries


def odd_deliveries(made, task):
    """
    Requests that are refused, one way or another, and some that are taken.
    """
    now, body = time.time(), payload(task.task_id, "submitted")
    old = signed(body, secret=WHSEC, now=now - 600)
    for changes in (
        {},
        {},
        {"body": b"no json"},
        {"body": payload("1", key="order-18")},
        {"body": b" " * 300_000},
        {"headers": JSON},
        {"headers": {}},
        {"headers": {**JSON, **old}},
        {"headers": {**JSON, **old, "webhook-signature": "v1,xxxx"}},
        {"path": f"{made.path[:-1]}!"},
        {"path": made.path.replace("order-17", "order-18")},
        {"method": "GET"},
    ):
        sent = changes.get("body", body)
        headers = {**JSON, **signed(sent, secret=WHSEC, now=now)}
        yield {"path": made.path, "body": sent, "headers": headers, "method": "POST", **changes}


@define
class Posted:
    """
    A request as aiohttp hands it to its handler.
    """

    method: str
    path: str
    headers: dict
    content: object


@define
class Content:
    """
    Its body.
    """

    body: bytes

    def iter_any(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.body:
            raise StopAsyncIteration
        body, self.body = self.body, b""
        return body


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("server", ["asgi", "aiohttp"])
async def test_f54_no_answer_to_a_delivery_tells_a_secret(server, kept):
    """
    Whatever is posted: neither the answer, nor the log, nor what the applications show of themselves.
    """
    statuses = set()
    simulator = Simulator(task_seconds=3600, faults=[Fault("get", "code", code=5001, message=KEY, after=1)])
    transport = Echo(simulator.transport(), kept)
    async with shop(simulator=simulator, transport=transport, secret=WHSEC) as made:
        task = await made.order("order-17")
        handler = aiohttp_handler(made.inbox, secret=WHSEC, on_task=made.finish)
        for given in odd_deliveries(made, task):
            path, body = given.pop("path"), given.pop("body")
            if server == "asgi":
                reply = await post(made.app, path, body, root="/kling", **given)
                kept.keep("answer", reply.text, reply.headers)
            else:
                reply = await handler(Posted(path=path, content=Content(body), **given))
                kept.keep("answer", reply, reply.body, dict(reply.headers))
            statuses.add(reply.status)
        keep_living(kept)
        kept.keep("application", made.app, handler, made.inbox)
    assert {200, 400, 401, 404, 405, 413, 415, 503} <= statuses
    assert [] == kept.search(KEY, WHSEC, SIGNS, made.path.rpartition(".")[2])


def without(error, *, frames):
    """
    An error without its first frames: those of a test and of the function that it called hold what was given.
    """
    for _ in range(frames):
        error = error.with_traceback(error.__traceback__.tb_next)
    return error


@pytest.mark.parametrize(
    ("body", "headers", "secret"),
    [
        (b"{}", {}, WHSEC),
        (b"{}", {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}, [WHSEC]),
        (b"{}", {"webhook-id": "1", "webhook-timestamp": "x", "webhook-signature": "v1,x"}, WHSEC),
        (b"no json", signed(b"no json", secret=WHSEC, now=1), WHSEC),
        (b"{}", {}, f"{WHSEC}!"),
        (b"{}", {}, SIGNS),
        (b"{}", {}, [WHSEC, SIGNS]),
    ],
)
def test_f54_no_refusal_of_a_delivery_tells_the_secret(body, headers, secret, kept):
    """
    Neither when the signature is wrong nor when the secret itself is: not in any frame below the call.
    """
    with pytest.raises((WebhookError, InvalidInputError)) as caught:
        parse_webhook(body, headers, secret=secret, now=1)
    kept.keep_error(without(caught.value, frames=2))
    assert [] == kept.search(WHSEC, SIGNS)


# Credentials that are wrong


SLIPS = [f"Bearer {API.key}", f"{API.key} ", f"{API.key}\n", f"{API.key}\u20ac", f"bearer{API.key}"]


@pytest.mark.parametrize("slip", SLIPS, ids=["bearer", "space", "line", "sign", "one-word"])
@pytest.mark.parametrize("names", [["COMETAPI_KEY"], ["KLING_API_KEY"], ["KLING_ACCESS_KEY", "KLING_SECRET_KEY"]])
def test_f54_a_slip_in_the_environment_is_told_without_its_value(names, slip, kept, monkeypatch):
    """
    `from_env` names the variable, the error says what is wrong with it.
    """
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, slip)
    with pytest.raises(InvalidInputError) as caught:
        KlingClient.from_env()
    kept.keep_error(caught.value, locals_too=False)
    assert [] == kept.search(API.key, MARK)


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{API.key}@api.example/kling",
        f"https://api.example/kling?key={API.key}",
        f"https://[{API.key}/kling",
        API.key,
        f"https://me:{API.key}",
    ],
)
def test_f54_a_key_in_a_url_is_not_repeated(url, kept, monkeypatch):
    """
    As the base URL of the environment, as the URL of a clip, a picture, a proxy, or of deliveries.
    """
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMETAPI_KEY", SHAPELESS.key)
    monkeypatch.setenv("KLING_BASE_URL", url)
    for make in (KlingClient.from_env, lambda: KlingClient(API, callback_url=url), lambda: Image.from_url(url)):
        try:
            made = make()
        except InvalidInputError as error:
            kept.keep_error(error, locals_too=False)
        else:
            kept.keep("made", made)
    kept.keep("none", "")
    assert [] == kept.search(API.key, SHAPELESS.key)


# The command line


ONE = {"COMETAPI_KEY": SHAPELESS.key}
TWO = {"KLING_ACCESS_KEY": PAIR.access_key, "KLING_SECRET_KEY": PAIR.secret_key}
MARKED = ("--point", "40:0.80,0.53", "--remove", "the stones", "--yes")
TROUBLE = {
    "none": lambda words: [],
    "init": lambda words: [Fault("init", "code", code=1002, message=words)],
    "add": lambda words: [Fault("add", "gateway", status=401, word=words, message=words)],
    "preview": lambda words: [Fault("preview", "nested", code=1201, message=words, depth=2)],
    "create": lambda words: [Fault("create", "status", status=500, body=words.encode(), handled=True)],
    "get": lambda words: [Fault("get", "code", code=1301, message=words, after=1)],
    "media": lambda words: [Fault("media", "status", status=403, body=words.encode(), times=None)],
}


@pytest.fixture(params=[pytest.param(ONE, id="key"), pytest.param(TWO, id="pair")])
def keys(request, monkeypatch, tmp_path):
    """
    A folder of one's own, and keys in the environment.
    """
    alone(monkeypatch, tmp_path)
    monkeypatch.delenv("COMETAPI_KEY")
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    return request.param.values()


@pytest.mark.real_clock
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_f54_no_command_tells_a_secret(trouble, json, keys, kept, capsys, tmp_path):  # noqa: PLR0917 - fixtures
    """
    An edit that comes to its end and edits that do not, what is kept of them, and `doctor` and `tasks` after them.
    """
    run, words, codes = commands(capsys), f"{' '.join(keys)} is invalid", set()
    with serving(faults=TROUBLE[trouble](words)) as served:
        for given in (
            ["edit", f"{served.clip}?{QUERY}", *MARKED, "--key", "order-7"],
            ["doctor"],
            ["tasks", "show", "--external", "order-7"],
            ["tasks", "list"],
            ["tasks", "wait", "1"],
        ):
            ended = run(*given, "--base-url", served.base_url, *json)
            kept.keep(f"command {given[0]}", ended.out, ended.err)
            codes.add(ended.code)
            served.simulator.script(Fault("get", "code", code=1002, message=words))
    assert 3 in codes
    keep_files(kept, tmp_path)
    assert [] == kept.search(*keys, QUERY)
