"""
What may stand in a request: as strict as the documents, in the words that the real validator was heard to use.

Decides on one request alone, as functions over plain JSON; what depends on a session is decided where sessions are.
Unknown fields are ignored, and an empty string, like null, counts as absent: official samples send both. Every bound
is a constant here, for `_schemas.py` writes the same into the simulator's OpenAPI document.
Rules: https://klingai.com/document-api/api/video/multi-elements.md
"""

import base64
import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from kling_async.errors import InvalidInputError
from kling_async.pictures import Image

from ._answers import RefusalError
from ._scenes import Footage, Spot

POINTS_MOST = 10
FRAMES_MOST = 10
FRAME_INDEX_MOST = 2**31 - 1
"""An int by the documents; the clip's own number of frames is a matter of its session."""
TEXT_MOST = 2500
URL_MOST = 2048
SHORT = (2.0, 5.5)
LONG = (7.0, 10.5)
SIDES = (720, 2160)
RATES = (24, 30, 60)
PAGES = {"pageNum": (1, 1000, 1), "pageSize": (1, 500, 30)}
PICTURES = {"addition": (1, 2), "swap": (1, 1), "removal": (0, 0)}
"""How many pictures each edit takes."""
MODELS = ("kling-v1-6",)
MODES = ("std", "pro")
DURATIONS = ("5", "10")

_HTTP = r"[Hh][Tt][Tt][Pp][Ss]?:"
_ENDINGS = ("avi", "flv", "gif", "m3u8", "m4v", "mkv", "mpeg", "mpg", "ogv", "webm", "wmv")
_FOREIGN = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in ending) for ending in _ENDINGS)
URL = rf"{_HTTP}//(?:\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/?#@:\[\]\\]+)(?::[0-9]{{0,5}})?(?:[/?#][^\x00-\x20\x7f]*)?"
"""A web address without user, spaces and control characters, in a dialect that every JSON schema reads."""
FOREIGN = rf"{_HTTP}//[^/?#]*/[^?#]*\.(?:{_FOREIGN})(?:[?#]|$)"
"""How an address begins, in that dialect, whose path leads to no MP4 or MOV."""
BASE64 = r"(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=|[0-9A-Za-z+/]{4})"
"""Padded, without line breaks and without a prefix; for short texts, as it takes 30 bytes for each that it reads."""
_BASE64_LIKE = r"[0-9A-Za-z+/]+={0,2}"

_NOT_BASE64 = "File is not in a valid base64 format"

JSONObject = Mapping[str, object]


def bad(name: str, value: object) -> RefusalError:
    """
    A parameter with a value that cannot be.
    """
    return RefusalError(1201, f"{name} value '{value!s:.60}' is invalid")


def absent(name: str) -> RefusalError:
    """
    A parameter that has to be there.
    """
    return RefusalError(1201, f"{name} can not be null")


def as_object(body: object) -> JSONObject:
    """
    The body, which must be an object.

    Raises:
        RefusalError: It is not.
    """
    if not isinstance(body, dict):
        raise RefusalError(1200, "the body must be a JSON object")
    return body


def _text(body: JSONObject, name: str, *, limit: int | None = None) -> str | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise bad(name, value)
    if limit is not None and len(value) > limit:
        raise RefusalError(1201, f"{name} length {len(value)} is over {limit}")
    return value


def _needed(body: JSONObject, name: str, *, limit: int | None = None) -> str:
    value = _text(body, name, limit=limit)
    if value is None:
        raise absent(name)
    return value


def _chosen(body: JSONObject, name: str, allowed: tuple[str, ...]) -> str:
    """
    One of these, by default the first.
    """
    value = _text(body, name)
    if value is not None and value not in allowed:
        raise bad(name, value)
    return value or allowed[0]


def _url(name: str, value: str) -> str:
    if len(value) > URL_MOST or not re.fullmatch(URL, value):
        raise bad(name, value)
    return value


def session(body: JSONObject) -> str:
    """
    The session's id.

    Raises:
        RefusalError: It is missing, or no text.
    """
    return _needed(body, "session_id")


def opening(body: JSONObject) -> tuple[str | None, str | None]:
    """
    The video's id or its URL, of which there is exactly one.

    Raises:
        RefusalError: There are both or none, or the URL is none, or leads to something that is no MP4 or MOV.
    """
    video_id, video_url = _text(body, "video_id"), _text(body, "video_url")
    if (video_id is None) == (video_url is None):
        raise RefusalError(1201, "video_id and video_url can not both be empty nor both have a value")
    if video_url is not None and re.match(FOREIGN, _url("video_url", video_url)):
        raise RefusalError(1201, "video_url: only MP4 and MOV are supported")
    return video_id, video_url


def check_footage(footage: Footage, *, by_id: bool) -> None:
    """
    Whether a clip may be edited at all. Of one named by its id only the length is limited.

    Kling's own products last 5.04 to 5.15 s, so the older limit of 5.5 s (10.5 s) is kept; a rate such as 29.97
    counts as 30.

    Raises:
        RefusalError: It may not.
    """
    if not any(least <= footage.seconds <= most for least, most in (SHORT, LONG)):
        raise RefusalError(1201, f"video duration {footage.seconds:g}s is invalid: 2 to 5.5 or 7 to 10.5 s")
    if by_id:
        return
    if not all(SIDES[0] <= side <= SIDES[1] for side in (footage.width, footage.height)):
        raise RefusalError(1201, f"video size {footage.width}x{footage.height} is invalid: 720 to 2160 px a side")
    if all(abs(footage.fps - rate) > 0.1 for rate in RATES):
        raise RefusalError(1201, f"video fps {footage.fps:g} is invalid: 24, 30 or 60")


@frozen(kw_only=True)
class Marking:
    """
    Points to add or to delete.
    """

    session_id: str
    """Whose."""
    frame_index: int
    """On which frame."""
    spots: tuple[Spot, ...]
    """Which."""


def marking(body: JSONObject) -> Marking:
    """
    What add-selection and delete-selection take.

    Raises:
        RefusalError: Something in it is missing or wrong.
    """
    session_id, frame, points = session(body), _frame_index(body.get("frame_index")), body.get("points")
    if points is None or points == []:
        raise absent("points")
    if not isinstance(points, list):
        raise bad("points", points)
    if len(points) > POINTS_MOST:
        raise RefusalError(1201, f"points: {len(points)} on frame {frame}, at most {POINTS_MOST}")
    return Marking(session_id=session_id, frame_index=frame, spots=tuple(map(_spot, points)))


def _frame_index(value: object) -> int:
    if value is None:
        raise absent("frame_index")
    # JSON has one kind of number, so 1.0 is whole: https://json-schema.org/draft/2020-12/json-schema-core (4.2.3)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad("frame_index", value)
    if not 0 <= value <= FRAME_INDEX_MOST or value != int(value):
        raise bad("frame_index", value)
    return int(value)


def _spot(point: object) -> Spot:
    if not isinstance(point, dict):
        raise bad("points", point)
    return _fraction(point, "x"), _fraction(point, "y")


def _fraction(point: JSONObject, name: str) -> float:
    value = point.get(name)
    if value is None:
        raise absent(f"points.{name}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise bad(f"points.{name}", value)
    return float(value)


@frozen(kw_only=True)
class Creation:
    """
    A task that is asked for.
    """

    session_id: str
    """From which selection."""
    edit_mode: str
    """`addition`, `swap` or `removal`."""
    images: tuple[str, ...] = field(repr=False)
    """Each a URL or base64."""
    mode: str
    """`std` or `pro`."""
    seconds: int
    """5 or 10."""
    watermark: bool | None
    """Whether a watermarked copy is wanted."""
    external_task_id: str | None
    """The caller's id."""

    @property
    def units(self) -> str:
        """
        What it costs, as third parties published it in 2025; the official pages name no prices.
        """
        return {("std", 5): "3", ("std", 10): "6", ("pro", 5): "5", ("pro", 10): "10"}[self.mode, self.seconds]


def creation(body: JSONObject) -> Creation:
    """
    What create takes.

    Raises:
        RefusalError: Something in it is missing or wrong.
    """
    session_id = session(body)
    model = _text(body, "model_name")
    if model is not None and model not in MODELS:
        raise RefusalError(1203, f"model_name value '{model!s:.60}' does not exist")
    edit_mode = _needed(body, "edit_mode")
    if edit_mode not in PICTURES:
        raise bad("edit_mode", edit_mode)
    _needed(body, "prompt", limit=TEXT_MOST)
    _text(body, "negative_prompt", limit=TEXT_MOST)
    callback_url = _text(body, "callback_url")
    if callback_url is not None:
        _url("callback_url", callback_url)
    return Creation(
        session_id=session_id,
        edit_mode=edit_mode,
        images=_images(body, edit_mode),
        mode=_chosen(body, "mode", MODES),
        seconds=int(_chosen(body, "duration", DURATIONS)),
        watermark=_watermark(body),
        external_task_id=_text(body, "external_task_id"),
    )


def _images(body: JSONObject, edit_mode: str) -> tuple[str, ...]:
    listed = body.get("image_list")
    if listed is None or listed == "":
        listed = []
    if not isinstance(listed, list):
        raise bad("image_list", listed)
    least, most = PICTURES[edit_mode]
    if len(listed) < least:
        raise absent("image")
    if len(listed) > most:
        raise RefusalError(1201, f"image_list: {len(listed)} for {edit_mode}, at most {most}")
    return tuple(map(_image, listed))


def _image(item: object) -> str:
    if not isinstance(item, dict):
        raise bad("image_list", item)
    value = _needed(item, "image")
    if is_url(value):
        return _url("image", value)
    if len(value) % 4 or not re.fullmatch(_BASE64_LIKE, value):
        raise RefusalError(1201, _NOT_BASE64)
    return value


def is_url(image: str) -> bool:
    """
    Whether a picture is an address rather than the picture itself; base64 has no colon.
    """
    return re.match(_HTTP, image) is not None


def check_pictures(images: Iterable[str]) -> None:
    """
    Whether pictures that came as base64 have the documented kind and size. Those at addresses are not fetched here.

    Raises:
        RefusalError: One has not.
    """
    for image in images:
        if not is_url(image):
            try:
                Image.from_bytes(base64.b64decode(image))
            except InvalidInputError as error:
                raise RefusalError(1201, f"image {error.reason}") from error


def _watermark(body: JSONObject) -> bool | None:
    info = body.get("watermark_info")
    if info is None:
        return None
    enabled = info.get("enabled") if isinstance(info, dict) else info
    if not isinstance(info, dict) or not isinstance(enabled, bool | None):
        raise bad("watermark_info.enabled", enabled)
    return enabled


def page(query: Mapping[str, str]) -> tuple[int, int]:
    """
    Which page of the list, and how long pages are.

    Raises:
        RefusalError: A number is none, or out of range.
    """
    numbers = []
    for name, (least, most, usual) in PAGES.items():
        text = query.get(name, str(usual))
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise bad(name, text)
        numbers.append(int(text))
    return numbers[0], numbers[1]
