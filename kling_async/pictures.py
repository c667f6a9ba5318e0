"""
Reference pictures, judged by their own headers before they are sent.

Limits: https://klingai.com/document-api/api/video/multi-elements.md (image_list)
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

from ._urls import check_url
from .errors import InvalidInputError

__all__ = ("Image",)

BYTES_LIMIT = 10 * 1024 * 1024
SIDE_LEAST = 300
ASPECT_MOST = 2.5


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and offset of the payload of each segment up to the picture itself."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in {0x01, 0xFF} or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2
            continue
        yield marker, at + 4
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a PNG's IHDR or a JPEG's frame header; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(b"\xff\xd8"):
        for marker, at in _jpeg_segments(data):
            # SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share their range.
            if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and at + 5 <= len(data):
                height, width = struct.unpack(">HH", data[at + 1 : at + 5])
                return width, height
    return None


def _check_picture(data: bytes) -> None:
    if not data:
        raise InvalidInputError("image", "is empty")
    if len(data) > BYTES_LIMIT:
        raise InvalidInputError("image", f"has {len(data)} bytes, more than 10 MB: scale it down or give a URL")
    size = _size(data)
    if size is None:
        raise InvalidInputError("image", "is neither a JPEG nor a PNG, the only kinds that the service takes")
    width, height = size
    if min(size) < SIDE_LEAST:
        raise InvalidInputError("image", f"is {width} x {height}; both sides must have {SIDE_LEAST} pixels or more")
    if max(size) > ASPECT_MOST * min(size):
        raise InvalidInputError("image", f"is {width} x {height}; its sides may differ by a factor of {ASPECT_MOST}")


@frozen
class Image:
    """
    A reference picture: JPEG or PNG, at most 10 MB, sides of 300 px and more, 1:2.5 to 2.5:1.

    The service does not crop: give the object already cut out.

    Example:
        >>> Image.from_url("https://example.com/hat.png")
        Image(https://example.com/hat.png)
    """

    wire: str = field(repr=False)
    """What goes into the request: a URL, or base64 without any prefix."""

    @wire.validator
    def _check(self, _attribute: object, value: object) -> None:
        if isinstance(value, str) and value.startswith(("http:", "https:")):
            check_url("image", value, local=True)
            return
        if not isinstance(value, str) or value.startswith("data:"):
            raise InvalidInputError("image", "use Image.from_url, Image.from_file or Image.from_bytes")
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            reason = "is neither an https URL nor base64; for a file use Image.from_file"
            raise InvalidInputError("image", reason) from error
        _check_picture(data)

    def __repr__(self) -> str:
        if self.is_url:
            return f"Image({self.wire.partition('?')[0]})"
        length = len(self.wire) * 3 // 4 - self.wire.count("=")
        return f"Image({length} bytes, sha256 {self.digest[:12]})"

    @property
    def is_url(self) -> bool:
        """Whether it is a URL rather than the bytes themselves."""
        return self.wire.startswith(("http:", "https:"))

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, or of the URL without its query, in hexadecimal."""
        data = self.wire.partition("?")[0].encode() if self.is_url else base64.b64decode(self.wire)
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def from_url(cls, url: str) -> "Image":
        """
        A picture that the service fetches.

        Raises:
            InvalidInputError: It is no http(s) URL, or holds credentials.
        """
        return cls(check_url("image", url, local=True))

    @classmethod
    def from_file(cls, path: str | Path) -> "Image":
        """
        A picture from a file, sent as base64. Large ones are better given by URL: gateways refuse large bodies.

        Raises:
            InvalidInputError: The file cannot be read, or is no picture that the service takes.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InvalidInputError("image", f"{path} cannot be read: {error.strerror}") from error
        return cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Image":
        """
        A picture from its bytes, sent as base64.

        Raises:
            InvalidInputError: It is no picture that the service takes.
        """
        given: object = data
        if not isinstance(given, bytes | bytearray):
            raise InvalidInputError("image", f"must be bytes, not {type(given).__name__}")
        return cls(base64.b64encode(data).decode())
