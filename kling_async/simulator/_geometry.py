"""
Masks without extras: discs around points, as COCO runs and as PNG, in pure Python.

Decides which pixels a point covers. All arithmetic is in whole half-pixels, so that the runs (by columns) and the
picture (by rows) agree to the last pixel. Knows nothing of objects: real ones are `_eyes.py`'s.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from math import isqrt

from attrs import frozen

from ._scenes import Spot

SHARE = 0.08
"""A disc's radius as a share of the frame's shorter side."""

Span = tuple[int, int]


@frozen
class _Disc:
    """
    A disc in half-pixels: the centre of pixel n is 2n + 1.
    """

    across: int
    down: int
    radius: int

    @classmethod
    def around(cls, spot: Spot, height: int, width: int) -> "_Disc":
        """
        The disc of a point.
        """
        radius = max(2, round(2 * SHARE * min(height, width)))
        return cls(round(2 * spot[0] * width), round(2 * spot[1] * height), radius)

    def column(self, x: int, height: int) -> Span:
        """
        The rows that it covers in a column: first, and one past the last.
        """
        return _chord(self.down, self.radius, 2 * x + 1 - self.across, height)

    def row(self, y: int, width: int) -> Span:
        """
        The columns that it covers in a row.
        """
        return _chord(self.across, self.radius, 2 * y + 1 - self.down, width)

    def columns(self, width: int) -> range:
        """
        The columns that it may touch.
        """
        return range(max(0, (self.across - self.radius) // 2), min(width, (self.across + self.radius) // 2 + 1))

    def rows(self, height: int) -> range:
        """
        The rows that it may touch.
        """
        return range(max(0, (self.down - self.radius) // 2), min(height, (self.down + self.radius) // 2 + 1))


def _chord(centre: int, radius: int, away: int, limit: int) -> Span:
    if abs(away) > radius:
        return (0, 0)
    half = isqrt(radius * radius - away * away)
    start = max(0, (centre - half) // 2)
    return (start, max(start, min(limit, (centre + half + 1) // 2)))


def _discs(spots: Iterable[Spot], height: int, width: int) -> list[_Disc]:
    return [_Disc.around(spot, height, width) for spot in spots]


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """
    Sorted spans without overlaps and without neighbours that touch.
    """
    start = stop = -1
    for first, last in spans:
        if first > stop:
            if stop > start:
                yield (start, stop)
            start, stop = first, last
        stop = max(stop, last)
    if stop > start:
        yield (start, stop)


def runs(spots: Sequence[Spot], height: int, width: int) -> list[int]:
    """
    Run lengths of the union of all discs: column-major, beginning with zeros.
    """
    spans: list[Span] = []
    for disc in _discs(spots, height, width):
        for x in disc.columns(width):
            first, last = disc.column(x, height)
            if last > first:
                spans.append((x * height + first, x * height + last))
    lengths: list[int] = []
    end = 0
    for start, stop in _merged(sorted(spans)):
        lengths += [start - end, stop - start]
        end = stop
    return lengths if end == height * width and lengths else [*lengths, height * width - end]


def picture(spots: Sequence[Spot], height: int, width: int) -> bytes:
    """
    The same union as a PNG of one bit a pixel, white on black.
    """
    wide = -(-width // 8) * 8
    lines = [0] * height
    for disc in _discs(spots, height, width):
        for y in disc.rows(height):
            first, last = disc.row(y, width)
            lines[y] |= ((1 << (last - first)) - 1) << (wide - last)
    return png(b"".join(b"\0" + line.to_bytes(wide // 8) for line in lines), height, width)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(lines: bytes, height: int, width: int) -> bytes:
    """
    A PNG of one bit a pixel.

    Args:
        lines: For each line a zero and its pixels, eight a byte, the leftmost highest.
        height: In pixels.
        width: In pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 1)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
