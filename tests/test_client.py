"""
The client: its lifetime, its eight calls, and the flows around them.
"""

import logging
import pickle

import anyio
import pytest

from kling_async import (
    COMETAPI_URL,
    KLING_CHINA_URL,
    KLING_GLOBAL_URL,
    Addition,
    ApiKey,
    ClosedError,
    DownloadError,
    Image,
    InvalidInputError,
    KeyPair,
    KlingClient,
    KlingError,
    MemoryStore,
    NotFoundError,
    NotSentError,
    Point,
    Preview,
    Removal,
    RetryPolicy,
    SelectionRejectedError,
    StoreError,
    UnsupportedError,
    Video,
)
from tests.doubles import KEY, Script, envelope, task_reply

PAIR = KeyPair("access", "secret-secret-secret-secret-secret")
CLIP = "https://example.com/clip.mp4"
MARKED = envelope({"status": 0, "res": {"frame_index": 40, "rle_mask_list": []}})


def client_of(*steps, credentials=None, base_url=None, **named):
    return KlingClient(credentials or ApiKey(KEY), transport=Script(list(steps)), base_url=base_url, **named)


def script_of(client):
    return client._borrowed


class Store(MemoryStore):
    """
    Counts its openings and closings.
    """

    opened = closed = 0

    async def open(self):
        self.opened += 1

    async def aclose(self):
        self.closed += 1


async def test_the_store_is_the_clients_own_and_the_transport_is_borrowed():
    """
    A store is opened and closed with the block; a transport that was handed in is never closed.
    """
    store = Store()
    client = client_of(store=store)
    async with client:
        assert (1, 0) == (store.opened, store.closed)
    assert (1, 1) == (store.opened, store.closed)
    assert 0 == script_of(client).closed


async def test_without_a_transport_the_client_opens_and_closes_a_pool(monkeypatch):
    """
    Its own pool lives exactly as long as the block.
    """
    pool = Script([envelope({"session_id": "8475"})])
    asked = {}

    async def opened(**named):
        asked.update(named)
        return pool

    monkeypatch.setattr("kling_async.client.open_transport", opened)
    async with KlingClient(ApiKey(KEY), connections=7) as client:
        await client.init_selection(video_url=CLIP)
        assert 0 == pool.closed
    assert 1 == pool.closed
    assert {"connections": 7} == asked


async def test_a_client_whose_store_does_not_open_leaves_nothing_open():
    """
    What failed to open is closed again, and the error is the store's own.
    """

    class Broken(Store):
        async def open(self):
            raise StoreError("read-only")

    store = Broken()
    client = client_of(store=store)
    with pytest.raises(StoreError):
        await client.__aenter__()
    assert 1 == store.closed
    with pytest.raises(ClosedError):
        await client.get_task("1")


async def test_a_client_is_used_inside_its_block_and_opens_once():
    """
    Before, after and again are told apart.
    """
    client = client_of(task_reply())
    with pytest.raises(ClosedError, match="async with"):
        await client.get_task("1")
    async with client:
        pass
    with pytest.raises(ClosedError, match="is closed"):
        await client.get_task("1")
    with pytest.raises(ClosedError, match="opens once"):
        await client.__aenter__()


async def test_what_the_body_raises_comes_out_as_itself():
    """
    Never wrapped into a group.
    """
    with pytest.raises(KeyError):
        async with client_of():
            raise KeyError


async def test_closing_ends_a_call_in_flight_with_closed_error():
    """
    A call in another task does not hang when the block ends; it is told.
    """
    client, ended = client_of(anyio.Event()), []

    async def call():
        try:
            await client.get_task("1")
        except ClosedError as error:
            ended.append(error)

    async with anyio.create_task_group() as group, client:
        group.start_soon(call)
        await script_of(client).started.wait()
    assert 1 == len(ended)


async def test_a_call_that_will_not_end_does_not_hold_the_block_for_ever():
    """
    Closing waits five seconds for calls that shield themselves, and no longer.
    """
    client, go = client_of(), anyio.Event()

    async def stubborn():
        with client._owner.lease("stubborn"), anyio.CancelScope(shield=True):
            await go.wait()

    async with anyio.create_task_group() as group:
        async with client:
            group.start_soon(stubborn)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
        assert 5 == pytest.approx(anyio.current_time() - began)
        go.set()


async def test_each_call_goes_to_its_documented_path():
    """
    All eight, with the bodies that contract and client agree on.
    """
    async with client_of(
        envelope({"status": 0, "session_id": "8475", "fps": 24.0, "total_frame": 96}),
        MARKED,
        MARKED,
        envelope({"status": 0}),
        envelope({"status": 0, "res": {"video": "https://cdn.example.com/p.mp4"}}),
        task_reply(),
        task_reply("processing"),
        envelope([{"task_id": "8781", "task_status": "submitted"}]),
        base_url=KLING_GLOBAL_URL,
    ) as client:
        script = script_of(client)
        info = await client.init_selection(video_url=CLIP)
        point = Point(0.1 + 0.2, 0.53)
        assert 40 == (await client.add_selection(info.session_id, 40, [point])).frame_index
        await client.delete_selection(info.session_id, 40, [(0.1 + 0.2, 0.53)])
        assert await client.clear_selection(info.session_id) is None
        assert "https://cdn.example.com/p.mp4" == (await client.preview_selection(info.session_id)).video_url
        await client.create_task(info.session_id, Removal.of("the stones"), external_task_id="order-1")
        await client.get_task(external_task_id="order-1")
        [listed] = await client.list_tasks()
    family = "videos/multi-elements"
    assert [
        f"POST {family}/init-selection",
        f"POST {family}/add-selection",
        f"POST {family}/delete-selection",
        f"POST {family}/clear-selection",
        f"POST {family}/preview-selection",
        f"POST {family}",
        f"GET {family}/order-1",
        f"GET {family}?pageNum=1&pageSize=30",
    ] == script.paths
    assert {"video_url": CLIP} == script.bodies[0]
    assert script.requests[1].body == script.requests[2].body
    assert b'"x":0.30000000000000004' in script.requests[1].body
    assert {"session_id": "8475"} == script.bodies[3] == script.bodies[4]
    assert "8781" == listed.task_id


async def test_data_may_be_absent_where_cometapi_says_so():
    """
    Preview, delete and clear may come back without data.
    """
    async with client_of(envelope(), envelope(), envelope()) as client:
        assert () == (await client.delete_selection("1", 0, [(0.5, 0.5)])).masks
        await client.clear_selection("1")
        assert Preview() == await client.preview_selection("1")


async def test_a_rejected_selection_is_an_error_despite_code_0():
    """
    `data.status` is the third level of failure.
    """
    async with client_of(envelope({"status": 3})) as client:
        with pytest.raises(SelectionRejectedError) as caught:
            await client.add_selection("1", 0, [(0.5, 0.5)])
    assert (3, "r-1") == (caught.value.selection_status, caught.value.request_id)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("video_url and video_id", lambda c: c.init_selection()),
        ("video_url and video_id", lambda c: c.init_selection(video_url=CLIP, video_id="1")),
        ("video_url", lambda c: c.init_selection(video_url="http://example.com/clip.mp4")),
        ("video_url", lambda c: c.init_selection(video_url="https://127.0.0.1/clip.mp4")),
        ("session_id", lambda c: c.add_selection(8475, 0, [(0.5, 0.5)])),
        ("session_id", lambda c: c.clear_selection("<session_id>")),
        ("frame_index", lambda c: c.add_selection("1", -1, [(0.5, 0.5)])),
        ("points", lambda c: c.add_selection("1", 0, [])),
        ("x", lambda c: c.delete_selection("1", 0, [(640, 360)])),
        ("edit", lambda c: c.create_task("1", "Delete it")),
        ("image", lambda c: c.create_task("1", Addition.of("it", Image.from_url("http://example.com/a.png")))),
        ("callback_url", lambda c: c.create_task("1", Removal.of("it"), callback_url="https://10.0.0.1/")),
        ("callback_url", lambda c: c.create_task("1", Removal.of("it"), callback_url="https://example.com/#a")),
        ("task_id", lambda c: c.get_task()),
        ("task_id and external_task_id", lambda c: c.get_task("1", external_task_id="order-1")),
        ("external_task_id", lambda c: c.get_task(external_task_id="8781")),
        ("page", lambda c: c.list_tasks(0)),
        ("page", lambda c: c.list_tasks(1001)),
        ("page_size", lambda c: c.list_tasks(1, 501)),
        ("path", lambda c: c.request("GET", "v1/videos")),
        ("path", lambda c: c.request("GET", "/v1/videos?page=1")),
        ("path", lambda c: c.request("POST", "/v1/videos/multi-elements/")),
        ("json", lambda c: c.request("POST", "/v1/videos/text2video", json={"a": object()})),
        ("source", lambda c: c.download(Video(), "out.mp4")),
        ("source", lambda c: c.download("file:///etc/passwd", "out.mp4")),
    ],
)
async def test_wrong_input_is_told_by_name_before_any_request(field, call):
    """
    The field and the remedy, and nothing sent.
    """
    async with client_of(base_url=KLING_GLOBAL_URL) as client:
        with pytest.raises(InvalidInputError) as caught:
            await call(client)
        assert field == caught.value.field
        assert [] == script_of(client).requests


async def test_a_local_service_may_be_given_local_media():
    """
    The simulator fetches from loopback; a real host could not.
    """
    async with client_of(envelope({"session_id": "1"}), task_reply(), base_url="http://127.0.0.1:1/kling") as client:
        await client.init_selection(video_url="http://127.0.0.1:1/media/clip.mp4")
        await client.create_task("1", Removal.of("it"), callback_url="http://127.0.0.1:2/hook")
        assert "http://127.0.0.1:2/hook" == script_of(client).bodies[1]["callback_url"]


async def test_the_clients_callback_url_goes_with_each_create_unless_another_is_named():
    """
    The create's own wins.
    """
    async with client_of(task_reply(), task_reply(), callback_url="https://me.example/kling") as client:
        await client.create_task("1", Removal.of("it"))
        await client.create_task("1", Removal.of("it"), callback_url="https://me.example/other")
        sent = [body["callback_url"] for body in script_of(client).bodies]
    assert ["https://me.example/kling", "https://me.example/other"] == sent


async def test_an_external_id_that_is_not_found_proves_nothing_on_some_hosts():
    """
    CometAPI documents no query by external id, so its 404 says nothing; Kling's does.
    """
    missing = envelope(code=1203, status=404)
    async with client_of(missing) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get_task(external_task_id="order-1")
    assert "proves nothing" in caught.value.__notes__[0]
    async with client_of(missing, base_url=KLING_GLOBAL_URL) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get_task(external_task_id="order-1")
    assert not hasattr(caught.value, "__notes__")


async def test_a_host_without_a_list_says_so():
    """
    CometAPI documents none; no request is wasted on it.
    """
    async with client_of() as client:
        with pytest.raises(UnsupportedError, match=r"api\.cometapi\.com"):
            await client.list_tasks()
        with pytest.raises(UnsupportedError):
            async for _ in client.iter_tasks():
                pass
        assert [] == script_of(client).requests


async def test_iter_tasks_walks_every_page():
    """
    Two pages, five tasks.
    """
    pages = [envelope([{"task_id": str(n), "task_status": "submitted"} for n in ns]) for ns in ((1, 2, 3), (4, 5))]
    async with client_of(*pages, base_url=KLING_CHINA_URL) as client:
        assert ["1", "2", "3", "4", "5"] == [task.task_id async for task in client.iter_tasks(page_size=3)]


async def test_any_other_route_answers_with_its_data():
    """
    `request` takes the key and the errors along, and gives plain JSON types back.
    """
    async with client_of(envelope({"resource_pack_subscribe_infos": []})) as client:
        found = await client.request("get", "/account/costs", params={"start_time": 1})
        assert {"resource_pack_subscribe_infos": []} == found
        assert f"{COMETAPI_URL}/account/costs?start_time=1" == script_of(client).requests[0].url


async def test_a_download_is_tried_again_until_the_link_works(tmp_path):
    """
    A link may not be there right after the success; one that has expired is not tried again.
    """
    early, gone = DownloadError("HTTP 404", status=404), DownloadError("HTTP 403", status=403)
    video = Video(url="https://cdn.example.com/out.mp4")
    async with client_of(early, DownloadError("cut"), b"film", gone) as client:
        assert tmp_path / "out.mp4" == await client.download(video, str(tmp_path / "out.mp4"))
        assert b"film" == (tmp_path / "out.mp4").read_bytes()
        with pytest.raises(DownloadError) as caught:
            await client.download(video, tmp_path / "out.mp4")
        assert 403 == caught.value.status
        assert [] == script_of(client).requests


async def test_a_download_gives_up_when_the_attempts_are_spent(tmp_path):
    """
    Three tries by default, and then the error of the last.
    """
    async with client_of(*[DownloadError("HTTP 502", status=502)] * 3, b"film") as client:
        with pytest.raises(DownloadError):
            await client.download("https://cdn.example.com/out.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("environment", "shown", "url"),
    [
        ({"COMETAPI_KEY": KEY, "KLING_API_KEY": "other"}, "COMETAPI_KEY", COMETAPI_URL),
        ({"KLING_API_KEY": KEY}, "KLING_API_KEY", KLING_GLOBAL_URL),
        ({"KLING_ACCESS_KEY": KEY, "KLING_SECRET_KEY": KEY}, "KLING_ACCESS_KEY and KLING_SECRET_KEY", KLING_GLOBAL_URL),
        ({"KLING_API_KEY": KEY, "KLING_BASE_URL": KLING_CHINA_URL}, "KLING_API_KEY", KLING_CHINA_URL),
    ],
)
def test_the_environment_names_key_and_host(monkeypatch, environment, shown, url):
    """
    CometAPI's key first, then Kling's; the repr names the variable and the host, never the key.
    """
    for name in ("COMETAPI_KEY", "KLING_API_KEY", "KLING_ACCESS_KEY", "KLING_SECRET_KEY", "KLING_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = KlingClient.from_env()
    assert url == client.base_url
    assert f"<KlingClient {url.split('/')[2]}, {shown}, not opened yet>" == repr(client)
    assert KLING_CHINA_URL == KlingClient.from_env(base_url=KLING_CHINA_URL).base_url


def test_an_empty_environment_names_all_the_variables(monkeypatch):
    """
    The error is the documentation.
    """
    for name in ("COMETAPI_KEY", "KLING_API_KEY", "KLING_ACCESS_KEY", "KLING_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInputError, match=r"COMETAPI_KEY.*KLING_API_KEY.*KLING_ACCESS_KEY.*KLING_SECRET_KEY"):
        KlingClient.from_env()


def test_a_key_pair_belongs_to_kling_itself():
    """
    CometAPI takes bearer keys only; the error names the two hosts that sign.
    """
    with pytest.raises(InvalidInputError, match=f"{KLING_GLOBAL_URL} or {KLING_CHINA_URL}"):
        KlingClient(PAIR, base_url=COMETAPI_URL)
    assert KLING_GLOBAL_URL == KlingClient(PAIR).base_url


@pytest.mark.parametrize(
    "named",
    [
        {"credentials": KEY},
        {"base_url": "http://example.com"},
        {"connections": 0},
        {"callback_url": "http://example.com"},
    ],
)
def test_a_wrong_client_cannot_be_built(named):
    """
    Every argument is judged by the constructor.
    """
    with pytest.raises(InvalidInputError):
        KlingClient(**({"credentials": ApiKey(KEY)} | named))


async def test_the_key_appears_nowhere(caplog):
    """
    Not in logs, reprs, errors or pickles of what a failed call leaves behind.
    """
    caplog.set_level(logging.DEBUG, "kling_async")
    refused = envelope(code=1002, status=401, message=f"Authorization is invalid: Bearer {KEY}")
    async with client_of(refused, NotSentError("refused"), retry=RetryPolicy(attempts=1)) as client:
        seen = [repr(client), repr(vars(client))]
        for _ in range(2):
            with pytest.raises(KlingError) as caught:
                await client.get_task("1")
            seen += [str(caught.value), repr(vars(caught.value)), repr(pickle.dumps(caught.value))]
        seen.append(repr(script_of(client).requests))
    assert KEY not in "".join([*seen, caplog.text])
