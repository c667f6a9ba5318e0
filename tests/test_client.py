"""
The client: its lifetime, its eight calls, and the flows around them.
"""

import logging
import pickle

import anyio
import anyio.lowlevel
import pytest

from kling_async import (
    COMETAPI_URL,
    KLING_CHINA_URL,
    KLING_GLOBAL_URL,
    ApiKey,
    ClosedError,
    DownloadError,
    InvalidInputError,
    KeyPair,
    KlingClient,
    KlingError,
    MemoryStore,
    NotSentError,
    RetryPolicy,
    StoreError,
    Video,
)
from kling_async.events import Replayed
from tests.doubles import KEY, Script, client_of, envelope, script_of, task_reply
from tests.test_aiohttp import reply, serving

PAIR = KeyPair("access", "secret-secret-secret-secret-secret")
CLIP = "https://example.com/clip.mp4"
MARKED = envelope({"status": 0, "res": {"frame_index": 40, "rle_mask_list": []}})


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


@pytest.mark.parametrize("observer", [None, [].append])
async def test_without_a_transport_the_client_opens_and_closes_a_pool(monkeypatch, observer):
    """
    Its own pool lives exactly as long as the block, and hashes what it downloads where somebody is told of it.
    """
    pool = Script([envelope({"session_id": "8475"})])
    asked = {}

    async def opened(connections, **named):
        asked.update(named, connections=connections)
        return pool

    monkeypatch.setattr("kling_async.client.open_own", opened)
    async with KlingClient(ApiKey(KEY), connections=7, observer=observer) as client:
        await client.init_selection(video_url=CLIP)
        assert 0 == pool.closed
    assert 1 == pool.closed
    assert {"connections": 7, "digest": observer is not None} == asked


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


async def test_a_download_that_would_end_the_same_way_is_not_tried_again(tmp_path):
    """
    A private address or a full disk does not pass by waiting.
    """
    async with client_of(DownloadError("not a public host", final=True), b"film") as client:
        with pytest.raises(DownloadError, match="public"):
            await client.download("https://cdn.example.com/out.mp4", tmp_path / "out.mp4")


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


@pytest.mark.real_clock
@pytest.mark.parametrize("refused", [False, True], ids=["underway", "between two attempts"])
async def test_closing_ends_a_call_on_its_own_pool(refused):
    """
    It ends with the pool, or in the pause before its next attempt, and is told by which call of which object.
    """
    asked, ended, events = anyio.Event(), [], []

    async def talk(peer):
        await server.heard(peer)
        if refused:
            await peer.send(reply(b"busy", "Retry-After: 50", status="503 Service Unavailable"))
        asked.set()
        await peer.gone()

    async with serving(talk) as server:
        client = KlingClient(ApiKey(KEY), base_url=server.url, observer=events.append)

        async def call():
            try:
                await client.get_task("1")
            except ClosedError as error:
                ended.append(str(error))

        async with anyio.create_task_group() as group, client:
            group.start_soon(call)
            await asked.wait()
            with anyio.fail_after(5):
                while refused and not any(isinstance(event, Replayed) for event in events):
                    await anyio.lowlevel.checkpoint()
    assert ["KlingClient closed while get_task() was underway"] == ended
