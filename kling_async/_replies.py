"""
Replies of any known shape to a model or a raised error.

The same host may answer raw (Kling's envelope), wrapped once or twice, flat, or like OpenAI, so the shape
is told from each reply. A reply can fail on four levels: HTTP status, `code`, `data.status` of a
selection, and a task's own status, which is not an error here but a part of the Task.
Shapes: https://klingai.com/document-api/api/video/multi-elements.md,
https://apidoc.cometapi.com/api/video/kling/individual-queries and https://apidoc.cometapi.com/errors/error-codes-handling
"""

import re
from typing import NoReturn, TypeVar, cast

import orjson

from ._codec import finite, readable, structured
from ._endpoints import Endpoint, Replay
from ._refusals import error_class, excerpt
from ._tasks import PARTS_MOST, JSONObject, objects, part, plain_task, read_task
from .errors import AuthenticationError, DecodeError, NotFoundError, SelectionRejectedError
from .masks import Mask, encode_runs
from .models import SUBMITTED, Marked, Preview, SelectionInfo, Task
from .transport import Response

T = TypeVar("T")

OK_WORDS = frozenset({"success", "succeed", "ok", ""})
WORD = 64
"""Characters of a gateway's code, and of a request's id, that are kept."""

UNSEEN = "the service recognised no object there: mark other points"
UNUSABLE = "the service cannot use this clip: check its length, size and frame rate"
UNCLEARED = "the service did not clear the selection: try again, or open another"
"""What a `data.status` other than 0 means; its values are documented nowhere."""

DEPTH_MOST = 100
"""Objects and arrays of a reply inside each other; known ones have seven. Python shows and pickles no thousand."""
LONG = 4096
"""Bytes of a reply that is no single task."""
TASKS_MOST = 10_000
"""Tasks of a page; 500 are asked for at most, which a gateway may not heed."""

_NESTED = 3
_ENVELOPE = {"code", "message", "request_id", "data"}
"""Kling's own, in which the code alone tells how it went."""
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_REQUEST_ID = "x-oneapi-request-id"


def read(endpoint: Endpoint[T], response: Response, *, about: str | None = None) -> T:
    """
    What an endpoint's reply says.

    Args:
        endpoint: Whose reply it is.
        response: The reply.
        about: A hint for an error of authentication: host and variable.

    Raises:
        APIError: The service refused; the class comes from code, word or HTTP status.
        SelectionRejectedError: A selection call was answered with a `data.status` that is not 0.
        DecodeError: The reply is not what the endpoint promises.
    """
    whole, data = unwrap(response, about=about)
    if endpoint.result is Task and (plain := plain_task(data, whole)):
        return plain  # type: ignore[return-value]
    if endpoint.result is type(None):
        _check_recognised(data, whole, UNCLEARED)
        return None
    if endpoint.result is tuple:
        return cast("T", tuple(read_task(item, whole, f"data[{index}]") for index, item in enumerate(_listed(data))))
    if data is None and endpoint.method == "GET":
        # Some gateways answer so for a task that they do not know.
        raise NotFoundError("the reply holds no task", status=response.status)
    if not isinstance(data, dict):
        if endpoint.result in {Marked, Preview} and data is None:
            data = {}  # CometAPI documents that data may be absent here
        else:
            raise DecodeError("the reply holds no data", problems=("expected an object @ $.data",))
    if endpoint.result is Task:
        # A create that was accepted is submitted, whether the reply says so or not.
        accepted = SUBMITTED if endpoint.replay is Replay.KEYED else None
        return cast("T", read_task(data, whole, "data", accepted))
    _check_recognised(data, whole, UNUSABLE if endpoint.result is SelectionInfo else UNSEEN)
    if endpoint.result is Marked and (marked := _plain_marked(data, whole)):
        return cast("T", marked)
    fields, at = {SelectionInfo: _info, Marked: _marked, Preview: _preview}[endpoint.result](data)
    return structured(endpoint.result, fields | {"raw": whole}, what=f"the reply to {endpoint.path}", at=at)


def unwrap(response: Response, *, about: str | None = None) -> tuple[JSONObject, object]:
    """
    The whole reply and its `data`.

    Raises:
        APIError: The service refused.
        DecodeError: It is a redirect, or no JSON object although the service accepted.
    """
    whole = _parsed(response)
    if response.status < 400 and whole.keys() == _ENVELOPE and whole["code"] == 0:
        return whole, whole["data"]
    code, message = _verdict(whole, response.status)
    if response.status < 400 and code is None:
        return whole, whole.get("data") if "code" in whole or "data" in whole else whole
    request_id = whole.get("request_id") or response.headers.get(_REQUEST_ID)
    kind = error_class(code, response.status)
    raise kind(
        excerpt(message) or "no reason given",
        code=code,
        status=response.status,
        request_id=excerpt(request_id, WORD) if request_id else None,
        retry_after=retry_after(response),
        about=about if kind is AuthenticationError else None,
    )


def _parsed(response: Response) -> JSONObject:
    if 300 <= response.status < 400:
        raise DecodeError(f"HTTP {response.status}: redirects of API calls are refused", status=response.status)
    try:
        parsed: object = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        parsed = None
    # What has fewer brackets cannot be deeper; in a long text they take longer to count than to go through.
    body = response.body
    deep = len(body) > LONG or body.count(b"[") + body.count(b"{") > DEPTH_MOST
    if deep and deeper(parsed, DEPTH_MOST):
        if response.status < 400:
            text = f"HTTP {response.status} with a reply nested deeper than {DEPTH_MOST}"
            raise DecodeError(text, status=response.status)
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    if response.status < 400:
        _no_json(response)
    return {"message": excerpt(response.body.decode(errors="replace")) or f"HTTP {response.status}, empty body"}


def deeper(value: object, most: int) -> bool:
    """
    Whether objects and arrays stand inside each other more often than this, told without recursion.
    """
    layer = [value]
    for _ in range(most):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if type(inner) is dict or type(inner) is list
        ]
        if not layer:
            return False
    return True


def _no_json(response: Response) -> NoReturn:
    quoted = excerpt(response.body.decode(errors="replace"))
    message = f"HTTP {response.status} with {f'a body that is no JSON object: {quoted}' if quoted else 'an empty body'}"
    raise DecodeError(message, status=response.status)


def _verdict(whole: JSONObject, status: int) -> tuple[int | str | None, object]:
    """The code, None for success or where there is none, and the message that goes with it."""
    message = whole.get("message") or whole.get("msg") or ""
    error = whole.get("error")
    if isinstance(error, dict) and (status >= 400 or not {"data", "task_id"} & whole.keys()):
        return _code(error.get("code")) or error_type(error), error.get("message") or message
    if isinstance(error, str) and error and "task_id" not in whole:
        return _code(whole.get("code")) or "error", error
    code = _code(whole.get("code"))
    if code is None and whole.get("success") is False:
        code = "error"
    if isinstance(code, str) or status >= 400:
        code, message = _inner(code, message)
    return code, message


def error_type(error: JSONObject) -> str:
    """A gateway's word for an error without a code."""
    return excerpt(error.get("type") or "error", WORD)


def _code(value: object) -> int | str | None:
    """A code as a number where it is one; None for success."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in OK_WORDS:
            return None
        return (int(text) or None) if _NUMBER.fullmatch(text) else excerpt(text, WORD)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) or None
    return None


def _inner(code: int | str | None, message: object) -> tuple[int | str | None, object]:
    """Kling's own code and message, where a gateway put its body into `message` as text, even twice over."""
    for _ in range(_NESTED):
        if not isinstance(message, str) or not message.lstrip().startswith(("{", '"')):
            break
        try:
            nested: object = orjson.loads(message)
        except orjson.JSONDecodeError:
            break
        if deeper(nested, DEPTH_MOST):
            break
        if isinstance(nested, dict):
            nested = part(nested, "error") or nested
            code = _code(nested.get("code")) or code
            nested = nested.get("message") or message
            if nested is message:
                break
        message = nested
    return code, message


def retry_after(response: Response) -> float | None:
    """
    Seconds that the service asked to wait. It may send a number or a date; documented is neither.
    """
    from email.utils import parsedate_to_datetime

    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        sent = parsedate_to_datetime(response.headers.get("date", ""))
        return max(0.0, (parsedate_to_datetime(text) - sent).total_seconds())
    except (OverflowError, TypeError, ValueError):
        return None


def _check_recognised(data: object, whole: JSONObject, meaning: str) -> None:
    status = data.get("status") if isinstance(data, dict) else None
    if status in (None, 0, "0", ""):  # a tuple, for a set would hash what came
        return
    request_id = whole.get("request_id")
    raise SelectionRejectedError(
        f"{meaning} (data.status {excerpt(status)})",
        selection_status=status if isinstance(status, int) else excerpt(status),
        request_id=excerpt(request_id, WORD) if request_id else None,
    )


def _present(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _info(data: JSONObject) -> tuple[dict[str, object], dict[str, str]]:
    fields = {
        "session_id": data.get("session_id"),
        "fps": readable(float, data.get("fps")),
        "width": readable(int, data.get("width")),
        "height": readable(int, data.get("height")),
        "total_frames": readable(int, data.get("total_frame")),
        "duration": _seconds(data),
        "normalized_video_url": readable(str, data.get("normalized_video")),
    }
    return _present(fields), {"session_id": "data.session_id"}


def _seconds(data: JSONObject) -> float | None:
    """`original_duration` is milliseconds by the older page, seconds in some answers: frames and fps decide."""
    given, frames, fps = (finite(data.get(name)) for name in ("original_duration", "total_frame", "fps"))
    if not given:
        return frames / fps if frames and fps else None
    if frames and fps and abs(given - frames / fps) <= 0.2 * frames / fps:
        return given
    return given / 1000


def _plain_marked(data: JSONObject, whole: JSONObject) -> Marked | None:
    """Masks spelled as Kling documents them; None for any other, and for what is wrong with them."""
    result = data.get("res")
    listed = result.get("rle_mask_list") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(listed, list) or len(listed) > PARTS_MOST:
        return None
    frame_index, masks = result.get("frame_index"), [_plain_mask(item) for item in listed]
    known = tuple(mask for mask in masks if mask is not None)
    if type(frame_index) is not int or len(known) < len(masks):
        return None
    return Marked(frame_index=frame_index, masks=known, raw=whole)


def _plain_mask(item: object) -> Mask | None:
    rle = item.get("rle_mask") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(rle, dict):
        return None
    object_id, size, counts, png = item.get("object_id"), rle.get("size"), rle.get("counts"), item.get("png_mask")
    picture = png.get("base64") if isinstance(png, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not type(size[0]) is type(size[1]) is int:
        return None
    if type(object_id) is not int or type(counts) is not str or not isinstance(picture, str | None):
        return None
    try:
        return Mask(
            object_id=object_id, height=size[0], width=size[1], counts=counts, png=picture or None, size=tuple(size)
        )
    except DecodeError:
        return None


def _marked(data: JSONObject) -> tuple[dict[str, object], dict[str, str]]:
    result = part(data, "res")
    masks = [_mask(item) for item in objects(result.get("rle_mask_list"), "masks", PARTS_MOST)]
    fields = _present({"frame_index": result.get("frame_index")}) | {"masks": masks}
    return fields, {"frame_index": "data.res.frame_index", "masks": "data.res.rle_mask_list"}


def _mask(item: JSONObject) -> dict[str, object]:
    rle = part(item, "rle_mask")
    size, counts = rle.get("size"), rle.get("counts")
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        counts = encode_runs(counts)
    fields: dict[str, object] = {"object_id": item.get("object_id") or 0, "counts": counts}
    if isinstance(size, list) and len(size) == 2:
        fields |= {"height": size[0], "width": size[1], "size": size}
    return _present(fields | {"png": part(item, "png_mask").get("base64")})


def _preview(data: JSONObject) -> tuple[dict[str, object], dict[str, str]]:
    result = part(data, "res")
    names = {"video_url": "video", "cover_url": "video_cover", "tracking_url": "tracking_output"}
    fields = {ours: result.get(theirs) for ours, theirs in names.items()}
    return _present(fields), {ours: f"data.res.{theirs}" for ours, theirs in names.items()}


def _listed(data: object) -> list[JSONObject]:
    if isinstance(data, dict):
        data = data.get("tasks")
    if not isinstance(data, list):
        raise DecodeError("the reply holds no list of tasks", problems=("expected an array @ $.data",))
    return objects(data, "tasks", TASKS_MOST)
