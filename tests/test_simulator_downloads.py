"""
Downloads from a simulator, in the same process and over sockets, and what may become of them.
"""

import random
from contextlib import asynccontextmanager
from hashlib import sha256

import anyio
import pytest

from kling_async import ApiKey, KlingClient, RetryPolicy, open_transport
from kling_async.errors import ClosedError, DownloadError
from kling_async.events import Downloaded
from kling_async.simulator import Fault, Simulator
from kling_async.simulator._blind import BLANK
from kling_async.simulator._shelf import File
from kling_async.transport import Request, Saved
from tests.doubles import KEY
from tests.simulating import Caller

pytestmark = pytest.mark.real_clock

CLIP = b"\0\0\0\x18ftyp" + random.Random(1).randbytes(1_000_000)
SHORT = b"\0\0\0\x08ftyp"
WHOLE = len(CLIP)
SAVED = Saved(WHOLE, sha256(CLIP).hexdigest())
TAG = f'"{SAVED.sha256[:32]}"'
OURS = "https://simulator.invalid/media/clip.mp4"


def publishing(*faults):
    simulator = Simulator(faults=faults, task_seconds=0)
    simulator.publish(CLIP, name="clip.mp4")
    return simulator, simulator.transport()


@asynccontextmanager
async def reaching(simulator, way):
    """
    A transport to a simulator, by one of the two ways in, and where its clip is found.
    """
    if way == "process":
        yield simulator.transport(), simulator.url("clip.mp4")
        return
    async with simulator.serve():
        transport = await open_transport()
        try:
            yield transport, simulator.url("clip.mp4")
        finally:
            await transport.aclose()


both = pytest.mark.parametrize("way", ["process", "sockets"])


async def test_a_file_is_fetched_whole(tmp_path):
    """
    Bytes, length and progress are right, and no key was asked for.
    """
    simulator, transport = publishing()
    steps = []
    saved = await transport.download(OURS, tmp_path / "a.mp4", progress=lambda done, total: steps.append((done, total)))
    assert (SAVED, CLIP) == (saved, (tmp_path / "a.mp4").read_bytes())
    assert (len(CLIP), len(CLIP)) == steps[-1]
    assert sorted(steps) == steps
    assert ("media", False, 200) == (simulator.log[0].endpoint, simulator.log[0].with_key, simulator.log[0].status)


async def test_a_result_is_a_clip_that_plays(tmp_path):
    """
    Without a source of its own a result is a real, grey MP4.
    """
    _, transport = publishing()
    caller = Caller(transport)
    task_id = (await caller.create()).data["task_id"]
    url = (await caller.get(task_id)).data["task_result"]["videos"][0]["url"]
    assert BLANK.stat().st_size == (await transport.download(url, tmp_path / "out.mp4")).size
    assert (tmp_path / "out.mp4").read_bytes() == BLANK.read_bytes()
    assert 4096 > BLANK.stat().st_size


@pytest.mark.parametrize(
    "fault, status",
    [
        (Fault("media", "status", status=403), 403),
        (Fault("media", "status", status=404), 404),
        (Fault("media", "truncated"), None),
        (Fault("media", "cut"), None),
        (Fault("media", "lost"), None),
        (Fault("media", "redirect"), 404),
        (Fault("media", "redirect", location=OURS, times=5), None),
    ],
    ids=lambda value: getattr(value, "kind", None) or repr(value),
)
async def test_a_download_that_fails_leaves_no_file(tmp_path, fault, status):
    """
    The error has the HTTP status where there was one; asked again, the file comes.
    """
    _, transport = publishing(fault)
    with pytest.raises(DownloadError) as caught:
        await transport.download(OURS, tmp_path / "a.mp4")
    assert status == caught.value.status
    kept = ["a.mp4.part", "a.mp4.part.etag"] if fault.kind == "truncated" else []
    assert kept == sorted(path.name for path in tmp_path.iterdir())
    assert SAVED == await transport.download(OURS, tmp_path / "a.mp4")
    assert ["a.mp4"] == [path.name for path in tmp_path.iterdir()]


@both
async def test_a_truncated_download_is_gone_on_with(tmp_path, way):
    """
    Two halves that are cut short and their rest are one file, and the log shows from where on each was asked for.
    """
    simulator, _ = publishing(Fault("media", "truncated", times=2))
    told = []
    async with reaching(simulator, way) as (transport, url):
        about = {"base_url": "http://127.0.0.1", "retry": RetryPolicy(base=0.001), "observer": told.append}
        async with KlingClient(ApiKey(KEY), transport=transport, **about) as client:
            await client.download(url, tmp_path / "a.mp4")
    assert CLIP == (tmp_path / "a.mp4").read_bytes()
    assert [Downloaded(path=tmp_path / "a.mp4", size=SAVED.size, sha256=SAVED.sha256)] == told
    assert [200, 206, 206] == [seen.status for seen in simulator.log]
    first, second, third = [seen.range for seen in simulator.log]
    assert None is first
    assert 0 < int(second.removeprefix("bytes=")[:-1]) < int(third.removeprefix("bytes=")[:-1])
    if way == "process":
        assert [f"bytes={WHOLE // 2}-", f"bytes={WHOLE // 2 + (WHOLE - WHOLE // 2) // 2}-"] == [second, third]


@both
async def test_a_file_that_was_replaced_meanwhile_comes_whole(tmp_path, way):
    """
    The rest of one file is never put behind the beginning of another.
    """
    simulator, _ = publishing(Fault("media", "truncated"))
    async with reaching(simulator, way) as (transport, url):
        with pytest.raises(DownloadError):
            await transport.download(url, tmp_path / "a.mp4")
        simulator._desk.machine.shelf.put("clip.mp4", File(CLIP[::-1]))
        with pytest.raises(DownloadError, match=r"no \.mp4 file"):
            await transport.download(url, tmp_path / "a.mp4")
        simulator._desk.machine.shelf.put("clip.mp4", File(CLIP[:8] + CLIP))
        assert WHOLE + 8 == (await transport.download(url, tmp_path / "a.mp4")).size
    assert CLIP[:8] + CLIP == (tmp_path / "a.mp4").read_bytes()
    assert [200, 200, 200] == [seen.status for seen in simulator.log]


@both
async def test_a_part_that_is_longer_than_the_file_is_by_now_is_dropped(tmp_path, way, monkeypatch):
    """
    A range that cannot be satisfied is answered so, and then the whole is asked for.
    """
    simulator, _ = publishing(Fault("media", "truncated"))
    async with reaching(simulator, way) as (transport, url):
        with pytest.raises(DownloadError):
            await transport.download(url, tmp_path / "a.mp4")
        simulator._desk.machine.shelf.put("clip.mp4", File(SHORT))
        monkeypatch.setattr("kling_async._parts.Entity.rest", lambda _, held: {"Range": f"bytes={held}-"})
        assert 8 == (await transport.download(url, tmp_path / "a.mp4")).size
    assert [200, 416, 200] == [seen.status for seen in simulator.log]
    assert SHORT == (tmp_path / "a.mp4").read_bytes()


@both
@pytest.mark.parametrize(
    "headers, status, part",
    [
        ({}, 200, CLIP),
        ({"Range": "bytes=0-9"}, 206, CLIP[:10]),
        ({"Range": "bytes=500-"}, 206, CLIP[500:]),
        ({"Range": "bytes=-7"}, 206, CLIP[-7:]),
        ({"Range": f"bytes=-{WHOLE + 1}"}, 206, CLIP),
        ({"Range": f"bytes=9-{WHOLE + 1}"}, 206, CLIP[9:]),
        ({"Range": "bytes=500-", "If-Range": TAG}, 206, CLIP[500:]),
        ({"Range": "bytes=500-", "If-Range": '"other"'}, 200, CLIP),
        ({"Range": "bytes=500-", "If-Range": f"W/{TAG}"}, 200, CLIP),
        ({"Range": f"bytes={WHOLE}-"}, 416, b""),
        ({"Range": "bytes=9-8"}, 416, b""),
        ({"Range": "bytes=-0"}, 416, b""),
        ({"Range": "bytes=0-1,5-6"}, 200, CLIP),
        ({"Range": "lines=1-"}, 200, CLIP),
    ],
)
async def test_ranges_are_served_as_web_servers_do(way, headers, status, part):
    """
    One range of bytes is honoured, if the file is still what If-Range says; what is not understood brings the whole.
    """
    simulator, _ = publishing()
    async with reaching(simulator, way) as (transport, url):
        reply = await transport.exchange(Request("GET", url, headers))
    assert (status, part) == (reply.status, reply.body)
    start = CLIP.find(part) if part else None
    expected = {200: None, 206: f"bytes {start}-{(start or 0) + len(part) - 1}/{WHOLE}", 416: f"bytes */{WHOLE}"}
    assert expected[status] == reply.headers.get("content-range")
    assert (TAG, "bytes") == (reply.headers["etag"], reply.headers["accept-ranges"])
    assert headers.get("Range") == simulator.log[0].range


async def test_a_redirect_within_the_simulator_is_followed(tmp_path):
    """
    The file behind it is fetched.
    """
    simulator, transport = publishing(Fault("media", "redirect", location="/media/clip.mp4", status=302))
    assert SAVED == await transport.download(OURS, tmp_path / "a.mp4")
    assert [302, 200] == [seen.status for seen in simulator.log]


async def test_a_hanging_download_waits_until_it_is_cancelled(tmp_path):
    """
    Nothing is left of it.
    """
    simulator, transport = publishing(Fault("media", "hang"))
    async with anyio.create_task_group() as group:
        group.start_soon(transport.download, OURS, tmp_path / "a.mp4")
        while not simulator.log:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["https://example.com/media/clip.mp4", "https://simulator.invalid/clip.mp4"])
async def test_a_strangers_url_is_not_found(tmp_path, url):
    """
    The simulator fetches nothing but its own files.
    """
    _, transport = publishing()
    with pytest.raises(DownloadError) as caught:
        await transport.download(f"{url}?key=secret", tmp_path / "a.mp4")
    assert 404 == caught.value.status
    assert "secret" not in str(caught.value)


async def test_an_unknown_file_is_not_found(tmp_path):
    """
    A name that was never published is a 404.
    """
    _, transport = publishing()
    with pytest.raises(DownloadError) as caught:
        await transport.download("https://simulator.invalid/media/none.mp4", tmp_path / "a.mp4")
    assert 404 == caught.value.status


async def test_a_closed_transport_downloads_nothing(tmp_path):
    """
    Closed is closed for files too.
    """
    _, transport = publishing()
    await transport.aclose()
    with pytest.raises(ClosedError):
        await transport.download(OURS, tmp_path / "a.mp4")
