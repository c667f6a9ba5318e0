"""
The API's sight with real vision behind it: clips are fetched and opened, objects found, edits rendered.

Decides what is fetched, what is kept for the next call, and which words a failure is told in. How an object is
found and how an edit looks is `_eyes.py`'s and `_hands.py`'s. Needs the extra `demo`; every method may run in any
thread, and several at once.
"""

import base64
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from threading import Lock
from typing import ClassVar, Generic, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from attrs import define, evolve, field
from numpy.typing import NDArray

from kling_async.errors import InvalidInputError
from kling_async.masks import encode_runs
from kling_async.pictures import Image

from . import _eyes, _hands, _outline
from ._answers import RefusalError
from ._blind import tracking
from ._geometry import png
from ._halt import HaltedError, heed
from ._scenes import Drawn, Film, Footage, Order, Rendered, Source, Spot, Spots

FETCH_MOST = 256 * 1024 * 1024
"""Bytes of a clip or a picture that is fetched."""
PATIENCE = 30.0
"""Seconds without a byte until a fetch is given up."""
_GLANCE = 0.1
"""Seconds between two looks at whether what is waited for is still wanted."""

Plane = NDArray[np.bool_]
T = TypeVar("T")


@define(eq=False)
class Kept(Generic[T]):
    """
    The last few results of something dear; who asks while one is made waits for it, and makes it if that is given up.
    """

    most: int
    """How many are kept."""
    _lock: Lock = field(init=False, factory=Lock)
    _made: "OrderedDict[Hashable, Future[T]]" = field(init=False, factory=OrderedDict)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """
        The result for a key; what `make` raises is raised to all who wait, and not kept.
        """
        with self._lock:
            known = self._made.get(key)
            future = self._made[key] = known or Future()
            self._made.move_to_end(key)
            while len(self._made) > self.most:
                self._made.popitem(last=False)
        if known is not None:
            return self._awaited(known, key, make)
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)
            with self._lock:
                self._made.pop(key, None)
            raise
        return future.result()

    def _awaited(self, future: "Future[T]", key: Hashable, make: Callable[[], T]) -> T:
        while not future.done():
            heed()
            wait([future], timeout=_GLANCE)
        if isinstance(future.exception(), HaltedError):
            heed()
            return self.get(key, make)
        return future.result()


@define(eq=False)
class Eyes:
    """
    Vision. One object is what all points of one frame mean together.
    """

    heavy: ClassVar[bool] = True

    _clips: Kept[tuple[Source, _eyes.Clip]] = field(init=False, factory=lambda: Kept(4))
    _objects: Kept[Plane] = field(init=False, factory=lambda: Kept(16))
    _tracks: Kept[tuple[Plane, ...]] = field(init=False, factory=lambda: Kept(3))

    def look(self, source: Source) -> tuple[Source, Footage]:
        """
        Fetch the clip, if need be, and open it.

        Raises:
            RefusalError: It cannot be fetched, or is no video.
        """
        source, clip = self._opened(source)
        footage = Footage(width=clip.width, height=clip.height, fps=clip.fps, total_frames=clip.total_frames)
        return source, footage

    def _opened(self, source: Source) -> tuple[Source, _eyes.Clip]:
        return self._clips.get(source.key, lambda: _open(source))

    def draw(self, source: Source, _footage: Footage, frame_index: int, spots: tuple[Spot, ...]) -> Drawn:
        """
        The object under the points.

        Raises:
            RefusalError: The frame cannot be read after all.
        """
        plane = self._object(source, frame_index, spots)
        return Drawn(counts=_counts(plane), png=_png(plane))

    def _object(self, source: Source, frame_index: int, spots: tuple[Spot, ...]) -> Plane:
        def find() -> Plane:
            _, clip = self._opened(source)
            try:
                return _eyes.segment(clip.frame(frame_index), spots)
            except ValueError as error:
                raise RefusalError(5000, f"frame {frame_index}: {error}") from error

        return self._objects.get((source.key, frame_index, spots), find)

    def _track(self, source: Source, marks: Spots) -> tuple[Plane, ...]:
        def follow() -> tuple[Plane, ...]:
            _, clip = self._opened(source)
            try:
                return _eyes.track(clip, {frame: self._object(source, frame, spots) for frame, spots in marks.items()})
            except ValueError as error:
                raise RefusalError(5000, str(error)) from error

        return self._tracks.get((source.key, tuple(sorted(marks.items()))), follow)

    def preview(self, source: Source, footage: Footage, marks: Spots) -> Rendered:
        """
        The object, followed through the clip and drawn on it.

        Raises:
            RefusalError: The clip cannot be read after all.
        """
        masks = self._track(source, marks)
        _, clip = self._opened(source)
        video, cover = _hands.render_preview(clip, masks)
        size = (footage.width, footage.height)
        counts = tuple(_counts(_outline.resized(mask, size)) for mask in masks)
        return Rendered(video=video, cover=cover, tracking=tracking(counts, footage.height, footage.width))

    def make(self, source: Source, footage: Footage, order: Order) -> Film:
        """
        The edited clip.

        Raises:
            RefusalError: A reference picture cannot be used, or the clip cannot be read after all.
        """
        pictures = [_picture(image) for image in order.images]
        _, clip = self._opened(source)
        masks = self._track(source, order.marks) if order.marks else ()
        try:
            if order.edit_mode == "removal":
                made = _hands.remove(clip, masks)
            elif order.edit_mode == "swap":
                made = _hands.swap(clip, masks, pictures[0])
            else:
                made = _hands.add(clip, masks, pictures)
        except ValueError as error:
            raise RefusalError(5000, str(error)) from error
        return Film(source=Source(key=sha256(made).hexdigest(), content=made, footage=footage), seconds=clip.duration)


def _open(source: Source) -> tuple[Source, _eyes.Clip]:
    content = fetch("video_url", source.url or "") if source.content is None else source.content
    file = content if isinstance(content, bytes | Path) else content()
    try:
        return evolve(source, content=file), _eyes.open_clip(file)
    except ValueError as error:
        raise RefusalError(1201, str(error)) from error


def fetch(name: str, url: str) -> bytes:
    """
    What an http(s) URL leads to.

    Args:
        name: The parameter that it stands in.
        url: It; the rules let no other scheme through, and redirects do not leave http(s) either.

    Raises:
        RefusalError: It cannot be had, or is too large.
    """
    try:
        with urlopen(url, timeout=PATIENCE) as response:  # noqa: S310 - see above
            data: bytes = response.read(FETCH_MOST + 1)
    except HTTPError as error:
        with error:  # it is the reply as well, and holds a socket
            raise RefusalError(1201, f"{name} can not be downloaded: HTTP {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise RefusalError(1201, f"{name} can not be downloaded: {error}") from error
    if len(data) > FETCH_MOST:
        raise RefusalError(1201, f"{name} can not be downloaded: more than {FETCH_MOST} bytes")
    return data


def _picture(image: str | bytes) -> bytes:
    if isinstance(image, bytes):
        data = image
    else:
        data = fetch("image", image) if image.startswith(("http:", "https:")) else base64.b64decode(image)
    try:
        Image.from_bytes(data)
    except InvalidInputError as error:
        raise RefusalError(1201, f"Image pixel is invalid: it {error.reason}") from error
    return data


def _counts(plane: Plane) -> str:
    """
    COCO's runs of a plane, column by column.
    """
    pixels = plane.T.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], edges, [pixels.size]))).tolist()
    return encode_runs([0, *lengths] if pixels[0] else lengths)


def _png(plane: Plane) -> bytes:
    lines = np.pad(np.packbits(plane, axis=1), ((0, 0), (1, 0)))
    return png(lines.tobytes(), *plane.shape)
