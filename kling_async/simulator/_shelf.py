"""
The files that a simulator hosts: published clips, results, previews; and how long they and their links live.

Decides names, and which URLs are its own. Files are kept as they are given: bytes, a path, or how to make them.
Results are cleared after 30 days; how long a link lives before that, and what the answer then is but a 403 of some
content network, is published nowhere: https://klingai.com/document-api/api/video/multi-elements.md
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from math import inf
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from attrs import define, field, frozen

from kling_async.errors import InvalidInputError

from ._scenes import Content, Footage

ORIGIN = "https://simulator.invalid"
"""Where a simulator lives that nobody serves; RFC 2606 keeps the name from ever meaning anything else."""
MEDIA = "/media/"
"""Where files are, below the origin."""
KEPT = 30 * 24 * 3600.0
"""Seconds for which a result is kept, and can be edited again."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_KINDS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".json": "application/json",
}


def kind_of(name: str) -> str:
    """
    The media type that a name's ending stands for.
    """
    return _KINDS.get(Path(name).suffix.lower(), "application/octet-stream")


def fit(name: str) -> str:
    """
    A file's name with what cannot stand in a URL replaced.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".")[-100:]


def contents(content: Content) -> bytes:
    """
    The bytes themselves.
    """
    if isinstance(content, bytes):
        return content
    return content.read_bytes() if isinstance(content, Path) else content()


@frozen
class File:
    """
    A file that is hosted.
    """

    content: Content = field(repr=False)
    """What is in it."""
    footage: Footage | None = None
    """What is known of it."""
    until: float = inf
    """When it is cleared, on the simulator's clock."""


@frozen
class Link:
    """
    What one of our own URLs says.
    """

    name: str
    """Of which file; whether there is one is not said."""
    query: Mapping[str, str]
    """Until when, signed, where links end."""


@define(kw_only=True)
class Shelf:
    """
    Files by name.
    """

    link_seconds: float | None = None
    """How long a link lives from the moment it is given; None for as long as its file."""
    origins: set[str] = field(init=False, factory=lambda: {ORIGIN})
    """Scheme and host of every address that the simulator goes by."""
    published: int = field(init=False, default=0)
    """How many files users put up."""
    _files: dict[str, File] = field(init=False, factory=dict)

    def publish(self, name: str, content: bytes | Path, footage: Footage | None) -> None:
        """
        Put up a user's file.

        Raises:
            InvalidInputError: The name cannot stand in a URL or is taken, or there is no such file.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError("name", f"must be up to 100 of A-Z a-z 0-9 . _ -, not {name!r:.120}")
        if name in self._files:
            raise InvalidInputError("name", f"{name!r} is published already: choose another")
        if isinstance(content, Path) and not content.is_file():
            raise InvalidInputError("source", f"{content} is no file")
        self.put(name, File(content, footage))
        self.published += 1

    def put(self, name: str, file: File) -> None:
        """
        Put up a file, or another in its place.
        """
        self._files[name] = file

    def url(self, origin: str, name: str, now: float) -> str:
        """
        Where a file is found; given again later, the link lives longer.
        """
        plain = f"{origin}{MEDIA}{name}"
        if self.link_seconds is None:
            return plain
        until = repr(now + self.link_seconds)
        return f"{plain}?{urlencode({'until': until, 'sign': _sign(name, until)})}"

    def link(self, url: str) -> Link | None:
        """
        One of our own URLs, read; None for a stranger's.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        if f"{parts.scheme}://{parts.netloc}" not in self.origins or not parts.path.startswith(MEDIA):
            return None
        return Link(parts.path.removeprefix(MEDIA), dict(parse_qsl(parts.query)))

    def find(self, name: str) -> File | None:
        """
        A file, cleared or not.
        """
        return self._files.get(name)

    def dead(self, file: File, link: Link, now: float) -> bool:
        """
        Whether a link leads nowhere any more: its file is cleared, or its own life is over, or it was tampered with.
        """
        if self.link_seconds is None or now >= file.until:
            return now >= file.until
        until = link.query.get("until", "")
        return link.query.get("sign") != _sign(link.name, until) or now >= float(until)

    def reach(self, link: Link, now: float) -> File | None:
        """
        What a link leads to; None where that is nowhere.
        """
        file = self.find(link.name)
        return None if file is None or self.dead(file, link, now) else file


def _sign(name: str, until: str) -> str:
    return sha256(f"{name} {until}".encode()).hexdigest()[:16]
