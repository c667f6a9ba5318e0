"""
A task out of what came: Kling's object, or a gateway's own around it.

Nearly all replies of a client are tasks as Kling documents them, so these are read by a way of their own, without
asking what else they might be; whatever is spelled otherwise goes the long way, and both say the same of the same.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from attrs import fields

from ._codec import MILLISECONDS, finite, readable
from .errors import DecodeError
from .models import FAILED, PROCESSING, SUBMITTED, SUCCEED, Task, Video

JSONObject = Mapping[str, object]

STATUSES = {
    **dict.fromkeys(("not_start", "submitted", "queued"), SUBMITTED),
    **dict.fromkeys(("in_progress", "processing", "running"), PROCESSING),
    **dict.fromkeys(("succeed", "succeeded", "success", "completed"), SUCCEED),
    **dict.fromkeys(("failed", "fail", "failure", "error"), FAILED),
}
"""Spellings of a task's status, in lower case, to Kling's; any other stays as it came and runs on."""

PARTS_MOST = 1000
"""Masks of a frame, and videos of a task: the pages know ten and one."""

_NESTED = 3
_SPOKEN: Final = frozenset({SUBMITTED, PROCESSING, SUCCEED, FAILED})
_DOCUMENTED: Final = frozenset(
    {
        "task_id",
        "task_status",
        "task_status_msg",
        "task_info",
        "task_result",
        "created_at",
        "updated_at",
        "final_unit_deduction",
        "final_balance_deduction",
        "watermark_info",
        "session_id",
    }
)
"""What Kling says of a task: with anything else in it, a gateway may have its own way of saying it."""
_LATE: Final = 250_000_000_000_000
"""Milliseconds until a year that no task will see; Python knows none after 9999."""
_moment = datetime.fromtimestamp
_new = object.__new__


def _setters(kind: type) -> Iterator[Callable[[object, object], None]]:
    return (vars(kind)[each.name].__set__ for each in fields(kind))


# What writes each field of a value that is frozen for everybody else. The class itself takes twice as long, and would
# be a fifth of the cost of a call. A field more or less in the class fails right here.
(
    _task_id,
    _status_of,
    _status_message,
    _external_task_id,
    _created_at,
    _updated_at,
    _videos_of,
    _units,
    _raw,
) = _setters(Task)
_video_id, _url, _watermark_url, _duration = _setters(Video)


def part(data: JSONObject, name: str) -> JSONObject:
    """A part that may be missing, null, empty or of another kind."""
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def objects(listed: object, what: str, most: int) -> list[JSONObject]:
    """The objects of a list that may be missing; each costs far more to read than to send, hence the bound."""
    if not isinstance(listed, list):
        return []
    if len(listed) > most:
        raise DecodeError(f"the reply lists {len(listed)} {what}, more than {most}")
    return [item for item in listed if isinstance(item, dict)]


def read_task(data: JSONObject, whole: JSONObject, place: str, otherwise: str | None = None) -> Task:
    """
    A task from Kling's object, or from a gateway's own around it; the gateway's id is the one it answers to.
    """
    if plain := plain_task(data, whole):
        return plain
    outer = inner = data
    for _ in range(_NESTED):
        if "task_status" in inner or not isinstance(inner.get("data"), dict):
            break
        inner = part(inner, "data")
        place += ".data"
    named = outer.get("task_id") or inner.get("task_id") or outer.get("id")
    task_id = readable(str, named)
    status = readable(str, _status(inner, outer)) or otherwise
    if task_id is None or status is None:
        wanted = {"task_id": (task_id, named), "task_status": (status, None)}
        problems = [
            f"{f'expected text, got {type(came).__name__}' if came else 'required field missing'} @ $.{place}.{name}"
            for name, (found, came) in wanted.items()
            if found is None
        ]
        raise DecodeError("the task is not what it should be", problems=problems)
    return Task(
        task_id=task_id,
        status=status,
        status_message=readable(str, _reason(inner, outer)),
        external_task_id=readable(str, part(inner, "task_info").get("external_task_id")),
        created_at=readable(datetime, inner.get("created_at") or outer.get("submit_time") or None),
        updated_at=readable(datetime, inner.get("updated_at") or outer.get("finish_time") or None),  # 0 until it ends
        videos=_videos(part(inner, "task_result"), inner, outer),
        units=readable(Decimal, inner.get("final_unit_deduction")),
        raw=whole,
    )


def plain_task(data: object, whole: JSONObject) -> Task | None:
    """
    A task spelled as Kling documents it; None for any other.
    """
    if type(data) is not dict or not data.keys() <= _DOCUMENTED:
        return None
    get = data.get
    task_id, status, message = get("task_id"), get("task_status"), get("task_status_msg") or None
    if type(task_id) is not str or type(status) is not str or status not in _SPOKEN or not task_id:
        return None
    info, made, changed = get("task_info"), get("created_at") or 0, get("updated_at") or 0  # 0 until it ends
    external = info.get("external_task_id") or None if type(info) is dict else None
    if (
        type(made) is not int
        or type(changed) is not int
        or (made and not MILLISECONDS < made < _LATE)
        or (changed and not MILLISECONDS < changed < _LATE)
    ):
        return None
    if (external is not None and type(external) is not str) or (message is not None and type(message) is not str):
        return None
    result, units = get("task_result"), get("final_unit_deduction")
    videos = _plain_videos(result) if result else ()
    if videos is None:
        return None
    task = _new(Task)
    _task_id(task, task_id)
    _status_of(task, status)
    _status_message(task, message)
    _external_task_id(task, external)
    _created_at(task, _moment(made / 1000, UTC) if made else None)
    _updated_at(task, _moment(changed / 1000, UTC) if changed else None)
    _videos_of(task, videos)
    _units(task, Decimal(units) if type(units) is str and units.isdecimal() else readable(Decimal, units))
    _raw(task, whole)
    return task


def _plain_videos(result: object) -> tuple[Video, ...] | None:
    listed = result.get("videos") if type(result) is dict else None
    if type(listed) is not list or len(listed) != 1 or type(listed[0]) is not dict:
        return None
    get = listed[0].get
    video_id, url, watermark, duration = get("id"), get("url"), get("watermark_url") or None, get("duration")
    if type(video_id) is not str or type(url) is not str or (watermark is not None and type(watermark) is not str):
        return None
    video = _new(Video)
    _video_id(video, video_id or None)
    _url(video, url or None)
    _watermark_url(video, watermark)
    _duration(video, finite(duration))
    return (video,)


def _status(inner: JSONObject, outer: JSONObject) -> object:
    """Kling's own status when final, else a gateway's failure, else whichever there is."""
    spoken = [inner.get("task_status"), outer.get("status"), inner.get("status")]
    known = [STATUSES.get(word.lower(), word) for word in spoken if isinstance(word, str) and word]
    if known and known[0] in {SUCCEED, FAILED}:
        return known[0]
    if FAILED in known:
        return FAILED
    return known[0] if known else None


def _reason(inner: JSONObject, outer: JSONObject) -> object:
    error = part(outer, "error").get("message")
    failed = outer.get("fail_reason")
    if isinstance(failed, str) and failed.startswith(("http://", "https://")):
        failed = None  # older gateways keep the result's link there
    return inner.get("task_status_msg") or failed or error


def _videos(result: JSONObject, inner: JSONObject, outer: JSONObject) -> tuple[Video, ...]:
    if videos := objects(result.get("videos"), "videos", PARTS_MOST):
        return tuple(_video(video) for video in videos)
    links = (result.get("video_url"), result.get("url"), inner.get("url"), outer.get("result_url"), outer.get("url"))
    link = next((link for link in links if isinstance(link, str) and link), None)
    return (Video(url=link),) if link else ()


def _video(video: JSONObject) -> Video:
    return Video(
        video_id=readable(str, video.get("id")),
        url=readable(str, video.get("url")),
        watermark_url=readable(str, video.get("watermark_url")),
        duration=readable(float, video.get("duration")),
    )
