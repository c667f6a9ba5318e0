"""
What a delivery claims: a Hint out of bytes from anywhere, or an error.

Decides which JSON is strict enough and which of the two payloads it is. Takes ids and a status, nothing else.
Source of the payloads: https://kling.ai/document-api/api/get-started/callback
"""

import json
from collections.abc import Mapping, Sequence

import orjson
from attrs import frozen

from ._ids import check_id
from ._replies import deeper
from ._signatures import check_signature
from ._tasks import STATUSES
from .errors import InvalidInputError, WebhookError

__all__ = ("Hint",)

BODY_MOST = 256 * 1024
"""Bytes of a delivery."""
DEPTH_MOST = 20
"""Objects and arrays of a delivery inside each other."""
TEXT_MOST = 256
"""Characters of what is taken from a delivery."""


@frozen
class Hint:
    """
    What a delivery claims. Only its ids are used, to know where to look.

    Example:
        >>> Hint("8781", "order-17", "succeed").external_task_id
        'order-17'
    """

    task_id: str
    """The task."""
    external_task_id: str | None
    """The caller's own id of it, where the delivery told one."""
    status: str
    """Its status, in the words of `Task.status`; else as it came."""


def read_hint(body: bytes, headers: Mapping[str, str], valid: Sequence[bytes], *, now: float) -> Hint:
    """
    What a delivery claims, its signature checked before anything reads the body.

    Args:
        body: The bytes as they came.
        headers: With names in lower case.
        valid: The keys of which one must have signed it; none where deliveries are not signed.
        now: Unix time in seconds.

    Raises:
        SignatureError: It is not signed as it must be.
        WebhookError: It is too large, no strict JSON, or names no task.
    """
    if len(body) > BODY_MOST:
        raise WebhookError(f"the delivery has {len(body)} bytes, more than {BODY_MOST}")
    if valid:
        check_signature(body, headers, valid, now=now)
    told = _strict(body)
    if not {"task_id", "id"} & told.keys():
        told = _part(told, "data")  # an envelope, as gateways put around replies
    if "task_id" in told:
        task_id, status, external = told["task_id"], told.get("task_status"), _part(told, "task_info")
        external_task_id = external.get("external_task_id")
    else:
        task_id, status, external_task_id = told.get("id"), told.get("status"), told.get("external_id")
    found, word = _id("task_id", task_id), _text("status", status)
    if found is None or word is None:
        raise WebhookError("the delivery names no task, or not its status")
    return Hint(found, _id("external_task_id", external_task_id), STATUSES.get(word.lower(), word))


def _strict(body: bytes) -> Mapping[str, object]:
    """JSON that every reader reads alike: UTF-8, no NaN, no name twice, not too deep; an object."""
    try:
        whole: object = orjson.loads(body)
        if deeper(whole, DEPTH_MOST):
            raise WebhookError(f"the delivery is nested deeper than {DEPTH_MOST}")
        whole = json.loads(body.decode(), object_pairs_hook=_unique)
    except ValueError as error:
        raise WebhookError("the delivery is no JSON") from error
    if not isinstance(whole, dict):
        raise WebhookError("the delivery is no JSON object")
    return whole


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise WebhookError("the delivery has a name twice in one object")
    return found


def _part(data: Mapping[str, object], name: str) -> Mapping[str, object]:
    inner = data.get(name)
    return inner if isinstance(inner, dict) else {}


def _text(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > TEXT_MOST or not text.isprintable():
        raise WebhookError(f"the delivery's {name} is not what it should be")
    return text


def _id(name: str, value: object) -> str | None:
    text = _text(name, value)
    try:
        return text if text is None else check_id(name, text)
    except InvalidInputError as error:
        raise WebhookError(f"the delivery's {error}") from error
