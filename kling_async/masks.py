"""
Masks as the API sends them: COCO run lengths, checked before anything is allocated.

Runs are kept as text and parsed on first use; pixels are made only by `to_array` (extra `masks`).
Format, as the provider's own decoder reads it: column-major runs of 0 and 1 in turn, five bits a
character from code 48 up, from the fourth run on relative to the run two before.
Source: https://klingai.com/document-api/api/video/multi-elements.md (add-selection)
"""

import re
import sys
from base64 import b64decode
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, NoReturn

from attrs import evolve, field, frozen

from ._refusals import excerpt
from .errors import DecodeError, InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from .points import Point

__all__ = ("Mask",)

SIDE_LIMIT = 8192
TEXT_LIMIT = 4 * 1024 * 1024
BLOCK = 8192
"""Characters of run lengths that become numbers at once; some seventy bytes of memory each."""
_CHUNKS = 7
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_NUMBER = re.compile(f"[P-o]{{0,{_CHUNKS - 1}}}[0-O]")


def encode_runs(runs: Iterable[int]) -> str:
    """
    Run lengths as COCO's compressed text.

    Args:
        runs: Lengths in pixels, beginning with zeros, in column-major order.
    """
    text: list[str] = []
    seen: list[int] = []
    for index, run in enumerate(runs):
        left = run - seen[index - 2] if index > 2 else run
        seen.append(run)
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != (-1 if bits & 0x10 else 0)
            text.append(chr(48 + (bits | 0x20 if more else bits)))
    return "".join(text)


def _numbers(counts: str) -> Iterator[int]:
    value = chunk = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or chunk == _CHUNKS:
            raise DecodeError(f"mask: {character!r} cannot stand there in its run lengths")
        value |= (bits & 0x1F) << 5 * chunk
        chunk += 1
        if not bits & 0x20:
            yield value - (1 << 5 * chunk) if bits & 0x10 else value
            value = chunk = 0
    if chunk:
        raise DecodeError("mask: its run lengths end within a number")


class _Meanings(dict[str, int]):
    """
    What the short numbers mean; of a longer one its end is looked up.
    """

    def __missing__(self, text: str) -> int:
        return ord(text[0]) - 80 + 32 * self[text[1:]]


@cache
def _meanings() -> _Meanings:
    known = _Meanings((chr(48 + bits), bits - 2 * (bits & 0x10)) for bits in range(32))
    for text, value in list(known.items()):
        known.update((chr(80 + bits) + text, bits + 32 * value) for bits in range(32))
    return known


def decode_runs(counts: str, pixels: int) -> tuple[int, ...]:
    """
    The run lengths behind COCO's compressed text.

    It goes a block at a time, so that runs which lie are found out before they cost memory.

    Args:
        counts: The text.
        pixels: How many pixels the runs must add up to.

    Raises:
        DecodeError: A run is negative, the text is cut short, or the runs do not fill the mask exactly.
    """
    meaning = _meanings().__getitem__
    runs: list[int] = []
    before = [0, 0]
    at = total = 0
    while at < len(counts):
        texts = _NUMBER.findall(counts, at, at + BLOCK)
        piece = "".join(texts)
        if not piece or not counts.startswith(piece, at):
            break
        numbers = list(map(meaning, texts))
        first = [] if runs else [numbers.pop(0)]  # each run from the fourth on is relative to the one two before it
        numbers = [*before, *numbers]
        for start in (0, 1):
            numbers[start::2] = accumulate(numbers[start::2])
        before, new = numbers[-2:], [*first, *numbers[2:]]
        total += sum(new)
        if min(new) < 0 or total > pixels:
            break
        runs += new
        at += len(piece)
    if at < len(counts) or total != pixels:
        _refuse(counts, pixels)
    return tuple(runs)


def _refuse(counts: str, pixels: int) -> NoReturn:
    """
    Read what is no mask once more, a number at a time, to tell what is wrong with it.
    """
    runs: list[int] = []
    total = 0
    for number in _numbers(counts):
        run = number + runs[-2] if len(runs) > 2 else number
        total += run
        if run < 0 or total > pixels:
            raise DecodeError(f"mask: run {len(runs)} leaves the mask of {pixels} pixels")
        runs.append(run)
    raise DecodeError(f"mask: its runs cover {total} of {pixels} pixels")


def _run_array(counts: str, pixels: int) -> "NDArray[np.int64]":
    """
    `decode_runs` for numpy: the same lengths, several times as fast; what it cannot read is left to that.

    It goes a block at a time, so that runs which lie are found out before they cost memory.
    """
    import numpy as np

    bits = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8) - np.uint8(48)
    blocks: list[NDArray[np.int64]] = []
    before = np.zeros(2, np.int64)
    at = total = 0
    while at < len(bits):
        piece = bits[at : at + BLOCK]
        ends = np.flatnonzero(piece < 32)
        starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
        sizes = ends - starts + 1
        if not len(ends) or piece.max() >= 64 or sizes.max() > _CHUNKS:
            break
        piece = piece[: ends[-1] + 1].astype(np.int64)
        shifts = 5 * (np.arange(len(piece)) - np.repeat(starts, sizes))
        runs = np.add.reduceat((piece & 0x1F) << shifts, starts)
        runs -= np.where(piece[ends] & 0x10, np.int64(1) << 5 * sizes, 0)
        rest = runs if blocks else runs[1:]  # each run from the fourth on is relative to the one two before it
        rest[:2] += before[: len(rest)]
        for first in (0, 1):
            np.cumsum(rest[first::2], out=rest[first::2])
        total += int(runs.sum())
        if runs.min() < 0 or total > pixels:
            break
        before = np.concatenate((before, rest))[-2:]
        blocks.append(runs)
        at += len(piece)
    if at < len(bits) or total != pixels:
        return np.array(decode_runs(counts, pixels), np.int64)
    return np.concatenate(blocks)


def _kept(given: bytes | str | None) -> bytes | str | None:
    """Base64 stays what it is until it is asked for: to read it would be half of the cost of a frame's masks."""
    if not isinstance(given, str):
        return given
    text = given.removeprefix("data:image/png;base64,")
    if len(text) % 4 or not _BASE64.fullmatch(text[:64]):
        raise DecodeError(f"mask: its picture is no base64: {excerpt(text)}")
    return text


def _picture(given: bytes | str | None) -> bytes | str | None:
    """The bytes behind base64; what turns out to be none stays text."""
    try:
        return b64decode(given, validate=True) if isinstance(given, str) else given
    except ValueError:
        return given


@frozen(kw_only=True)
class Mask:
    """
    The region that one object covers on one frame, in pixels from the top left.

    Example:
        >>> mask = Mask(object_id=0, height=3, width=4, counts="42102")
        >>> mask.area, mask.bbox
        (4, (1, 1, 3, 3))
    """

    object_id: int
    """Which object of the frame it is."""
    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    counts: str = field(repr=False)
    """COCO's compressed run lengths."""
    _png: bytes | str | None = field(default=None, repr=False, eq=_picture, converter=_kept)
    size: tuple[int, int] | None = field(default=None, repr=False)
    """`size` as it came on the wire; official samples have it both ways round."""

    def __attrs_post_init__(self) -> None:
        if not all(1 <= side <= SIDE_LIMIT for side in (self.height, self.width)):
            raise DecodeError(f"mask: {self.height} x {self.width} pixels is outside 1..{SIDE_LIMIT} a side")
        if len(self.counts) > TEXT_LIMIT:
            raise DecodeError(f"mask: {len(self.counts)} characters of run lengths, more than {TEXT_LIMIT}")

    @property
    def png(self) -> bytes | None:
        """
        The service's own picture of the mask; None where it sent none. Its base64 is read each time.

        Raises:
            DecodeError: It is no base64.
        """
        picture = _picture(self._png)
        if isinstance(picture, str):
            raise DecodeError(f"mask: its picture is no base64: {excerpt(picture)}")
        return picture

    @classmethod
    def from_runs(cls, runs: Sequence[int], *, height: int, width: int, object_id: int = 0) -> "Mask":
        """
        A mask from run lengths, column-major and beginning with zeros.

        Raises:
            DecodeError: The runs do not fill the mask exactly.
        """
        mask = cls(object_id=object_id, height=height, width=width, counts=encode_runs(runs))
        decode_runs(mask.counts, height * width)
        return mask

    def fitted(self, height: int | None, width: int | None) -> "Mask":
        """
        The mask read with the video's own height and width where these are its `size` in some order.

        The provider's drawing code never reads `size`; its samples have the video's width first.
        """
        if height and width and {height, width} == {self.height, self.width}:
            return evolve(self, height=height, width=width)
        return self

    @cached_property
    def runs(self) -> tuple[int, ...]:
        """
        Run lengths in column-major order, beginning with zeros.

        Raises:
            DecodeError: The text is not what COCO's format allows, or does not fill the mask.
        """
        pixels = self.height * self.width
        # It is several times as fast, but loading it takes longer than a hundred masks do.
        if sys.modules.get("numpy") is not None:
            return tuple(_run_array(self.counts, pixels).tolist())
        return decode_runs(self.counts, pixels)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self.runs))

    @property
    def area(self) -> int:
        """
        How many pixels it covers.

        Raises:
            DecodeError: See `runs`.
        """
        return sum(self.runs[1::2])

    @cached_property
    def bbox(self) -> tuple[int, int, int, int]:
        """
        Left, top, right, bottom in pixels, right and bottom exclusive; all zero for an empty mask.

        Raises:
            DecodeError: See `runs`.
        """
        spans = [(start, run) for start, run in zip(self._ends[::2], self.runs[1::2], strict=False) if run]
        if not spans:
            return (0, 0, 0, 0)
        high = self.height
        tops = [start % high for start, _ in spans]
        bottom = max(top + run for top, (_, run) in zip(tops, spans, strict=True))
        left, right = spans[0][0] // high, (sum(spans[-1]) - 1) // high + 1
        # A run that crosses into the next column covers the bottom of the one and the top of the other.
        return (left, 0, right, high) if bottom > high else (left, min(tops), right, bottom)

    def contains(self, point: "Point") -> bool:
        """
        Whether the point, a fraction of width and height, lies on the object.

        Raises:
            DecodeError: See `runs`.
        """
        column = min(int(point.x * self.width), self.width - 1)
        row = min(int(point.y * self.height), self.height - 1)
        return bool(bisect_right(self._ends, column * self.height + row) % 2)

    def to_array(self) -> "NDArray[np.bool_]":
        """
        Its pixels as booleans, height x width, in column-major order. Needs the extra `masks`.

        Raises:
            DecodeError: See `runs`.
            InvalidInputError: numpy is not installed.
        """
        try:
            import numpy as np
        except ImportError as error:
            raise InvalidInputError("masks", "pixels need numpy: pip install 'kling-async[masks]'") from error
        runs = _run_array(self.counts, self.height * self.width)
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(self.width, self.height).T

    def overlay(self, image: "Picture", *, color: tuple[int, int, int] = (255, 64, 160)) -> "Picture":
        """
        The picture with the object tinted. Needs the extra `masks`.

        Args:
            image: A Pillow picture of any size; the mask is scaled to it.
            color: Red, green and blue of the tint, 0 to 255.

        Raises:
            DecodeError: See `runs`.
            InvalidInputError: numpy is not installed.
        """
        pixels = self.to_array()
        from PIL import Image

        stencil = Image.fromarray(pixels).convert("L").point(lambda value: value * 0.55).resize(image.size)
        tinted = image.convert("RGB")
        tinted.paste(color, (0, 0, *tinted.size), stencil)
        return tinted
