"""
Downloads from a simulator in the same process, and what may become of them.
"""

import anyio
import pytest

from kling_async.errors import ClosedError, DownloadError
from kling_async.simulator import Fault, Simulator
from kling_async.simulator._blind import BLANK
from tests.simulating import Caller

pytestmark = pytest.mark.real_clock

CLIP = b"\0\0\0\x18ftyp" + bytes(200_000)
OURS = "https://simulator.invalid/media/clip.mp4"


def publishing(*faults):
    simulator = Simulator(faults=faults, task_seconds=0)
    simulator.publish(CLIP, name="clip.mp4")
    return simulator, simulator.transport()


async def test_a_file_is_fetched_whole(tmp_path):
    """
    Bytes, length and progress are right, and no key was asked for.
    """
    simulator, transport = publishing()
    steps = []
    size = await transport.download(OURS, tmp_path / "a.mp4", progress=lambda done, total: steps.append((done, total)))
    assert (len(CLIP), CLIP) == (size, (tmp_path / "a.mp4").read_bytes())
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
    assert BLANK.stat().st_size == await transport.download(url, tmp_path / "out.mp4")
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
    assert [] == list(tmp_path.iterdir())
    assert len(CLIP) == await transport.download(OURS, tmp_path / "a.mp4")


async def test_a_redirect_within_the_simulator_is_followed(tmp_path):
    """
    The file behind it is fetched.
    """
    simulator, transport = publishing(Fault("media", "redirect", location="/media/clip.mp4", status=302))
    assert len(CLIP) == await transport.download(OURS, tmp_path / "a.mp4")
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
