"""
What the simulator refuses, call by call: each bad parameter with a message that names it.
"""

import pytest

from kling_async.simulator import Footage
from tests.simulating import CLIP, calling, png, spots

URL = {"image": "https://example.com/hat.png"}
POINTS = spots((0.5, 0.5))


def cases(table):
    """
    Parameters of tests: fields and what the message says.
    """
    return pytest.mark.parametrize("fields, said", table, ids=[said for _, said in table])


@pytest.mark.parametrize("name", ["init", "add", "delete", "clear", "preview", "create"])
@pytest.mark.parametrize("body", [[], "text", 7, None])
async def test_a_body_is_a_json_object(name, body):
    """
    Anything else is 1200.
    """
    _, caller = calling()
    reply = (
        await caller.post(name, body) if body is not None else await caller.send("POST", "/v1/videos/multi-elements")
    )
    assert (400, 1200, "the body must be a JSON object") == reply.refusal


BOTH = "video_id and video_url can not both be empty nor both have a value"


@cases(
    [
        ({}, BOTH),
        ({"video_id": "", "video_url": None}, BOTH),
        ({"video_id": "1", "video_url": CLIP}, BOTH),
        ({"video_id": 1}, "video_id value '1' is invalid"),
        ({"video_url": "clip.mp4"}, "video_url value 'clip.mp4' is invalid"),
        ({"video_url": "ftp://example.com/clip.mp4"}, "video_url value 'ftp://example.com/clip.mp4' is invalid"),
        (
            {"video_url": "https://me@example.com/clip.mp4"},
            "video_url value 'https://me@example.com/clip.mp4' is invalid",
        ),
        (
            {"video_url": "https://example.com/a clip.mp4"},
            "video_url value 'https://example.com/a clip.mp4' is invalid",
        ),
        ({"video_url": "https://example.com/clip.AVI?x=1"}, "video_url: only MP4 and MOV are supported"),
    ]
)
async def test_a_session_has_one_source(fields, said):
    """
    The source is an id or an http(s) URL of an MP4 or MOV.
    """
    _, caller = calling()
    assert (400, 1201, said) == (await caller.post("init", fields)).refusal


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/clip.MOV",
        "http://127.0.0.1:8000/clip?id=7",
        "HTTPS://example.com:/clip.mp4#t=1",
        "http://[::1]:8000/media/clip.mp4",
        "http://[:.:]/clip.mp4?from=a.avi",
        "https://b\u00fccher.example/clip.mp4",
        "https://example.avi",
    ],
)
async def test_an_ending_is_not_insisted_on(url):
    """
    A URL need not say what it leads to, and unknown fields are ignored.
    """
    _, caller = calling()
    assert 200 == (await caller.post("init", video_url=url, video_id="", task_id="1", model="x")).status


@pytest.mark.parametrize(
    "footage, fine",
    [
        ({"total_frames": 47}, False),
        ({"total_frames": 48}, True),
        ({"total_frames": 132}, True),
        ({"total_frames": 133}, False),
        ({"total_frames": 168}, True),
        ({"total_frames": 252}, True),
        ({"total_frames": 253}, False),
        ({"fps": 25, "total_frames": 100}, False),
        ({"fps": 29.97}, True),
        ({"fps": 60, "total_frames": 300}, True),
        ({"width": 719}, False),
        ({"height": 2161}, False),
        ({"width": 2160, "height": 720}, True),
    ],
)
async def test_clips_have_the_documented_length_size_and_rate(footage, fine):
    """
    2 to 5.5 or 7 to 10.5 s, 720 to 2160 px a side, 24, 30 or 60 frames a second.
    """
    _, caller = calling(footage=Footage(**footage))
    assert (200 if fine else 400) == (await caller.post("init", video_url=CLIP)).status


async def test_of_a_video_id_only_the_length_is_limited():
    """
    No rule on size and rate is documented for videos of the account.
    """
    _, caller = calling(footage=Footage(width=640, height=480, fps=25, total_frames=100))
    assert 200 == (await caller.post("init", video_id="1")).status


@pytest.mark.parametrize("name", ["add", "delete"])
@cases(
    [
        ({"session_id": ""}, "session_id can not be null"),
        ({"session_id": 847570360458960960}, "session_id value '847570360458960960' is invalid"),
        ({"frame_index": None}, "frame_index can not be null"),
        ({"frame_index": -1}, "frame_index value '-1' is invalid"),
        ({"frame_index": True}, "frame_index value 'True' is invalid"),
        ({"frame_index": 1.5}, "frame_index value '1.5' is invalid"),
        ({"frame_index": 2**31}, "frame_index value '2147483648' is invalid"),
        ({"frame_index": 1e300}, "frame_index value '1e+300' is invalid"),
        ({"frame_index": "1"}, "frame_index value '1' is invalid"),
        ({"points": None}, "points can not be null"),
        ({"points": []}, "points can not be null"),
        ({"points": "0.5,0.5"}, "points value '0.5,0.5' is invalid"),
        ({"points": [[0.5, 0.5]]}, "points value '[0.5, 0.5]' is invalid"),
        ({"points": [{"x": 0.5}]}, "points.y can not be null"),
        ({"points": spots((True, 0.5))}, "points.x value 'True' is invalid"),
        ({"points": spots((0.5, "0.5"))}, "points.y value '0.5' is invalid"),
        ({"points": spots((0.5, 1.0000001))}, "points.y value '1.0000001' is invalid"),
        ({"points": spots((-1e-9, 0.5))}, "points.x value '-1e-09' is invalid"),
        ({"points": spots((640, 360))}, "points.x value '640' is invalid"),
    ]
)
async def test_points_are_fractions_on_a_frame(name, fields, said):
    """
    Add and delete take the same and refuse the same.
    """
    _, caller = calling()
    session_id = await caller.opened()
    given = {"session_id": session_id, "frame_index": 0, "points": POINTS, **fields}
    assert (400, 1201, said) == (await caller.post(name, given)).refusal


async def test_a_whole_number_may_be_written_with_a_point():
    """
    In JSON 1.0 is 1, so the points are on the same frame.
    """
    _, caller = calling()
    session_id = await caller.opened()
    added = await caller.post("add", session_id=session_id, frame_index=1.0, points=POINTS)
    assert "1" == repr(added.data["res"]["frame_index"])
    assert 200 == (await caller.post("delete", session_id=session_id, frame_index=1, points=POINTS)).status


async def test_whole_numbers_are_fractions_too():
    """
    The corners may be written 0 and 1, and are the same points as 0.0 and 1.0.
    """
    _, caller = calling()
    session_id = await caller.opened()
    where = {"session_id": session_id, "frame_index": 0}
    assert 200 == (await caller.post("add", **where, points=spots((0, 1)))).status
    assert 200 == (await caller.post("delete", **where, points=spots((0.0, 1.0)))).status


@pytest.mark.parametrize("name", ["clear", "preview", "create"])
async def test_a_session_is_named(name):
    """
    Without its id no call goes anywhere.
    """
    _, caller = calling()
    assert (400, 1201, "session_id can not be null") == (await caller.post(name, {"session_id": ""})).refusal


NOT_BASE64 = "File is not in a valid base64 format"


@cases(
    [
        ({"edit_mode": None}, "edit_mode can not be null"),
        ({"edit_mode": "remove"}, "edit_mode value 'remove' is invalid"),
        ({"prompt": ""}, "prompt can not be null"),
        ({"prompt": "x" * 2501}, "prompt length 2501 is over 2500"),
        ({"negative_prompt": "x" * 2501}, "negative_prompt length 2501 is over 2500"),
        ({"negative_prompt": 7}, "negative_prompt value '7' is invalid"),
        ({"mode": "professional"}, "mode value 'professional' is invalid"),
        ({"duration": "99"}, "duration value '99' is invalid"),
        ({"duration": 5}, "duration value '5' is invalid"),
        ({"duration": "10"}, "duration value '10' is invalid for a video of 5s"),
        ({"model_name": 16}, "model_name value '16' is invalid"),
        ({"callback_url": "me.example/kling"}, "callback_url value 'me.example/kling' is invalid"),
        ({"external_task_id": 7}, "external_task_id value '7' is invalid"),
        ({"watermark_info": {"enabled": "yes"}}, "watermark_info.enabled value 'yes' is invalid"),
        ({"watermark_info": "yes"}, "watermark_info.enabled value 'yes' is invalid"),
        ({"image_list": URL}, f"image_list value '{URL}' is invalid"),
        ({"image_list": [URL]}, "image_list: 1 for removal, at most 0"),
        (
            {"callback_url": f"https://me.example/{'x' * 2030}"},
            f"callback_url value 'https://me.example/{'x' * 41}' is invalid",
        ),
        ({"watermark_info": True}, "watermark_info.enabled value 'True' is invalid"),
        ({"edit_mode": "addition"}, "image can not be null"),
        ({"edit_mode": "addition", "image_list": [URL] * 3}, "image_list: 3 for addition, at most 2"),
        ({"edit_mode": "swap", "image_list": ""}, "image can not be null"),
        ({"edit_mode": "swap", "image_list": [URL] * 2}, "image_list: 2 for swap, at most 1"),
        ({"edit_mode": "swap", "image_list": ["abc"]}, "image_list value 'abc' is invalid"),
        ({"edit_mode": "swap", "image_list": [{"image": ""}]}, "image can not be null"),
        (
            {"edit_mode": "swap", "image_list": [{"image": "http:///hat.png"}]},
            "image value 'http:///hat.png' is invalid",
        ),
        ({"edit_mode": "swap", "image_list": [{"image": "data:image/png;base64,AAAA"}]}, NOT_BASE64),
        ({"edit_mode": "swap", "image_list": [{"image": "A===="}]}, NOT_BASE64),
    ]
)
async def test_a_create_is_as_the_documents_say(fields, said):
    """
    Each wrong field of a create is named, and nothing is created.
    """
    simulator, caller = calling()
    assert (400, 1201, said) == (await caller.create(**fields)).refusal
    assert {} == simulator.charges


@pytest.mark.parametrize("size", [(299, 300), (300, 751)])
async def test_pictures_have_the_documented_size(size):
    """
    300 px a side at least, and no side more than 2.5 times the other.
    """
    _, caller = calling()
    reply = await caller.create(edit_mode="swap", image_list=[{"image": png(*size)}])
    assert (400, 1201) == reply.refusal[:2]
    assert reply.json["message"].startswith(f"image is {size[0]} x {size[1]}")


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 2500, "negative_prompt": "", "callback_url": "", "external_task_id": "", "mode": ""},
        {"image_list": []},
        {"duration": "5", "model_name": "kling-v1-6", "callback_url": "https://me.example/kling"},
        {"edit_mode": "swap", "image_list": [{"image": png(300, 750)}], "watermark_info": {}},
        {"edit_mode": "addition", "image_list": [URL, {"image": png()}], "fps": 24, "model": "kling-v9"},
    ],
)
async def test_what_the_documents_allow_is_accepted(fields):
    """
    Empty strings are absent, unknown fields ignored.
    """
    _, caller = calling()
    assert 200 == (await caller.create(**fields)).status


async def test_another_model_does_not_exist():
    """
    Only kling-v1-6 edits; another model is a resource that is not there.
    """
    _, caller = calling()
    reply = await caller.create(model_name="kling-v9")
    assert (404, 1203, "model_name value 'kling-v9' does not exist") == reply.refusal


async def test_only_an_addition_needs_no_selection():
    """
    Swap and removal want marks first.
    """
    _, caller = calling()
    session_id = await caller.opened()
    for edit_mode, status in (("removal", 400), ("swap", 400), ("addition", 200)):
        pictures = [] if edit_mode == "removal" else [URL]
        assert status == (await caller.create(session_id, edit_mode=edit_mode, image_list=pictures)).status


@pytest.mark.parametrize(
    "query, said",
    [
        ("pageNum=0", "pageNum value '0' is invalid"),
        ("pageNum=1001", "pageNum value '1001' is invalid"),
        ("pageSize=501", "pageSize value '501' is invalid"),
        ("pageSize=-1", "pageSize value '-1' is invalid"),
        ("pageNum=x", "pageNum value 'x' is invalid"),
        ("pageNum=", "pageNum value '' is invalid"),
    ],
)
async def test_pages_have_limits(query, said):
    """
    Pages run from 1 to 1000 and hold 1 to 500 tasks.
    """
    _, caller = calling()
    assert (400, 1201, said) == (await caller.list(f"?{query}")).refusal
    assert [] == (await caller.list("?pageNum=1000&pageSize=500")).data
