"""
How a file is handed out: whole, a part of it, or a refusal of the part.

Decides as web servers do: a single range of bytes is honoured, under If-Range only where the entity is still the same;
what cannot be understood is answered with the whole. Refuses to know where files come from and who may have them.
Source: https://www.rfc-editor.org/rfc/rfc9110#section-14
"""

import re
from hashlib import sha256

from kling_async.transport import Response

_RANGE = re.compile(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))")


def handed_out(body: bytes, kind: str, *, wanted: str | None = None, if_range: str | None = None) -> Response:
    """
    The answer to a GET.

    Args:
        body: The whole file.
        kind: Its media type.
        wanted: The Range field.
        if_range: The If-Range field.
    """
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"content-type": kind, "etag": etag, "accept-ranges": "bytes"}
    found = _RANGE.fullmatch(wanted or "")
    if found is None or if_range not in {None, etag}:
        return Response(200, headers, body)
    start, end = _bounds(found, len(body))
    if start >= end:
        return Response(416, headers | {"content-range": f"bytes */{len(body)}"})
    return Response(206, headers | {"content-range": f"bytes {start}-{end - 1}/{len(body)}"}, body[start:end])


def _bounds(found: "re.Match[str]", size: int) -> tuple[int, int]:
    """
    From the first byte on and up to, but not with, the second.
    """
    first, last, tail = found.groups()
    if tail is not None:
        return max(size - int(tail), 0), size
    return int(first), min(int(last) + 1, size) if last else size
