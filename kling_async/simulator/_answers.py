"""
Replies as bytes: Kling's codes with their HTTP status, and a task in each envelope that hosts were seen to use.

Decides how an answer is written down. Which answer it is, is decided elsewhere.
Codes: https://kling.ai/document-api/api/get-started/error-codes; envelopes: https://github.com/QuantumNous/new-api
(`dto/task.go`) and https://apidoc.cometapi.com/api/video/kling/omni-query
"""

import json
from collections.abc import Iterable, Mapping

import orjson
from attrs import frozen

from kling_async.models import FAILED, PROCESSING, SUBMITTED, SUCCEED
from kling_async.transport import Response

from ._shape import EPOCH, Shape

REFUSALS: Mapping[int, tuple[int, str]] = {
    1000: (401, "authentication failed"),
    1001: (401, "Authorization is empty"),
    1002: (401, "Authorization is invalid"),
    1003: (401, "Authorization is not yet valid"),
    1004: (401, "Authorization has expired"),
    1100: (429, "account exception"),
    1101: (429, "account in arrears"),
    1102: (429, "Account balance not enough"),
    1103: (403, "no permission for the requested resource"),
    1200: (400, "invalid request parameters"),
    1201: (400, "invalid parameters"),
    1202: (404, "the requested method is invalid"),
    1203: (404, "the requested resource does not exist"),
    1300: (400, "platform policy triggered"),
    1301: (400, "content security policy triggered"),
    1302: (429, "too many requests, over the platform rate limit"),
    1303: (429, "parallel task over resource pack limit"),
    1304: (429, "IP whitelist policy"),
    5000: (500, "internal error"),
    5001: (503, "temporarily unavailable"),
    5002: (504, "internal timeout"),
}
"""Each documented code with its HTTP status; messages of 1102 and 1303 as they were seen, the others in our words."""

_OUTER = {SUBMITTED: "SUBMITTED", PROCESSING: "IN_PROGRESS", SUCCEED: "SUCCESS", FAILED: "FAILURE"}
_PLAIN = {SUBMITTED: "queued", PROCESSING: "processing", SUCCEED: "succeeded", FAILED: "failed"}
_PROGRESS = {SUBMITTED: "0%", PROCESSING: "50%", SUCCEED: "100%", FAILED: "100%"}


class RefusalError(Exception):
    """
    The API says no, in its own words. It never leaves the simulator but as a reply.
    """

    def __init__(self, code: int, message: str = "", *, allowed: Iterable[str] = ()) -> None:
        super().__init__(message or REFUSALS[code][1])
        self.code = code
        """Kling's code; it decides the HTTP status."""
        self.allowed = tuple(allowed)
        """Where the path exists and the method does not: those that do."""


@frozen(kw_only=True)
class View:
    """
    A task as it stands when looked at.
    """

    task_id: str
    """Of the service."""
    external_task_id: str | None
    """Of the caller."""
    session_id: str
    """The selection that it was made from."""
    status: str
    """In Kling's words."""
    reason: str | None
    """Why it failed."""
    created_at: float
    """On the simulator's clock."""
    updated_at: float
    """On the simulator's clock."""
    units: str | None
    """What it cost; None while that is open."""
    watermark: bool | None
    """Whether a watermarked copy was asked for; None where nothing was said."""
    video_id: str
    """Of the result."""
    url: str | None
    """Where the result is; None while there is none."""
    seconds: float = 0.0
    """How long the result is."""


def reply(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """
    A reply in JSON.
    """
    return Response(status, {"content-type": "application/json", **(headers or {})}, orjson.dumps(body))


def accepted(shape: Shape, request_id: str, data: object = None) -> Response:
    """
    A success in Kling's envelope; None is no data.
    """
    return reply(200, _kling(shape, request_id, data))


def _kling(shape: Shape, request_id: str, data: object) -> dict[str, object]:
    body: dict[str, object] = {"code": shape.code, "message": shape.message, "request_id": request_id}
    return body if data is None else body | {"data": data}


def refused(
    code: int, message: str, request_id: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """
    A refusal in Kling's envelope, with the documented HTTP status unless another is given.
    """
    usual, words = REFUSALS.get(code, (400, "refused"))
    return reply(status or usual, {"code": code, "message": message or words, "request_id": request_id}, headers)


def refusal(shape: Shape, request_id: str, error: RefusalError) -> Response:
    """
    A refusal in the words of the host.
    """
    if error.allowed:
        # Documented is 404; RFC 9110 asks for 405 where the path exists, and for this field.
        return refused(error.code, str(error), request_id, status=405, headers={"allow": ", ".join(error.allowed)})
    match shape.refusal:
        case "hidden":
            return refused(error.code, str(error), request_id, status=200)
        case "gateway":
            return gateway(REFUSALS[error.code][0], "", str(error), request_id)
        case "nested":
            return nested(error.code, str(error), request_id)
        case _:
            return refused(error.code, str(error), request_id)


def nested(code: int, message: str, request_id: str, *, status: int | None = None, depth: int = 1) -> Response:
    """
    A refusal as text in a gateway's message, encoded once or oftener.

    Seen at https://github.com/QuantumNous/new-api (`service/error.go`).
    """
    usual, words = REFUSALS.get(code, (400, "refused"))
    text = json.dumps({"code": code, "message": message or words, "request_id": request_id})
    for _ in range(depth - 1):
        text = json.dumps(text)
    return reply(status or usual, {"code": "fail_to_fetch_task", "message": text, "data": None})


def gateway(status: int, word: str, message: str, request_id: str) -> Response:
    """
    A gateway's own refusal, as at https://apidoc.cometapi.com/errors/error-codes-handling.
    """
    said = f"{message} (request id: {request_id})"
    return reply(status, {"error": {"message": said, "type": "comet_api_error", "param": "", "code": word}})


def wrong_path(status: int = 404) -> Response:
    """
    What a gateway answers to a path that it does not have.
    """
    error = {"message": "Invalid URL", "type": "invalid_request_error", "param": "", "code": ""}
    return reply(status, {"error": error})


def no_task(shape: Shape, request_id: str, message: str = "", *, word: str | None = None) -> Response:
    """
    That a task does not exist: in the host's words, or in a gateway's.
    """
    if word is None and shape.envelope == "raw":
        return refusal(shape, request_id, RefusalError(1203, message))
    known = word or "task_not_exist"
    return reply(400, {"code": known, "message": known, "data": None})


def created(shape: Shape, request_id: str, view: View) -> Response:
    """
    The answer to a create. Gateways that wrap a query were seen to answer a create unwrapped.
    """
    if shape.envelope == "flat":
        return _flat(view)
    if shape.envelope == "openai":
        body = {"id": view.task_id, "task_id": view.task_id, "object": "video", "model": "kling-v1-6"}
        return reply(200, body | {"status": "queued", "progress": 0, "created_at": int(EPOCH + view.created_at)})
    kept = ("task_id", "task_status", "task_info", "created_at", "updated_at")
    whole = task(shape, view)
    return accepted(shape, request_id, {name: whole[name] for name in kept if name in whole})


def looked(shape: Shape, request_id: str, view: View) -> Response:
    """
    The answer to a query for one task.
    """
    data = task(shape, view)
    if shape.envelope == "raw":
        return accepted(shape, request_id, data)
    if shape.envelope == "flat":
        return _flat(view)
    if shape.envelope == "openai":
        return reply(200, _bare(view))
    inner = _kling(shape, request_id, data) if shape.envelope == "wrapped1" else data
    times = {
        "submit_time": int(EPOCH + view.created_at),
        "start_time": 0 if view.status == SUBMITTED else int(EPOCH + view.updated_at),
        "finish_time": int(EPOCH + view.updated_at) if view.status in {SUCCEED, FAILED} else 0,
    }
    outer = {
        "task_id": view.task_id,
        "status": _OUTER[view.status],
        "progress": _PROGRESS[view.status],
        "action": "MULTI_ELEMENTS",
        "fail_reason": view.reason or "",
        **times,
        "data": inner,
    }
    return reply(200, {"code": "success", "message": "", "data": outer})


def _flat(view: View) -> Response:
    return reply(200, {"code": "success", "message": "", "data": _bare(view)})


def _bare(view: View) -> dict[str, object]:
    return {
        "task_id": view.task_id,
        "status": _PLAIN[view.status],
        "url": view.url or "",
        "format": "mp4",
        "metadata": None,
        "error": {"message": view.reason, "code": "task_failed"} if view.reason else None,
    }


def task(shape: Shape, view: View) -> dict[str, object]:
    """
    A task in Kling's own words.

    Source: https://klingai.com/document-api/api/video/multi-elements.md (query task)
    """
    dropped = shape.external_ids == "dropped" or view.external_task_id is None
    data: dict[str, object] = {"task_id": view.task_id, "task_status": view.status}
    if view.reason is not None:
        data["task_status_msg"] = view.reason
    data |= shape.part("task_info", {} if dropped else {"external_task_id": view.external_task_id})
    data |= shape.part("task_result", {} if view.url is None else {"videos": [_video(shape, view, view.url)]})
    if view.watermark is not None:
        data["watermark_info"] = {"enabled": view.watermark}
    if view.units is not None:
        data["final_unit_deduction"] = view.units
    return data | {"created_at": shape.moment(view.created_at), "updated_at": shape.moment(view.updated_at)}


def _video(shape: Shape, view: View, url: str) -> dict[str, object]:
    video: dict[str, object] = {"id": view.video_id, "session_id": view.session_id, "url": url}
    if view.watermark:
        video["watermark_url"] = f"{url}{'&' if '?' in url else '?'}watermark=1"
    return video | {"duration": shape.seconds(view.seconds)}
