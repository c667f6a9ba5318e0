"""
A simulator with eyes: what is fetched, kept, shown and told. How well it sees is test_eyes.py's and test_hands.py's.
"""

import sys
import threading
from base64 import b64decode
from concurrent.futures import Future
from io import BytesIO

import anyio
import av
import numpy as np
import pytest
from PIL import Image

from kling_async._endpoints import ADD
from kling_async._replies import read
from kling_async.errors import InvalidInputError
from kling_async.masks import Mask
from kling_async.simulator import Simulator
from kling_async.simulator import _sight as sight
from kling_async.simulator._blind import BLANK
from kling_async.simulator._scenes import Order, Source
from kling_async.simulator._tasks import Run
from tests.simulating import Caller, calling, png, spots

pytestmark = pytest.mark.real_clock

WIDTH, HEIGHT, FRAMES = 768, 720, 48


def film(width=WIDTH, height=HEIGHT, frames=FRAMES, square=(300, 300, 120)):
    """
    A clip with a bright square (left, top, side) that moves to the right.
    """
    left, top, side = square
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "35"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            pixels = np.full((height, width, 3), 60, np.uint8)
            pixels[top : top + side, left + index : left + side + index] = (230, 120, 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture(scope="module")
def clip():
    return film()


def square(frame, points):
    """
    A stand-in for segmentation: a box around each point.
    """
    plane = np.zeros(frame.shape[:2], bool)
    for x, y in points:
        column, row = int(x * frame.shape[1]), int(y * frame.shape[0])
        plane[row : row + 40, column : column + 60] = True
    return plane


@pytest.fixture
def quick(monkeypatch):
    """
    Vision and hands that take no time, and a record of what they were asked.
    """
    asked = []

    def track(clip, masks):
        asked.append(("track", sorted(masks)))
        return tuple(next(iter(masks.values()))[::2, ::2] for _ in range(clip.total_frames))

    def segment(frame, points):
        asked.append(("segment", points))
        return square(frame, points)

    monkeypatch.setattr(sight._eyes, "segment", segment)
    monkeypatch.setattr(sight._eyes, "track", track)
    monkeypatch.setattr(sight._hands, "render_preview", lambda clip, masks: (b"preview", b"cover"))
    monkeypatch.setattr(sight._hands, "remove", lambda clip, masks: bytes(clip.source))
    monkeypatch.setattr(sight._hands, "swap", lambda clip, masks, image: b"swapped " + image[:4])
    monkeypatch.setattr(sight._hands, "add", lambda clip, masks, images: b"%d with %d" % (len(images), len(masks)))
    return asked


@pytest.fixture
def seeing(quick, clip):
    """
    A simulator with quick eyes, a caller and the URL of a clip.
    """
    with Simulator(eyes=True, task_seconds=0) as simulator:
        yield simulator, Caller(simulator.transport()), simulator.publish(clip, name="square.mp4")
    assert not [thread for thread in threading.enumerate() if "kling-simulator" in thread.name]


async def ended(caller, reply):
    """
    The task behind a create, when it is over.
    """
    while True:
        data = (await caller.get(reply.data["task_id"])).data
        if data["task_status"] in {"succeed", "failed"}:
            return data
        await anyio.lowlevel.checkpoint()


async def fetched(simulator, url):
    return (await Caller(simulator.transport(), base="", key=None).send("GET", url)).response.body


async def test_a_session_tells_what_the_clip_really_is(seeing):
    """
    Footage is read from the file, and the normalized video is that file.
    """
    simulator, caller, url = seeing
    data = (await caller.post("init", video_url=url)).data
    told = (data["width"], data["height"], data["fps"], data["total_frame"], data["original_duration"])
    assert (WIDTH, HEIGHT, 24.0, FRAMES, 2000) == told
    assert film()[:100] == (await fetched(simulator, data["normalized_video"]))[:100]


@pytest.mark.parametrize(
    "content, said",
    [
        (BLANK, "video size 320x180 is invalid"),
        (b"no video at all", "the clip cannot be read as a video"),
    ],
    ids=["small", "text"],
)
async def test_clips_are_looked_at(seeing, content, said):
    """
    What breaks the documented rules, or is no video, is refused.
    """
    simulator, caller, _ = seeing
    reply = await caller.post("init", video_url=simulator.publish(content, name="bad.mp4"))
    assert (400, 1201) == reply.refusal[:2]
    assert said in reply.json["message"]


async def test_the_mask_is_the_object_in_both_spellings(seeing):
    """
    Run lengths and PNG are what was segmented on that frame, from all its points together.
    """
    _, caller, url = seeing
    session_id = await caller.opened(video_url=url)
    where = {"session_id": session_id, "frame_index": 3}
    for points in ([(0.0, 0.0)], [(0.5, 0.5)]):
        reply = await caller.post("add", **where, points=spots(*points))
    expected = square(np.zeros((HEIGHT, WIDTH, 3)), [(0.0, 0.0), (0.5, 0.5)])
    [mask] = read(ADD, reply.response).masks
    assert (expected == mask.to_array()).all()
    with Image.open(BytesIO(mask.png)) as picture:
        assert ("1", (WIDTH, HEIGHT)) == (picture.mode, picture.size)
        assert (expected == np.asarray(picture)).all()


async def test_what_was_seen_is_kept(seeing, quick):
    """
    Preview and create follow the object once, and segment no frame a second time.
    """
    simulator, caller, url = seeing
    session_id = await caller.opened(video_url=url)
    for frame, x in ((9, 0.1), (3, 0.4)):
        await caller.post("add", session_id=session_id, frame_index=frame, points=spots((x, 0.5)))
    preview = (await caller.post("preview", session_id=session_id)).data["res"]
    result = await ended(caller, await caller.create(session_id))
    assert [("segment", ((0.1, 0.5),)), ("segment", ((0.4, 0.5),)), ("track", [3, 9])] == quick
    assert (b"preview", b"cover") == (
        await fetched(simulator, preview["video"]),
        await fetched(simulator, preview["video_cover"]),
    )
    tracking = (await Caller(simulator.transport(), base="").send("GET", preview["tracking_output"])).json
    rle = tracking[-1]["rle_mask_list"][0]["rle_mask"]
    assert (FRAMES, [HEIGHT, WIDTH]) == (len(tracking), rle["size"])
    assert 0 < Mask(object_id=0, height=HEIGHT, width=WIDTH, counts=rle["counts"]).area
    assert ("succeed", "2.0") == (result["task_status"], result["task_result"]["videos"][0]["duration"])


async def test_a_result_can_be_seen_and_edited_again(seeing):
    """
    Its id opens a session on the file that the task made; no other id is known.
    """
    _, caller, url = seeing
    result = await ended(caller, await caller.create(await caller.marked(video_url=url)))
    video_id = result["task_result"]["videos"][0]["id"]
    assert FRAMES == (await caller.post("init", video_id=video_id)).data["total_frame"]
    assert (404, 1203) == (await caller.post("init", video_id="876543210987654321")).refusal[:2]


async def test_each_edit_has_its_hand(seeing):
    """
    A swap takes the picture, an addition its pictures and the marks, if there are any.
    """
    simulator, caller, url = seeing
    marked, plain = await caller.marked(video_url=url), await caller.opened(video_url=url)
    hat = simulator.publish(b64decode(png()), name="hat.png")
    one, two = [{"image": png()}], [{"image": png()}, {"image": hat}]
    made = []
    for session_id, edit_mode, pictures in (
        (marked, "swap", one),
        (marked, "addition", two),
        (plain, "addition", one),
    ):
        reply = await caller.create(session_id, edit_mode=edit_mode, image_list=pictures)
        url = (await ended(caller, reply))["task_result"]["videos"][0]["url"]
        made.append(await fetched(simulator, url))
    assert [b"swapped \x89PNG", b"2 with %d" % FRAMES, b"1 with 0"] == made


async def test_clips_and_pictures_are_fetched(seeing, clip):
    """
    Another server's files are read over the network, a clip once however often it is opened.
    """
    _, caller, _ = seeing
    elsewhere = Simulator()
    async with elsewhere.serve():
        url = elsewhere.publish(clip)
        hat = elsewhere.publish(b64decode(png()), name="hat.png")
        for _ in range(2):
            session_id = await caller.marked(video_url=url)
        reply = await caller.create(session_id, edit_mode="swap", image_list=[{"image": hat}])
        assert "succeed" == (await ended(caller, reply))["task_status"]
    assert ["/media/clip-1.mp4", "/media/hat.png"] == [seen.path for seen in elsewhere.log]


async def test_what_cannot_be_fetched_is_told(seeing, clip, monkeypatch):
    """
    A missing file, a closed port and a file that is too large are refused, in the parameter's name.
    """
    _, caller, _ = seeing
    elsewhere = Simulator()
    async with elsewhere.serve():
        missing, large = elsewhere.url("none.mp4"), elsewhere.publish(clip)
        assert "video_url can not be downloaded" in (await caller.post("init", video_url=missing)).json["message"]
        monkeypatch.setattr(sight, "FETCH_MOST", 1000)
        assert "more than 1000 bytes" in (await caller.post("init", video_url=large)).json["message"]
    reply = await caller.post("init", video_url=large)
    assert (400, 1201) == reply.refusal[:2]


async def test_a_picture_that_cannot_be_used_fails_the_task(seeing):
    """
    A file that is only fetched later is judged later, in the service's words, and is not charged.
    """
    simulator, caller, url = seeing
    wrong = simulator.publish(b"no picture", name="hat.png")
    session_id = await caller.marked(video_url=url)
    reply = await caller.create(session_id, edit_mode="swap", image_list=[{"image": wrong}], external_task_id="a")
    data = await ended(caller, reply)
    assert data["task_status_msg"].startswith("Image pixel is invalid: it is neither")
    assert {"a": 0} == simulator.charges


def unseeing(*_):
    raise ValueError("too dark")


@pytest.mark.parametrize("name", ["segment", "track"])
async def test_eyes_that_fail_are_an_internal_error(seeing, monkeypatch, name):
    """
    What the eyes cannot read although the clip was opened is 5000, and nothing wrong is kept.
    """
    _, caller, url = seeing
    session_id = await caller.opened(video_url=url)
    with monkeypatch.context() as patch:
        patch.setattr(sight._eyes, name, unseeing)
        add = await caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))
        preview = await caller.post("preview", session_id=session_id)
    assert (500 if name == "segment" else 200, 500) == (add.status, preview.status)
    assert "too dark" in preview.json["message"]
    assert 200 == (await caller.post("preview", session_id=session_id)).status


@pytest.mark.parametrize("error, said", [(ValueError("too dark"), "too dark"), (KeyError("x"), "could not render")])
async def test_hands_that_fail_fail_the_task(seeing, monkeypatch, error, said):
    """
    Whatever rendering raises ends the task as failed, with a reason.
    """

    def remove(clip, masks):
        raise error

    monkeypatch.setattr(sight._hands, "remove", remove)
    _, caller, url = seeing
    data = await ended(caller, await caller.create(await caller.marked(video_url=url)))
    assert "failed" == data["task_status"]
    assert said in data["task_status_msg"]


@pytest.fixture
def slow(monkeypatch, quick):
    """
    Hands that wait for a sign; `begun` counts those that have started.
    """
    go, begun = threading.Event(), threading.Semaphore(0)

    def remove(clip, masks):
        begun.release()
        assert go.wait(10)
        return bytes(clip.source)

    monkeypatch.setattr(sight._hands, "remove", remove)
    yield go, begun
    go.set()


async def test_a_task_runs_until_it_is_rendered(slow, clip):
    """
    Its time being over, it is processing until its clip is there, and holds its slot.
    """
    go, begun = slow
    with Simulator(eyes=True, task_seconds=0, quota=1) as simulator:
        caller = Caller(simulator.transport())
        session_id = await caller.marked(video_url=simulator.publish(clip))
        created = await caller.create(session_id)
        await anyio.to_thread.run_sync(begun.acquire)
        assert "processing" == (await caller.get(created.data["task_id"])).data["task_status"]
        assert 1303 == (await caller.create(session_id)).json["code"]
        go.set()
        data = await ended(caller, created)
    assert "succeed" == data["task_status"]


@pytest.mark.parametrize("looks, end", [((5,), 5), ((7,), 5), ((5, 8), 8)], ids=["on time", "seen late", "made late"])
def test_a_task_ends_when_its_time_is_over_and_its_clip_is_there(looks, end):
    """
    Its end is the end of its time, or else the first look at the clip.
    """
    film = Future()
    run = Run(task_id="1", video_id="2", creation=None, created_at=3.0, seconds=2.0, film=film, reason=None)
    for now in looks[:-1]:
        assert not run.settle(now)
    film.set_result(None)
    assert run.settle(looks[-1])
    assert (end, end) == (run.ended_at, run.moved_at(looks[-1]))


async def test_closing_gives_up_what_was_not_begun(slow, clip):
    """
    Queued tasks fail, those that are rendered end; afterwards the simulator can be used on.
    """
    go, begun = slow
    simulator = Simulator(eyes=True, task_seconds=0)
    caller = Caller(simulator.transport())
    session_id = await caller.marked(video_url=simulator.publish(clip))
    created = [await caller.create(session_id) for _ in range(3)]
    for _ in range(2):
        await anyio.to_thread.run_sync(begun.acquire)
    [*_, queued] = simulator._desk.machine.tasks._running
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, simulator.close)
        while not queued.film.cancelled():
            await anyio.lowlevel.checkpoint()
        go.set()
    ends = [(await caller.get(reply.data["task_id"])).data for reply in created]
    assert ["succeed", "succeed", "failed"] == [data["task_status"] for data in ends]
    assert "closed" in ends[2]["task_status_msg"]
    assert "succeed" == (await ended(caller, await caller.create(session_id)))["task_status"]
    simulator.close()


async def test_work_that_is_no_longer_waited_for_is_dropped(quick, clip, monkeypatch):
    """
    A cancelled call leaves at once, and its reply is never written into the log.
    """
    go, begun = threading.Event(), threading.Event()

    def segment(frame, points):
        begun.set()
        assert go.wait(10)
        return square(frame, points)

    monkeypatch.setattr(sight._eyes, "segment", segment)
    simulator, caller = calling(eyes=True)
    session_id = await caller.opened(video_url=simulator.publish(clip))
    async with anyio.create_task_group() as group:
        group.start_soon(caller.marked)
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5))),
        )
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
    assert ("add", None) == (simulator.log[-1].endpoint, simulator.log[-1].status)
    go.set()


async def test_eyes_see_over_sockets_too(seeing):
    """
    Heavy work leaves the server's loop free, and comes back as the reply.
    """
    simulator, _, url = seeing

    async with simulator.serve() as base:
        from tests.test_simulator_http import over

        session_id = await over(base).marked(video_url=url)
        assert "video" in (await over(base).post("preview", session_id=session_id)).data["res"]


def test_the_real_eyes_and_hands_fit():
    """
    Unpatched, a square is found by a point on it, followed, and edited in each mode; clips keep their length.
    """
    eyes = sight.Eyes()
    source, footage = eyes.look(Source(key="small", content=film(192, 144, 30, square=(60, 60, 40))))
    marks = {10: ((85 / 192, 80 / 144),)}
    drawn = eyes.draw(source, footage, 10, marks[10])
    found = Mask(object_id=0, height=144, width=192, counts=drawn.counts).to_array()
    truth = np.zeros((144, 192), bool)
    truth[60:100, 70:110] = True
    assert 0.8 < (truth & found).sum() / (truth | found).sum()
    clips = [eyes.preview(source, footage, marks).video]
    hat = b64decode(png())
    for mode, images in (("removal", ()), ("swap", (hat,)), ("addition", (hat, hat))):
        made = eyes.make(source, footage, Order(edit_mode=mode, images=images, marks=marks, seconds=5))
        assert footage.seconds == made.seconds
        clips.append(made.source.content)
    assert [30] * 4 == [sight._eyes.open_clip(content).total_frames for content in clips]


def test_without_the_extra_eyes_are_refused(monkeypatch):
    """
    The error names the extra to install.
    """
    monkeypatch.setitem(sys.modules, "kling_async.simulator._sight", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'kling-async\[demo\]'") as caught:
        Simulator(eyes=True)
    assert "eyes" == caught.value.field


def test_a_clip_may_be_made_on_demand():
    """
    Content that is a function is called; a mask that begins in the corner begins with an empty run.
    """
    source, clip = sight._open(Source(key="x", content=BLANK.read_bytes))
    assert (320, BLANK.read_bytes()) == (clip.width, source.content)
    assert "06" == sight._counts(np.ones((2, 3), bool))


def test_dear_results_are_kept_a_while():
    """
    The oldest make room, failures are not kept, and who comes second waits for the first.
    """
    kept = sight.Kept(2)
    made = []
    for key in (1, 2, 1, 3, 1, 2):
        kept.get(key, lambda key=key: made.append(key))
    assert [1, 2, 3, 2] == made
    with pytest.raises(KeyError):
        kept.get(4, lambda: {}["x"])
    assert "again" == kept.get(4, lambda: "again")
    begun, go, results = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go.wait(10)
        return "first"

    threads = [threading.Thread(target=lambda: results.append(kept.get(5, first)))]
    threads[0].start()
    assert begun.wait(10)
    threads.append(threading.Thread(target=lambda: results.append(kept.get(5, lambda: "second"))))
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join()
    assert ["first", "first"] == results
