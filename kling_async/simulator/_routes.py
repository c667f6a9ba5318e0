"""
Requests, taken apart: which call it is, for whom, with what.

Decides by method and path alone, from the client's own table of endpoints; the prefix `/kling` may be there or not.
A path of the table under a method that it does not have is no id either: no task is called `init-selection`.
Paths: https://klingai.com/document-api/api/video/multi-elements.md
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from attrs import field, frozen

from kling_async._endpoints import ADD, CLEAR, CREATE, DELETE, GET, INIT, LIST, PREVIEW
from kling_async.transport import Request

from ._shape import Shape
from ._shelf import MEDIA

CALLS = {
    name: (endpoint.method, endpoint.path)
    for name, endpoint in (
        ("init", INIT),
        ("add", ADD),
        ("delete", DELETE),
        ("clear", CLEAR),
        ("preview", PREVIEW),
        ("create", CREATE),
        ("get", GET),
        ("list", LIST),
    )
}
"""Method and path of the eight calls, by the names that the simulator has for them."""
DOCUMENT = "/openapi.json"
"""Where the simulator's own OpenAPI document is; no host has that."""

_GET = GET.path.removesuffix("{id}")
_ITEM = {GET.method: "get"}
_PATHS = {
    path: {method: name for name, (method, own) in CALLS.items() if own == path}
    for _, path in CALLS.values()
    if path != GET.path
}
RESERVED = tuple(path.removeprefix(_GET) for path in _PATHS if path.startswith(_GET))
"""What stands where a task's id would stand."""


@frozen(kw_only=True)
class Call:
    """
    A request as the machine reads it.
    """

    name: str | None
    """Which call: `init` to `list`, `media`, `openapi`, or None for none that exists."""
    method: str
    """In capitals."""
    path: str
    """As it came, prefix and all, without the query."""
    query: Mapping[str, str]
    """Of the URL."""
    item: str
    """The id at its end, or the name of a file."""
    body: object = field(repr=False)
    """What its JSON says; None where it is none."""
    key: str | None = field(repr=False)
    """What stands in the Authorization field; None where there is none."""
    range: str | None
    """What stands in the Range field."""
    if_range: str | None
    """What stands in the If-Range field."""
    origin: str
    """Scheme and host by which the caller knows the simulator."""
    allowed: tuple[str, ...]
    """The methods that its path has; empty where the path is no call's, or ends in what may be an id."""
    shape: Shape
    """The ways of the host, for this request."""

    @classmethod
    def of(cls, request: Request, origin: str, shape: Shape) -> "Call":
        """
        Take a request apart.
        """
        parts = urlsplit(request.url)
        calls, item = _target(parts.path)
        fields = {key.lower(): value for key, value in request.headers.items()}
        return cls(
            name=calls.get(request.method),
            method=request.method,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            item=item,
            body=_json(request.body),
            key=fields.get("authorization"),
            range=fields.get("range"),
            if_range=fields.get("if-range"),
            origin=origin,
            allowed=() if item else tuple(calls),
            shape=shape,
        )


def _target(path: str) -> tuple[Mapping[str, str], str]:
    """
    The calls of a path by method, and what stands at its end.
    """
    if path.startswith(MEDIA):
        return {"GET": "media", "HEAD": "media"}, path.removeprefix(MEDIA)
    path = path.removeprefix("/kling")
    if path == DOCUMENT:
        return {"GET": "openapi"}, ""
    # The older pages write create and list with a slash at the end.
    fixed = _PATHS.get(path.removesuffix("/") if path == _GET else path)
    if fixed:
        return fixed, ""
    item = path.removeprefix(_GET)
    return (_ITEM, unquote(item)) if item != path and "/" not in item else ({}, "")


def _json(body: bytes) -> object:
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed
