"""
Requests, taken apart: which call it is, for whom, with what.

Decides by method and path alone, from the client's own table of endpoints; the prefix `/kling` may be there or not.
Paths: https://klingai.com/document-api/api/video/multi-elements.md
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from attrs import field, frozen

from kling_async._endpoints import ADD, CLEAR, CREATE, DELETE, GET, INIT, LIST, PREVIEW
from kling_async.transport import Request

_FIXED = {
    (endpoint.method, endpoint.path): name
    for name, endpoint in (
        ("init", INIT),
        ("add", ADD),
        ("delete", DELETE),
        ("clear", CLEAR),
        ("preview", PREVIEW),
        ("create", CREATE),
        ("list", LIST),
    )
}
_GET = GET.path.removesuffix("{id}")


@frozen(kw_only=True)
class Call:
    """
    A request as the machine reads it.
    """

    name: str | None
    """Which call: `init` to `list`, `media`, or None for none that exists."""
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
    origin: str
    """Scheme and host by which the caller knows the simulator."""

    @classmethod
    def of(cls, request: Request, origin: str) -> "Call":
        """
        Take a request apart.
        """
        parts = urlsplit(request.url)
        name, item = _target(request.method, parts.path)
        fields = {key.lower(): value for key, value in request.headers.items()}
        return cls(
            name=name,
            method=request.method,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            item=item,
            body=_json(request.body),
            key=fields.get("authorization"),
            origin=origin,
        )


def _target(method: str, path: str) -> tuple[str | None, str]:
    if path.startswith("/media/"):
        return ("media" if method in {"GET", "HEAD"} else None), path.removeprefix("/media/")
    path = path.removeprefix("/kling")
    # The older pages write create and list with a slash at the end.
    fixed = _FIXED.get((method, path)) or _FIXED.get((method, path.removesuffix("/") if path == _GET else path))
    if fixed:
        return fixed, ""
    item = path.removeprefix(_GET)
    if method == GET.method and item and item != path and "/" not in item:
        return "get", unquote(item)
    return None, ""


def _json(body: bytes) -> object:
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed
