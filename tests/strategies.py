"""
What hypothesis draws: values of every kind that the package has, and replies that no service should send.
"""

import struct
from datetime import UTC, datetime

import orjson
from hypothesis import settings
from hypothesis import strategies as st

from kling_async import (
    Addition,
    Image,
    Job,
    Marked,
    Marks,
    Mask,
    Point,
    Preview,
    Reconciled,
    Removal,
    SelectionInfo,
    SelectionState,
    Swap,
    Task,
    Video,
)
from kling_async.transport import Response

modest = settings(max_examples=60, deadline=None)
"""For properties of cheap functions on a shared machine."""


def png(width, height, *, padding=0):
    """
    The head of a PNG of this size: all that is looked at.
    """
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, height)
    return head + b"\x08\x02\0\0\0" + bytes(padding)


fractions = st.floats(0, 1) | st.sampled_from([-0.0, 0.0, 1.0, 0.1 + 0.2, 5e-324, 1 / 3])
points = st.builds(Point, fractions, fractions)
frames = st.integers(0, 10_000)
groups = st.lists(points, min_size=1, max_size=10, unique=True)
marks = st.dictionaries(frames, groups, max_size=10).map(Marks)

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<"), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)
ids = st.text("0123456789abcdefghijklmnopqrstuvwxyz-_", min_size=1, max_size=20)
urls = ids.map(lambda name: f"https://cdn.example.com/{name}.mp4?sign=1")
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as it asks
seconds = st.floats(0, 100)
sides = st.integers(1, 9)


@st.composite
def runs(draw, pixels):
    """
    Run lengths that fill so many pixels, empty runs among them.
    """
    ends = sorted(draw(st.lists(st.integers(0, pixels), max_size=12)))
    return [stop - start for start, stop in zip([0, *ends], [*ends, pixels], strict=True)]


@st.composite
def masks(draw):
    """
    Small masks of any shape, with and without what the service adds.
    """
    height, width = draw(sides), draw(sides)
    plain = Mask.from_runs(draw(runs(height * width)), height=height, width=width, object_id=draw(st.integers(0, 9)))
    return Mask(
        object_id=plain.object_id,
        height=height,
        width=width,
        counts=plain.counts,
        png=draw(st.none() | st.binary(max_size=20)),
        size=draw(st.none() | st.just((width, height))),
    )


pictures = ids.map(lambda name: Image.from_url(f"https://example.com/{name}.png")) | st.integers(300, 750).map(
    lambda width: Image.from_bytes(png(width, 300))
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
_wishes = {
    "negative_prompt": st.none() | words,
    "mode": st.sampled_from(["std", "pro"]),
    "duration": st.sampled_from([None, 5, 10]),
    "watermark": st.sampled_from([None, True, False]),
    "extra": st.none() | st.dictionaries(words.map("x-{}".format), json_values, max_size=2),
}
removals = st.builds(Removal.of, words, **_wishes)
swaps = st.builds(Swap.of, words, words, pictures, **_wishes)
additions = st.builds(
    lambda what, images, wishes: Addition.of(what, *images, **wishes),
    words,
    st.lists(pictures, min_size=1, max_size=2),
    st.fixed_dictionaries(_wishes),
)
edits = removals | swaps | additions

infos = st.builds(
    SelectionInfo,
    session_id=ids,
    fps=st.none() | seconds,
    width=st.none() | sides,
    height=st.none() | sides,
    total_frames=st.none() | frames,
    duration=st.none() | seconds,
    normalized_video_url=st.none() | urls,
)
states = st.builds(
    SelectionState,
    session_id=ids,
    opened_at=moments,
    video_url=st.none() | urls,
    video_id=st.none() | ids,
    info=st.none() | infos,
    marks=st.none() | marks,
    uncertain=st.frozensets(frames, max_size=3),
)
videos = st.builds(
    Video,
    video_id=st.none() | ids,
    url=st.none() | urls,
    watermark_url=st.none() | urls,
    duration=st.none() | seconds,
)
tasks = st.builds(
    Task,
    task_id=ids,
    status=st.sampled_from(["submitted", "processing", "succeed", "failed", "warming_up"]),
    status_message=st.none() | words,
    external_task_id=st.none() | ids,
    created_at=st.none() | moments,
    updated_at=st.none() | moments,
    videos=st.lists(videos, max_size=2).map(tuple),
    units=st.none() | st.decimals(0, 1000, places=2),
)
by_kind = {
    Point: points,
    Image: pictures,
    Removal: removals,
    Swap: swaps,
    Addition: additions,
    Mask: masks(),
    SelectionInfo: infos,
    SelectionState: states,
    Marked: st.builds(Marked, frame_index=st.none() | frames, masks=st.lists(masks(), max_size=2).map(tuple)),
    Preview: st.builds(Preview, video_url=st.none() | urls, cover_url=st.none() | urls, tracking_url=st.none() | urls),
    Video: videos,
    Task: tasks,
    Reconciled: st.builds(Reconciled, adopted=st.lists(tasks, max_size=2).map(tuple)),
    Job: st.builds(Job, urls, marks=marks.filter(len), edit=edits, key=st.none() | words)
    | st.builds(Job, video_id=ids, marks=marks.filter(len), edit=edits, key=st.none() | words),
}
"""A strategy for each kind of value that `to_dict` takes."""
values = st.one_of(*by_kind.values())

_WIRE = """
    code message msg request_id data error type success status session_id fps original_duration width height
    total_frame normalized_video res frame_index rle_mask_list object_id rle_mask size counts png_mask base64 video
    video_cover tracking_output tasks task_id id task_status task_status_msg task_info external_task_id task_result
    videos url watermark_url duration created_at updated_at submit_time finish_time fail_reason result_url
    final_unit_deduction
"""
_NAMES = st.sampled_from(_WIRE.split())
_SAID = st.sampled_from(
    [
        "",
        "0",
        "success",
        "SUCCESS",
        "succeed",
        "failed",
        "processing",
        "inf",
        "nan",
        "--5",
        "9" * 5000,
        "1303",
        "x" * 999,
    ]
)
_parts = st.recursive(
    _SAID | json_values | st.sampled_from([0, 1, 1201, 1303, 5000, 1e300, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=20,
)
_good = st.sampled_from(
    [
        {"task_id": "1", "task_status": "succeed", "task_result": {"videos": [{"url": "https://a.example"}]}},
        {"task_id": "1", "status": "SUCCESS", "data": {"task_id": "2", "task_status": "processing"}},
        {"status": 0, "session_id": "1", "fps": 30, "total_frame": 150, "original_duration": 5000},
        {"res": {"rle_mask_list": [{"rle_mask": {"size": [3, 4], "counts": "42102"}}]}},
    ]
)
_nearly = st.builds(lambda data, junk: data | junk, _good, st.dictionaries(_NAMES, _parts, max_size=2))
_wild = st.fixed_dictionaries({}, optional={"code": _SAID | st.just(0) | _parts, "data": _parts, "error": _parts})
envelopes = (
    st.builds(lambda some, more: more | some, _wild, st.dictionaries(_NAMES, _parts, max_size=4))
    | st.builds(lambda data, code: {"code": code, "data": data}, _nearly, st.sampled_from([0, "success"]))
    | _nearly
)
"""Replies that are nearly right, and replies with the service's words in all the wrong places."""

statuses = st.just(200) | st.sampled_from([201, 204, 301, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504, 524])
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x-oneapi-request-id"]),
    st.sampled_from(["2", "9" * 400, "Tue, 28 Apr 2026 14:09:21 GMT", "Tue, 28 Apr 2026 14:09:21 +99999999999"])
    | words,
)
bodies = st.binary(max_size=400) | envelopes.map(orjson.dumps) | json_values.map(orjson.dumps)
replies = st.builds(Response, statuses, headers, bodies)
"""Whatever may come over the wire."""
