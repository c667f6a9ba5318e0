"""
The eight calls: paths, bodies, and what is told before any request.
"""

import pytest

from kling_async import (
    KLING_GLOBAL_URL,
    Addition,
    Image,
    InvalidInputError,
    NotFoundError,
    Point,
    Preview,
    Removal,
    SelectionRejectedError,
    UnsupportedError,
    Video,
)
from tests.doubles import client_of, envelope, script_of, task_reply

CLIP = "https://example.com/clip.mp4"
MARKED = envelope({"status": 0, "res": {"frame_index": 40, "rle_mask_list": []}})


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
        envelope(code=1203, status=404),
        envelope([]),
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
        f"GET {family}/order-1",
        f"GET {family}?pageNum=1&pageSize=500",
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
