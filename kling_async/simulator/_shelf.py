"""
The files that a simulator hosts: published clips, results, previews.

Decides names, and which URLs are its own. Files are kept as they are given: bytes, a path, or how to make them.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, field

from kling_async.errors import InvalidInputError

from ._scenes import Content, Footage

ORIGIN = "https://simulator.invalid"
"""Where a simulator lives that nobody serves; RFC 2606 keeps the name from ever meaning anything else."""

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


@define
class Shelf:
    """
    Files by name.
    """

    origins: set[str] = field(factory=lambda: {ORIGIN})
    """Scheme and host of every address that the simulator goes by."""
    published: int = field(init=False, default=0)
    """How many files users put up."""
    _files: dict[str, Content] = field(init=False, factory=dict)
    _footage: dict[str, Footage | None] = field(init=False, factory=dict)

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
        self.put(name, content, footage)
        self.published += 1

    def put(self, name: str, content: Content, footage: Footage | None = None) -> str:
        """
        Put up a file, or another in its place, and return its name.
        """
        self._files[name] = content
        self._footage[name] = footage
        return name

    def url(self, origin: str, name: str) -> str:
        """
        Where a file is found.
        """
        return f"{origin}/media/{name}"

    def name_of(self, url: str) -> str | None:
        """
        The name in one of our own URLs, whether there is such a file or not; None for a stranger's.
        """
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" not in self.origins or not parts.path.startswith("/media/"):
            return None
        return parts.path.removeprefix("/media/")

    def find(self, name: str) -> tuple[Content, Footage | None] | None:
        """
        A file, and what is known of it.
        """
        content = self._files.get(name)
        return None if content is None else (content, self._footage[name])
