"""
The one converter: values to plain JSON types and back, and our values to the bodies that the API takes.

Requests carry what is documented and nothing empty. Floats are spelled by orjson everywhere, since a
point is deleted by the very literals that added it.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar, cast, get_args

import attrs
import orjson

from . import edits, jobs, masks, models, pictures, points
from ._auth import ApiKey, KeyPair
from ._ids import check_external_task_id, check_id
from ._ledger import check_points
from ._refusals import excerpt
from ._urls import warn_of_clip
from .edits import Edit
from .errors import DecodeError, InvalidInputError
from .models import Marks, check_frame_index
from .points import Point

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")

Edits = edits.Addition | edits.Swap | edits.Removal
Plain = Callable[[object], dict[str, object]]

VALUES: tuple[type, ...] = (
    points.Point,
    pictures.Image,
    edits.Addition,
    edits.Swap,
    edits.Removal,
    masks.Mask,
    models.SelectionInfo,
    models.SelectionState,
    models.Marked,
    models.Preview,
    models.Video,
    models.Task,
    models.Reconciled,
    jobs.Job,
)
"""What `to_dict` and `from_dict` take; the whole replies behind them (`raw`) stay behind."""

MILLISECONDS = 10**11
"""Unix times above are milliseconds (Kling's), below seconds (the gateways')."""


def _as_text(value: object, _type: type) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a relay that turned an id into a number
    msg = f"expected text, got {type(value).__name__}"
    raise TypeError(msg)


def finite(value: object) -> float | None:
    """
    A number, or a text that spells one, as a finite float; None for anything else.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _as_bool(value: object, _type: type) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"expected true or false, got {value!r:.40}"
    raise TypeError(msg)


def _as_int(value: object, _type: type) -> int:
    number = finite(value)
    if number is None or not number.is_integer():
        msg = f"expected a whole number, got {value!r:.40}"
        raise ValueError(msg)
    return value if isinstance(value, int) else int(number)


def _as_float(value: object, _type: type) -> float:
    number = finite(value)
    if number is None:
        msg = f"expected a finite number, got {value!r:.40}"
        raise ValueError(msg)
    return number


def _as_decimal(value: object, _type: type) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        msg = f"expected a decimal, got {value!r:.40}"
        raise ValueError(msg) from error
    if not number.is_finite():
        msg = "expected a finite decimal"
        raise ValueError(msg)
    return number


def _as_time(value: object, _type: type) -> datetime:
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    number = _as_float(value, float)
    try:
        return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS else number, UTC)
    except (OverflowError, OSError) as error:
        msg = f"expected a time, got {number:g}"
        raise ValueError(msg) from error


def _as_picture(value: object, _type: object) -> str | None:
    if value is not None and not isinstance(value, str):
        msg = f"expected base64, got {type(value).__name__}"
        raise TypeError(msg)
    return value


def _from_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


SCALARS: Mapping[type, Callable[[object, type], object]] = {
    str: _as_text,
    bool: _as_bool,
    int: _as_int,
    float: _as_float,
    Decimal: _as_decimal,
    datetime: _as_time,
}
"""How one value is read: tolerant of numbers as text, and of text as numbers where that is an id."""


@cache
def converter() -> "cattrs.Converter":
    """
    The converter, built on first use and loaded with it; what reads and writes a kind of value, on the first of these.
    """
    import cattrs

    made = cattrs.Converter(detailed_validation=True, unstruct_collection_overrides={tuple: list})
    for scalar, hook in SCALARS.items():
        made.register_structure_hook(scalar, hook)
    made.register_structure_hook(bytes | str | None, _as_picture)
    made.register_unstructure_hook(bytes, _from_bytes)
    made.register_unstructure_hook(Decimal, str)
    made.register_unstructure_hook(datetime, datetime.isoformat)
    made.register_structure_hook(Marks, lambda value, _: _as_marks(value))
    made.register_unstructure_hook(Marks, _from_marks)
    made.register_structure_hook_func(lambda kind: kind == (Mapping[str, object] | None), lambda value, _: value)
    made.register_unstructure_hook_func(lambda kind: kind == frozenset[int], sorted)
    _tell_edits_apart(made)
    made.register_structure_hook_factory(VALUES.__contains__, partial(_reader, made))
    made.register_unstructure_hook_factory(VALUES.__contains__, partial(_writer, made))
    return made


def _reader(made: "cattrs.Converter", kind: type[T]) -> Callable[[Mapping[str, object], type[T]], T]:
    from cattrs.gen import make_dict_structure_fn

    return make_dict_structure_fn(kind, made, _cattrs_use_alias=True)


def _writer(made: "cattrs.Converter", kind: type) -> Plain:
    from cattrs.gen import make_dict_unstructure_fn, override

    left_out = {"raw": override(omit=True)} if "raw" in attrs.fields_dict(kind) else {}
    plain: Plain = make_dict_unstructure_fn(kind, made, _cattrs_use_alias=True, **left_out)  # type: ignore[arg-type]
    mode = getattr(kind, "edit_mode", None)
    return partial(_with_mode, mode, plain) if mode else plain


def _tell_edits_apart(made: "cattrs.Converter") -> None:
    """An edit says its mode, so that a job's can be told from the others."""
    kinds = {kind.edit_mode: kind for kind in get_args(Edits)}

    def structure(value: object, _: type[Edit]) -> Edit:
        kind = kinds.get(str(value.get("edit_mode"))) if isinstance(value, Mapping) else None
        if kind is None:
            msg = f"expected edit_mode to be one of {', '.join(kinds)}"
            raise ValueError(msg)
        edit: Edit = made.structure(value, kind)
        return edit

    made.register_structure_hook(Edits, structure)
    made.register_unstructure_hook(Edits, made.unstructure)


def _with_mode(mode: str, plain: Plain, edit: Edit) -> dict[str, object]:
    return {"edit_mode": mode, **plain(edit)}


def _as_marks(value: object) -> Marks:
    if not isinstance(value, Mapping):
        msg = f"expected points by frame, got {type(value).__name__}"
        raise TypeError(msg)
    kept = {int(frame): converter().structure(listed, tuple[Point, ...]) for frame, listed in value.items()}
    return Marks(kept)


def _from_marks(marks: Marks) -> dict[str, list[dict[str, float]]]:
    return {str(frame): [{"x": point.x, "y": point.y} for point in listed] for frame, listed in marks.items()}


def readable(kind: type[T], value: object) -> T | None:
    """
    A part that may be left out: None too where it cannot be read, for a new spelling must not lose the rest.

    Args:
        kind: `str`, `float`, `Decimal` or `datetime`.
        value: What came.
    """
    if value is None or value == "":
        return None
    if type(value) is kind and kind is not float:  # a float may be infinite
        return value
    try:
        return cast("T", SCALARS[kind](value, kind))
    except (TypeError, ValueError):
        return None


def structured(kind: type[T], data: object, *, what: str, at: Mapping[str, str]) -> T:
    """
    A model from plain types.

    Args:
        kind: The model.
        data: Its fields by our names.
        what: What the data is, for the error.
        at: Our field names to where they stand in the data, for the error.

    Raises:
        DecodeError: A field is missing or wrong; each is named with its place.
    """
    try:
        return converter().structure(data, kind)
    except ExceptionGroup as error:
        import cattrs

        found = cattrs.transform_error(error, format_exception=_problem)
        problems = [_placed(problem, at) for problem in found]
    # Out here, so that it does not carry as its context what it quotes in excerpts alone.
    raise DecodeError(f"{what} is not what it should be", problems=problems)


def _problem(error: BaseException, _kind: type | None) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    return excerpt(error)


def _placed(problem: str, at: Mapping[str, str]) -> str:
    said, _, path = problem.rpartition(" @ $")
    path = path.replace("._", ".")  # a field that is kept in another form than it is given in
    name = re.match(r"\.(\w+)", path)
    return f"{said} @ $.{at.get(name[1], name[1])}{path[name.end() :]}" if name else problem


def to_dict(value: object) -> dict[str, object]:
    """
    Any of our values as plain JSON types, floats exact; `raw` stays behind.

    Raises:
        InvalidInputError: It is none of our values; credentials are refused.
    """
    if isinstance(value, ApiKey | KeyPair):
        raise InvalidInputError("value", "is a secret: store the name of its environment variable instead")
    if not isinstance(value, VALUES):
        raise InvalidInputError("value", f"is no value of kling_async but a {type(value).__name__}")
    plain: dict[str, object] = converter().unstructure(value)
    return plain


def from_dict(kind: type[T], data: Mapping[str, object]) -> T:
    """
    A value from what `to_dict` made of it, here or in another version; unknown keys are ignored.

    Raises:
        InvalidInputError: The type is none of our values.
        DecodeError: A field is missing or wrong; each is named with its place.
    """
    if kind not in VALUES:
        raise InvalidInputError("type", f"{getattr(kind, '__name__', kind)} is no value of kling_async")
    given: object = data
    if not isinstance(given, Mapping):
        raise DecodeError(f"{kind.__name__} is made from a mapping, not from {type(given).__name__}")
    return structured(kind, data, what=kind.__name__, at={})


def init_body(video_url: str | None, video_id: str | None) -> dict[str, object]:
    """
    The body of init-selection: exactly one source, never a parent `task_id`.

    Raises:
        InvalidInputError: Not exactly one of them is given.
    """
    if (video_url is None or video_url == "") == (video_id is None or video_id == ""):
        raise InvalidInputError("video_url and video_id", "give exactly one of them")
    if video_url:
        warn_of_clip(video_url)
        return {"video_url": video_url}
    return {"video_id": check_id("video_id", video_id)}


def points_body(session_id: str, frame_index: int, marked: tuple[Point, ...]) -> dict[str, object]:
    """
    The body of add-selection and delete-selection.

    Raises:
        InvalidInputError: The session id, the frame index or the number of points is wrong.
    """
    return {
        "session_id": check_id("session_id", session_id),
        "frame_index": check_frame_index(frame_index),
        "points": [{"x": point.x, "y": point.y} for point in check_points(marked)],
    }


def session_body(session_id: str) -> dict[str, object]:
    """
    The body of clear-selection and preview-selection.

    Raises:
        InvalidInputError: The session id is wrong.
    """
    return {"session_id": check_id("session_id", session_id)}


def create_body(session_id: str, edit: Edit, *, external_task_id: str, callback_url: str | None) -> dict[str, object]:
    """
    The body of the paid create: what is set, and nothing empty.

    `duration` is text, for the service refuses a number; pictures are objects; a removal has none.

    Raises:
        InvalidInputError: An id is wrong, or the edit is none of ours.
    """
    given: object = edit
    if not isinstance(given, edits.Addition | edits.Swap | edits.Removal):
        raise InvalidInputError("edit", f"must be an Addition, a Swap or a Removal, not {type(given).__name__}")
    body: dict[str, object] = {
        "session_id": check_id("session_id", session_id),
        "edit_mode": edit.edit_mode,
        "prompt": edit.prompt,
        "mode": edit.mode,
        "duration": str(edit.duration or 5),
        "external_task_id": check_external_task_id(external_task_id),
    }
    if edit.pictures:
        body["image_list"] = [{"image": picture.wire} for picture in edit.pictures]
    if edit.negative_prompt:
        body["negative_prompt"] = edit.negative_prompt
    if edit.watermark is not None:
        body["watermark_info"] = {"enabled": edit.watermark}
    if callback_url:
        body["callback_url"] = callback_url
    return {**body, **(edit.extra or {})}


def encode(body: Mapping[str, object]) -> bytes:
    """
    A body as bytes.

    Raises:
        InvalidInputError: It holds what JSON cannot say.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise InvalidInputError("json", f"cannot be sent as JSON: {error}") from error
