"""
The API as the documents have it: sessions, points, tasks, the list, the log and the bill.
"""

from io import BytesIO

import anyio
import numpy as np
import orjson
import pytest
from PIL import Image

from kling_async import simulator as package
from kling_async._endpoints import ADD, GET, INIT, PREVIEW
from kling_async._replies import read
from kling_async.errors import ClosedError, InvalidInputError
from kling_async.points import Point
from kling_async.simulator import Fault, Footage, Seen, Simulator
from kling_async.transport import Request
from tests.simulating import CLIP, FAMILY, HOST, KEY, Caller, calling, png, spots

DAY = 24 * 3600
EPOCH = 1_767_225_600_000


async def test_a_session_tells_what_the_clip_is():
    """
    Opening a session answers with a snowflake id and the footage, lengths in milliseconds.
    """
    _, caller = calling(footage=Footage(width=720, height=1280, fps=30, total_frames=75))
    data = (await caller.post("init", video_url=CLIP)).data
    assert (18, True) == (len(data["session_id"]), data["session_id"].isdecimal())
    url = data.pop("normalized_video")
    assert f"https://simulator.invalid/media/{data.pop('session_id')}.mp4" == url
    assert {
        "status": 0,
        "final_unit_deduction": "0",
        "fps": 30,
        "original_duration": 2500,
        "width": 720,
        "height": 1280,
        "total_frame": 75,
    } == data


async def test_the_client_reads_what_opening_says():
    """
    The client's own reader understands the reply.
    """
    _, caller = calling()
    info = read(INIT, (await caller.post("init", video_url=CLIP)).response)
    assert (5.0, 120, 1280) == (info.duration, info.total_frames, info.width)


async def test_added_points_come_back_as_a_mask_and_its_picture():
    """
    Run lengths and PNG show the same object, of the documented size, under each point.
    """
    _, caller = calling()
    session_id = await caller.opened()
    reply = await caller.post("add", session_id=session_id, frame_index=7, points=spots((0.25, 0.5), (0.75, 0.5)))
    marked = read(ADD, reply.response)
    [mask] = marked.masks
    assert (7, 0, (720, 1280)) == (marked.frame_index, mask.object_id, mask.size)
    assert mask.contains(Point(0.25, 0.5))
    assert mask.contains(Point(0.75, 0.5))
    assert not mask.contains(Point(0.5, 0.5))
    with Image.open(BytesIO(mask.png)) as image:
        assert (np.asarray(image) == mask.to_array()).all()
    assert [720, 1280] == reply.data["res"]["rle_mask_list"][0]["png_mask"]["size"]


async def test_deleting_takes_exactly_the_points_that_were_added():
    """
    A point is known by its very number; the last one leaves an empty list of masks.
    """
    _, caller = calling()
    session_id = await caller.opened()
    where = {"session_id": session_id, "frame_index": 1}
    await caller.post("add", **where, points=spots((0.1, 0.2), (0.30000000000000004, 0.4)))
    missed = await caller.post("delete", **where, points=spots((0.1, 0.2), (0.3, 0.4)))
    assert (400, 1201) == missed.refusal[:2]
    assert 1 == len((await caller.post("delete", **where, points=spots((0.1, 0.2)))).data["res"]["rle_mask_list"])
    data = (await caller.post("delete", **where, points=spots((0.30000000000000004, 0.4)))).data
    assert {"frame_index": 1, "rle_mask_list": []} == data["res"]


async def test_clearing_forgets_every_point_and_keeps_the_session():
    """
    After clear the same id takes new points, and has nothing to preview.
    """
    _, caller = calling()
    session_id = await caller.marked()
    cleared = (await caller.post("clear", session_id=session_id)).data
    assert {"status": 0, "session_id": session_id, "final_unit_deduction": "0"} == cleared
    assert (400, 1201) == (await caller.post("preview", session_id=session_id)).refusal[:2]
    assert 0 == (await caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))).json["code"]


async def test_ten_points_a_frame_and_ten_frames_are_the_limit():
    """
    The eleventh point and the eleventh frame are refused, however they come.
    """
    _, caller = calling()
    session_id = await caller.opened()
    row = [(n / 20, 0.5) for n in range(11)]
    assert (400, 1201) == (await caller.post("add", session_id=session_id, frame_index=0, points=spots(*row))).refusal[
        :2
    ]
    for frame in range(10):
        assert (
            200 == (await caller.post("add", session_id=session_id, frame_index=frame, points=spots(*row[:6]))).status
        )
    over = await caller.post("add", session_id=session_id, frame_index=0, points=spots(*row[6:]))
    assert (400, 1201, "points: more than 10 on frame 0") == over.refusal
    assert 200 == (await caller.post("add", session_id=session_id, frame_index=0, points=spots(*row[6:10]))).status
    more = await caller.post("add", session_id=session_id, frame_index=10, points=spots((0.5, 0.5)))
    assert (400, 1201, "frame_index: more than 10 frames are selected") == more.refusal


@pytest.mark.parametrize(
    "points", [[(0.5, 0.5)], [(0.1, 0.1), (0.1, 0.1)]], ids=["known before", "twice in one request"]
)
async def test_a_point_cannot_be_added_twice(points):
    """
    What is marked already is refused, and the message names it.
    """
    _, caller = calling()
    session_id = await caller.marked()
    reply = await caller.post("add", session_id=session_id, frame_index=0, points=spots(*points))
    assert (400, 1201) == reply.refusal[:2]
    assert f"({points[0][0]}, {points[0][1]}) is already selected on frame 0" in reply.json["message"]


@pytest.mark.parametrize("name", ["add", "delete"])
async def test_frames_are_counted_from_nought(name):
    """
    The frame after the last is refused.
    """
    _, caller = calling()
    session_id = await caller.opened()
    reply = await caller.post(name, session_id=session_id, frame_index=120, points=spots((0.5, 0.5)))
    assert (400, 1201, "frame_index value '120' is invalid: total_frame is 120") == reply.refusal


@pytest.mark.parametrize("name", ["add", "delete", "clear", "preview", "create"])
async def test_a_session_lives_for_a_day(name):
    """
    After 24 hours, after expire() and for a foreign id, every call on a session answers 1203.
    """
    simulator, caller = calling()
    fields = {"frame_index": 0, "points": spots((0.1, 0.1)), "edit_mode": "removal", "prompt": "x"}
    late, gone = await caller.marked(), await caller.marked()
    await anyio.sleep(DAY - 1)
    young = await caller.marked()
    simulator.expire(gone)
    await anyio.sleep(1)
    for session_id in (late, gone, "847570360458960960"):
        assert (404, 1203) == (await caller.post(name, fields | {"session_id": session_id})).refusal[:2]
    assert (404, 1203) != (await caller.post(name, fields | {"session_id": young})).refusal[:2]


async def test_a_preview_is_three_links_to_files():
    """
    Video, cover and tracking can be fetched, and the tracking has a mask for every frame.
    """
    simulator, caller = calling(footage=Footage(total_frames=60))
    session_id = await caller.opened()
    for frame, point in ((10, (0.2, 0.2)), (50, (0.8, 0.8))):
        await caller.post("add", session_id=session_id, frame_index=frame, points=spots(point))
    preview = read(PREVIEW, (await caller.post("preview", session_id=session_id)).response)
    fetch = Caller(simulator.transport(), base="", key=None)
    assert b"ftyp" == (await fetch.send("GET", preview.video_url)).response.body[4:8]
    with Image.open(BytesIO((await fetch.send("GET", preview.cover_url)).response.body)) as cover:
        assert (1280, 720) == cover.size
    tracking = (await fetch.send("GET", preview.tracking_url)).json
    assert list(range(60)) == [frame["frame_index"] for frame in tracking]
    counts = [frame["rle_mask_list"][0]["rle_mask"]["counts"] for frame in tracking]
    assert [counts[0]] * 31 + [counts[59]] * 29 == counts
    assert counts[0] != counts[59]


async def test_a_task_moves_from_submitted_over_processing_to_its_video():
    """
    States and times follow the clock; parts that have nothing in them are empty objects.
    """
    _, caller = calling(task_seconds=60)
    start = anyio.current_time()
    session_id = await caller.marked()
    created = (await caller.create(session_id, external_task_id="job-1")).data
    task_id = created["task_id"]
    base = {"task_id": task_id, "task_info": {"external_task_id": "job-1"}, "created_at": created["created_at"]}
    assert {**base, "task_status": "submitted", "updated_at": created["created_at"]} == created
    await anyio.sleep(29)
    assert "submitted" == (await caller.get(task_id)).data["task_status"]
    await anyio.sleep(1)
    running = (await caller.get("job-1")).data
    moved = created["created_at"] + 30_000
    assert {**base, "task_status": "processing", "task_result": {}, "updated_at": moved} == running
    await anyio.sleep(31)
    ended = (await caller.get(task_id)).data
    [video] = ended.pop("task_result")["videos"]
    assert {
        **base,
        "task_status": "succeed",
        "final_unit_deduction": "3",
        "updated_at": created["created_at"] + 60_000,
    } == ended
    assert (session_id, "5.04") == (video["session_id"], video["duration"])
    assert f"https://simulator.invalid/media/{video['id']}.mp4" == video["url"]
    assert 0 <= created["created_at"] - EPOCH <= 1000 * (anyio.current_time() - start)


async def test_a_task_of_no_time_ends_at_its_next_look():
    """
    With task_seconds=0 a create says submitted, and whatever is asked next finds it done.
    """
    simulator, caller = calling(task_seconds=0, quota=1)
    first = (await caller.create()).data
    assert "submitted" == first["task_status"]
    assert "submitted" == (await caller.create()).data["task_status"]
    assert "succeed" == read(GET, (await caller.get(first["task_id"])).response).status
    assert (0, 1) == (simulator.running, simulator.most_running)


async def test_a_full_quota_refuses_and_creates_nothing():
    """
    A slot is held from create to the end; the refusal is 1303 and is not charged.
    """
    simulator, caller = calling(quota=2, task_seconds=10)
    session_id = await caller.marked()
    await caller.create(session_id, external_task_id="a")
    await anyio.sleep(4)
    await caller.create(session_id, external_task_id="b")
    refused = await caller.create(session_id, external_task_id="c")
    assert (429, 1303, "parallel task over resource pack limit") == refused.refusal
    assert {"code", "message", "request_id"} == set(refused.json)
    assert (2, 2, {"a": 1, "b": 1}) == (simulator.running, simulator.most_running, simulator.charges)
    await anyio.sleep(6)
    assert 200 == (await caller.create(session_id, external_task_id="c")).status
    assert (2, 2) == (simulator.running, simulator.most_running)


async def test_an_external_id_is_taken_for_ever():
    """
    The second create under one external id is refused with a message that names it, and costs nothing.
    """
    simulator, caller = calling(task_seconds=0)
    session_id = await caller.marked()
    await caller.create(session_id, external_task_id="job-1")
    again = await caller.create(session_id, external_task_id="job-1")
    assert (400, 1201, "external_task_id 'job-1' already exists") == again.refusal
    assert {"job-1": 1} == simulator.charges


async def test_without_an_external_id_the_task_id_is_charged():
    """
    The bill knows every accepted create, under one name or the other.
    """
    simulator, caller = calling()
    task_id = (await caller.create(external_task_id="")).data["task_id"]
    assert {task_id: 1} == simulator.charges


@pytest.mark.parametrize(
    "fields, units",
    [
        ({}, "3"),
        ({"mode": "pro"}, "5"),
        ({"duration": "10"}, "6"),
        ({"duration": "10", "mode": "pro"}, "10"),
    ],
)
async def test_the_price_follows_mode_and_duration(fields, units):
    """
    Units are told once the task has succeeded; a longer clip has a longer result.
    """
    frames = 240 if "duration" in fields else 120
    _, caller = calling(task_seconds=0, footage=Footage(total_frames=frames))
    task = read(GET, (await caller.get((await caller.create(**fields)).data["task_id"])).response)
    assert units == str(task.units)
    assert (10.04 if "duration" in fields else 5.04) == task.video.duration


async def test_a_watermark_is_made_when_asked_for():
    """
    The copy has a link of its own, which leads to a file.
    """
    simulator, caller = calling(task_seconds=0)
    task_id = (await caller.create(watermark_info={"enabled": True})).data["task_id"]
    data = (await caller.get(task_id)).data
    assert {"enabled": True} == data["watermark_info"]
    url = data["task_result"]["videos"][0]["watermark_url"]
    assert 200 == (await Caller(simulator.transport(), base="").send("GET", url)).status
    plain = (await caller.get((await caller.create(watermark_info={"enabled": False})).data["task_id"])).data
    assert "watermark_url" not in plain["task_result"]["videos"][0]


async def test_a_result_can_be_edited_again_for_thirty_days():
    """
    A video id opens a session on the result's footage; later, it is not there any more.
    """
    _, caller = calling(task_seconds=0)
    task_id = (await caller.create()).data["task_id"]
    video_id = (await caller.get(task_id)).data["task_result"]["videos"][0]["id"]
    data = (await caller.post("init", video_id=video_id, video_url="")).data
    assert (121, 5042) == (data["total_frame"], data["original_duration"])
    assert 200 == (await caller.create(await caller.marked(video_id=video_id))).status
    await anyio.sleep(30 * DAY + 1)
    assert (404, 1203) == (await caller.post("init", video_id=video_id)).refusal[:2]


async def test_a_video_id_of_the_account_may_be_any():
    """
    What else an account holds cannot be known, so without eyes any id opens a session.
    """
    _, caller = calling()
    assert 120 == (await caller.post("init", video_id="876543210987654321")).data["total_frame"]


async def test_the_list_is_a_bare_array_newest_first():
    """
    Pages have neither total nor next; the last is shorter, the one after it empty.
    """
    _, caller = calling(quota=9)
    session_id = await caller.marked()
    made = [(await caller.create(session_id)).data["task_id"] for _ in range(5)]
    pages = [(await caller.list(f"?pageNum={page}&pageSize=2")).data for page in (1, 2, 3, 4)]
    assert [made[4:2:-1], made[2:0:-1], made[:1], []] == [[task["task_id"] for task in page] for page in pages]
    assert 5 == len((await caller.list()).data)
    assert pages[0][0] == (await caller.get(made[4])).data


async def test_an_unknown_task_is_not_there():
    """
    An id that was never given answers 1203, reserved characters and all.
    """
    _, caller = calling()
    reply = await caller.get("no%2Fsuch")
    assert (404, 1203, "task 'no/such' does not exist") == reply.refusal


@pytest.mark.parametrize(
    "fields, code",
    [
        ({}, 1001),
        ({"Authorization": ""}, 1001),
        ({"authorization": "Bearer"}, 1002),
        ({"authorization": "Basic sk-right"}, 1002),
        ({"authorization": "Bearer sk-wrong"}, 1002),
    ],
)
async def test_the_key_is_asked_for_first(fields, code):
    """
    A missing key is 1001 and a wrong one 1002, both with HTTP 401, before anything else is looked at.
    """
    simulator = Simulator(api_key="sk-right")
    reply = await simulator.transport().exchange(Request("POST", f"{HOST}{FAMILY}/nonsense", fields))
    assert (401, code) == (reply.status, orjson.loads(reply.body)["code"])
    assert 200 == (await Caller(simulator.transport(), key="sk-right").list()).status


@pytest.mark.parametrize("base", ["https://api-singapore.klingai.com", HOST, "http://127.0.0.1:1/kling"])
async def test_the_prefix_may_be_there_or_not(base):
    """
    Kling's own paths and CometAPI's are both served, on any host.
    """
    simulator = Simulator()
    assert 200 == (await Caller(simulator.transport(), base=base).list()).status


@pytest.mark.parametrize(
    "method, path",
    [
        ("DELETE", f"{FAMILY}/1"),
        ("GET", f"{FAMILY}/1/2"),
        ("POST", f"{FAMILY}/generation"),
        ("POST", f"{FAMILY}/init-selection/"),
        ("GET", "/v1/videos/text2video/1"),
        ("POST", "/media/clip.mp4"),
    ],
)
async def test_other_paths_and_methods_do_not_exist(method, path):
    """
    What is not documented is 1202.
    """
    _, caller = calling()
    assert (404, 1202) == (await caller.send(method, path)).refusal[:2]


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("PUT", FAMILY, "POST, GET"),
        ("DELETE", f"{FAMILY}/", "POST, GET"),
        ("GET", f"{FAMILY}/init-selection", "POST"),
        ("POST", "/openapi.json", "GET"),
    ],
)
async def test_a_path_that_exists_tells_its_methods(method, path, allowed):
    """
    The code is the documented 1202, the HTTP status 405, as RFC 9110 wants it; a name of a call is no task's id.
    """
    _, caller = calling()
    reply = await caller.send(method, path)
    assert (405, 1202) == reply.refusal[:2]
    assert allowed == reply.response.headers["allow"]


async def test_the_older_pages_slash_is_accepted():
    """
    Create and list may be written with a slash at the end.
    """
    _, caller = calling()
    assert [] == (await caller.send("GET", f"{FAMILY}/")).data
    assert 1200 == (await caller.send("POST", f"{FAMILY}/")).json["code"]


async def test_the_log_holds_every_request_and_no_key():
    """
    Records have method, path, query, body, time, call and status; the key itself is nowhere.
    """
    simulator, caller = calling()
    await caller.list("?pageNum=2")
    await anyio.sleep(3)
    await caller.post("clear", session_id="nope")
    await Caller(simulator.transport(), base="", key=None).send("GET", "https://simulator.invalid/media/none.mp4")
    first, second, third = simulator.log
    assert ("GET", f"/kling{FAMILY}", {"pageNum": "2"}, None, "list", 200) == (
        first.method,
        first.path,
        first.query,
        first.json,
        first.endpoint,
        first.status,
    )
    assert ({"session_id": "nope"}, "clear", 404, None) == (second.json, second.endpoint, second.status, second.fault)
    assert 3 == pytest.approx(second.time - first.time, abs=0.5)
    assert [True, True, False] == [seen.with_key for seen in simulator.log]
    assert ("media", 404) == (third.endpoint, third.status)
    assert isinstance(first, Seen)
    assert KEY not in repr(simulator.log) + repr(simulator) + repr(simulator._desk)


async def test_the_same_seed_gives_the_same_ids():
    """
    Ids repeat under a seed and differ between seeds; none begins with a nought.
    """

    async def ids(seed):
        _, caller = calling(seed=seed)
        return [(await caller.post("init", video_url=CLIP)).json["data"]["session_id"] for _ in range(3)]

    assert await ids(4) == await ids(4)
    assert await ids(4) != await ids(5)


async def test_a_published_clip_is_its_own_result():
    """
    What users put up is edited with the footage that they told, and comes back as it is.
    """
    simulator, caller = calling(task_seconds=0)
    url = simulator.publish(b"....ftyp", footage=Footage(fps=30, total_frames=60))
    assert "https://simulator.invalid/media/clip-1.mp4" == url
    data = (await caller.post("init", video_url=f"{url}?from=test")).data
    assert (30, 60) == (data["fps"], data["total_frame"])
    created = await caller.create(await caller.marked(video_url=url))
    result = (await caller.get(created.data["task_id"])).data["task_result"]["videos"][0]["url"]
    assert b"....ftyp" == (await Caller(simulator.transport(), base="").send("GET", result)).response.body


async def test_a_link_of_ours_to_nothing_is_refused():
    """
    The simulator knows its own files, so a wrong name is told at once, for clips and for pictures.
    """
    _, caller = calling()
    missing = "https://simulator.invalid/media/none.png"
    assert (400, 1201) == (await caller.post("init", video_url=missing)).refusal[:2]
    swap = await caller.create(edit_mode="swap", image_list=[{"image": missing}])
    assert (400, 1201, f"image '{missing}' can not be downloaded") == swap.refusal


async def test_pictures_may_be_published_too(tmp_path):
    """
    A swap takes a picture by base64, by our own URL or by anybody's.
    """
    simulator, caller = calling()
    (tmp_path / "hat.png").write_bytes(b"png")
    ours = simulator.publish(tmp_path / "hat.png")
    for image in (png(), ours, "https://example.com/hat.png"):
        assert 200 == (await caller.create(edit_mode="swap", image_list=[{"image": image}])).status


async def test_the_clock_goes_on_from_one_loop_to_the_next():
    """
    Each event loop's clock is read from where the simulator's stood, and it never goes back.
    """
    simulator, caller = calling()
    await caller.list()
    await anyio.sleep(100)
    await caller.list()
    desk = simulator._desk
    visit = desk.enter(Request("GET", f"{HOST}{FAMILY}"), origin=HOST, clock="another", reading=5.0)
    assert visit.work() is None
    visit = desk.enter(Request("GET", f"{HOST}{FAMILY}"), origin=HOST, clock="another", reading=2.0)
    assert visit.work() is None
    times = [seen.time for seen in simulator.log]
    assert sorted(times) == times
    assert 100 == pytest.approx(times[-1], abs=1)


async def test_a_closed_transport_refuses():
    """
    A transport is closed for itself alone; the simulator goes on.
    """
    simulator, caller = calling()
    await caller.transport.aclose()
    await caller.transport.aclose()
    with pytest.raises(ClosedError):
        await caller.list()
    assert 200 == (await Caller(simulator.transport()).list()).status


async def test_a_request_cancelled_at_once_was_never_seen():
    """
    Before its first checkpoint a request does nothing.
    """
    simulator, caller = calling()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await caller.list()
    assert () == simulator.log


@pytest.mark.parametrize(
    "settings, field",
    [
        ({"quota": 0}, "quota"),
        ({"quota": True}, "quota"),
        ({"quota": 1.5}, "quota"),
        ({"task_seconds": -1}, "task_seconds"),
        ({"task_seconds": float("nan")}, "task_seconds"),
        ({"task_seconds": True}, "task_seconds"),
        ({"seed": "x"}, "seed"),
        ({"api_key": " "}, "api_key"),
        ({"api_key": 7}, "api_key"),
        ({"faults": ["lost"]}, "faults"),
        ({"shape": "wrapped1"}, "shape"),
        ({"footage": 120}, "footage"),
    ],
)
def test_settings_are_checked(settings, field):
    """
    A setting that makes no sense is named.
    """
    with pytest.raises(InvalidInputError) as caught:
        Simulator(**settings)
    assert field == caught.value.field


@pytest.mark.parametrize(
    "footage, field",
    [
        ({"width": 0}, "footage.width"),
        ({"height": True}, "footage.height"),
        ({"total_frames": 1.0}, "footage.total_frames"),
        ({"fps": 0}, "footage.fps"),
        ({"fps": float("inf")}, "footage.fps"),
        ({"fps": "24"}, "footage.fps"),
    ],
)
def test_footage_is_checked(footage, field):
    """
    Footage is positive numbers.
    """
    with pytest.raises(InvalidInputError) as caught:
        Footage(**footage)
    assert field == caught.value.field


def test_a_files_own_name_is_made_fit(tmp_path):
    """
    What cannot stand in a URL is replaced; a name that was chosen is never changed.
    """
    path = tmp_path / ".Mein Film (1).mp4"
    path.write_bytes(b"x")
    assert "https://simulator.invalid/media/Mein-Film-1-.mp4" == Simulator().publish(path)


def test_publishing_checks_name_and_file(tmp_path):
    """
    Names stand in URLs and are given once; paths lead to files.
    """
    simulator = Simulator()
    simulator.publish(b"x", name="a.mp4")
    for source, name, field in (
        (b"x", "", "name"),
        (b"x", "a/b", "name"),
        (b"x", "a.mp4", "name"),
        (tmp_path, "c", "source"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            simulator.publish(source, name=name)
        assert field == caught.value.field


def test_a_simulator_is_a_context_and_tells_what_it_saw():
    """
    Leaving it closes it; without eyes there is nothing to close.
    """
    with Simulator(faults=[Fault("create", "lost")]) as simulator:
        assert "<Simulator, 0 requests seen>" == repr(simulator)
    simulator.close()


def test_the_public_names_are_these():
    """
    What the package exports is documented by a tuple.
    """
    assert ("Fault", "Footage", "Seen", "Shape", "Simulator") == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)
