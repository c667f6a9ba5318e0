"""
What may stand in the requests of the eight calls, and what stands in their replies, as JSON schemas.

Every bound comes from the constant that the simulator itself judges by, so that the two cannot part. What depends on
a session (how many frames its clip has, which points it holds) is beyond a schema; such requests are refused all
the same. Replies are those of the default `Shape`, to the last field.
Source: https://klingai.com/document-api/api/video/multi-elements.md
"""

from typing import TypeAlias

from kling_async.models import FAILED, PROCESSING, SUBMITTED, SUCCEED
from kling_async.pictures import ASPECT_MOST, BYTES_LIMIT, SIDE_LEAST

from . import _rules
from ._routes import RESERVED
from ._shape import Shape

Schema: TypeAlias = dict[str, object]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_LINK: Schema = {"type": "string", "format": "uri"}
_ID: Schema = {"type": "string", "pattern": "^[0-9]{18}$"}
_UNITS: Schema = {"type": "string", "pattern": "^[0-9]+$", "description": "A decimal; selection calls are free."}
_ABSENT: Schema = {"enum": ["", None], "description": "Counts as absent."}
_MAY_BE_ABSENT: Schema = {"type": ["string", "null"]}


def _taken(required: tuple[str, ...], properties: Schema, **more: object) -> Schema:
    """
    An object of a request: what else stands in it is ignored.
    """
    return {"type": "object", "required": list(required), "properties": properties, **more}


def _given(properties: Schema, *optional: str) -> Schema:
    """
    An object of a reply: nothing else stands in it.
    """
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _chosen(*values: str) -> Schema:
    """
    One of these; the first where it is absent.
    """
    return {"enum": [*values, "", None], "default": values[0]}


def _seconds(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"


def _url(**more: object) -> Schema:
    return {"type": "string", "maxLength": _rules.URL_MOST, "pattern": f"^{_rules.URL}$", **more}


def init() -> Schema:
    """
    The body of init-selection.
    """
    video_id: Schema = {"type": "string", "minLength": 1}
    video_url = _url(**{"not": {"pattern": f"^{_rules.FOREIGN}"}})
    rates = ", ".join(map(str, _rules.RATES))
    return {
        "type": "object",
        "description": (
            f"Exactly one source: a clip of {_seconds(_rules.SHORT)} or {_seconds(_rules.LONG)} s; one at an address "
            f"must have sides of {_rules.SIDES[0]} to {_rules.SIDES[1]} px and {rates} frames a second."
        ),
        "properties": {"video_id": _MAY_BE_ABSENT, "video_url": _MAY_BE_ABSENT},
        "oneOf": [
            _taken(("video_id",), {"video_id": video_id, "video_url": _ABSENT}),
            _taken(("video_url",), {"video_url": video_url, "video_id": _ABSENT}),
        ],
    }


def _session_id() -> Schema:
    return {"type": "string", "minLength": 1, "description": "From init-selection; a session lives 24 hours."}


def session() -> Schema:
    """
    The body of clear-selection and preview-selection.
    """
    return _taken(("session_id",), {"session_id": _session_id()})


def marking() -> Schema:
    """
    The body of add-selection and delete-selection.
    """
    fraction: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    points: Schema = {
        "type": "array",
        "minItems": 1,
        "maxItems": _rules.POINTS_MOST,
        "uniqueItems": True,
        "items": _taken(("x", "y"), {"x": fraction, "y": fraction}),
        "description": f"At most {_rules.POINTS_MOST} on a frame and {_rules.FRAMES_MOST} frames, over all calls.",
    }
    frame: Schema = {"type": "integer", "minimum": 0, "maximum": _rules.FRAME_INDEX_MOST}
    fields: Schema = {"session_id": _session_id(), "frame_index": frame, "points": points}
    return _taken(tuple(fields), fields)


def creation() -> Schema:
    """
    The body of create.
    """
    text: Schema = {"type": ["string", "null"], "maxLength": _rules.TEXT_MOST}
    fields: Schema = {
        "session_id": _session_id(),
        "edit_mode": {"enum": list(_rules.PICTURES)},
        "prompt": {"type": "string", "minLength": 1, "maxLength": _rules.TEXT_MOST},
        "negative_prompt": text,
        "model_name": _chosen(*_rules.MODELS),
        "mode": _chosen(*_rules.MODES),
        "duration": _chosen(*_rules.DURATIONS),
        "callback_url": {"anyOf": [_url(), _ABSENT]},
        "external_task_id": {"type": ["string", "null"], "description": "Unique in the account."},
        "watermark_info": {"type": ["object", "null"], "properties": {"enabled": {"type": ["boolean", "null"]}}},
    }
    ways = [_pictures(edit_mode, *limits) for edit_mode, limits in _rules.PICTURES.items()]
    return _taken(("session_id", "edit_mode", "prompt"), fields, oneOf=ways)


def _pictures(edit_mode: str, least: int, most: int) -> Schema:
    base64: Schema = {"type": "string", "contentEncoding": "base64", "pattern": f"^{_rules.BASE64}$"}
    base64["description"] = (
        f"A JPEG or PNG of at most {BYTES_LIMIT // 2**20} MB, sides from {SIDE_LEAST} px and at most {ASPECT_MOST:g} "
        "to 1; that is looked at once the session is known."
    )
    picture = _taken(("image",), {"image": {"anyOf": [_url(), base64]}})
    listed: Schema = {"type": "array", "minItems": least, "maxItems": most, "items": picture}
    if not most:
        listed = {"enum": [[], "", None]}
    required = ("edit_mode", "image_list") if least else ("edit_mode",)
    return _taken(required, {"edit_mode": {"const": edit_mode}, "image_list": listed})


def task_id() -> Schema:
    """
    A task's id in a path, or its external id.
    """
    return {"type": "string", "minLength": 1, "not": {"enum": list(RESERVED)}}


def pages() -> dict[str, Schema]:
    """
    The numbers of a list's query.
    """
    return {
        name: {"type": "integer", "minimum": least, "maximum": most, "default": usual}
        for name, (least, most, usual) in _rules.PAGES.items()
    }


def success(data: Schema) -> Schema:
    """
    Kling's envelope around what went well.
    """
    shape = Shape()
    head: Schema = {"code": {"const": shape.code}, "message": {"const": shape.message}, "request_id": _request_id()}
    return _given(head | {"data": data})


def refusal(*codes: int) -> Schema:
    """
    Kling's envelope around a refusal with one of these codes.
    """
    return _given({"code": {"enum": list(codes)}, "message": _TEXT, "request_id": _request_id()})


def _request_id() -> Schema:
    return {"type": "string", "format": "uuid"}


def selection(**more: object) -> Schema:
    """
    The data of a selection call: its session and more, or why nothing was recognised.
    """
    fields: Schema = {"status": {"const": 0}, "session_id": _ID, "final_unit_deduction": _UNITS}
    rejected = _given({"status": {"type": "integer", "not": {"const": 0}}, "final_unit_deduction": _UNITS})
    return {"oneOf": [_given(fields | more), rejected]}


def opened() -> Schema:
    """
    The data of init-selection.
    """
    return selection(
        fps={"type": "number", "exclusiveMinimum": 0},
        original_duration={**_WHOLE, "description": "Milliseconds."},
        width=_COUNT,
        height=_COUNT,
        total_frame=_COUNT,
        normalized_video=_LINK,
    )


def marked() -> Schema:
    """
    The data of add-selection and delete-selection.
    """
    size: Schema = {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2, "description": "Height, width."}
    mask = _given(
        {
            "object_id": _WHOLE,
            "rle_mask": _given({"size": size, "counts": {"type": "string", "description": "COCO's run lengths."}}),
            "png_mask": _given({"size": size, "base64": {"type": "string", "contentEncoding": "base64"}}),
        }
    )
    return selection(res=_given({"frame_index": _WHOLE, "rle_mask_list": {"type": "array", "items": mask}}))


def previewed() -> Schema:
    """
    The data of preview-selection.
    """
    return selection(res=_given({"video": _LINK, "video_cover": _LINK, "tracking_output": _LINK}))


def created() -> Schema:
    """
    The data of create.
    """
    return _given(
        {"task_id": _ID, "task_status": {"const": SUBMITTED}, "task_info": _info(), "created_at": _WHOLE}
        | {"updated_at": _WHOLE}
    )


def _info() -> Schema:
    return _given({"external_task_id": _TEXT}, "external_task_id")


def task() -> Schema:
    """
    The data of a query, and each item of a list.
    """
    seconds: Schema = {"type": "string", "pattern": r"^[0-9]+\.[0-9]+$", "description": "Seconds."}
    video: Schema = {"id": _ID, "session_id": _ID, "url": _LINK, "watermark_url": _LINK, "duration": seconds}
    videos: Schema = {"type": "array", "minItems": 1, "maxItems": 1, "items": _given(video, "watermark_url")}
    fields: Schema = {
        "task_id": _ID,
        "task_status": {"enum": [SUBMITTED, PROCESSING, SUCCEED, FAILED]},
        "task_status_msg": _TEXT,
        "task_info": _info(),
        "task_result": _given({"videos": videos}, "videos"),
        "watermark_info": _given({"enabled": {"type": "boolean"}}),
        "final_unit_deduction": _UNITS,
        "created_at": {**_WHOLE, "description": "Milliseconds of Unix time."},
        "updated_at": {**_WHOLE, "description": "Milliseconds of Unix time."},
    }
    return _given(fields, "task_status_msg", "watermark_info", "final_unit_deduction")
