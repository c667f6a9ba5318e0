"""
The background behind an object: one still picture of it, built once, that the camera's motion lays over every frame.

Decides what was behind the object: what other frames show of it, and where none does, what `_fill` makes up. Knows
nothing of files and encodings. The plate lives in the coordinates of one reference frame, so that it does not flicker.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from attrs import frozen

from ._eyes import register
from ._fill import fill
from ._footage import Clip, Pixels
from ._outline import Doubles, Floats, Plane, grown, resized

_MARGIN = 0.011
_SAMPLES = 13
_SEEN_OFTEN = 2
_FOREIGN = 40
_GAIN = 12
_TRACE = 0.004


def camera(clip: Clip, masks: Sequence[Plane]) -> tuple[int, Doubles]:
    """
    A reference frame, and the homographies that take its pixels to those of each frame, at full size.

    Args:
        clip: The video.
        masks: What may move by itself: none, or a mask for each frame.
    """
    pictures = list(clip.small_frames())
    reference = len(pictures) // 2
    height, width = pictures[0].shape[:2]
    objects = {index: resized(mask, (width, height)) for index, mask in enumerate(masks)}
    moves = register(pictures, reference, objects)
    up = scaling(clip.width / width, clip.height / height)
    return reference, up @ moves @ np.linalg.inv(up)


def scaling(across: float, down: float) -> Doubles:
    """
    The homography to a picture of another size.

    Args:
        across: How many times as wide it is.
        down: How many times as high it is.
    """
    # Pixels are squares: the centre of the first one lies at a half.
    return np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1.0]])


def shift(across: float, down: float) -> Doubles:
    """
    The homography that moves a picture.

    Args:
        across: How far to the right, in pixels.
        down: How far down.
    """
    return np.array([[1, 0, across], [0, 1, down], [0, 0, 1.0]])


@frozen
class Box:
    """
    Columns from `left` to before `right`, rows from `top` to before `bottom`.
    """

    left: int
    "First column."
    top: int
    "First row."
    right: int
    "Column behind the last one."
    bottom: int
    "Row behind the last one."

    @property
    def size(self) -> tuple[int, int]:
        """
        Width and height.
        """
        return self.right - self.left, self.bottom - self.top

    @property
    def there(self) -> tuple[slice, slice]:
        """
        The same as an index of a picture.
        """
        return np.s_[self.top : self.bottom, self.left : self.right]

    def moved(self, across: int, down: int) -> "Box":
        """
        The same box elsewhere.

        Args:
            across: How far to the right.
            down: How far down.
        """
        return Box(self.left + across, self.top + down, self.right + across, self.bottom + down)

    def wider(self, margin: int, within: "Box") -> "Box":
        """
        With a margin, as far as there is room for it.

        Args:
            margin: In pixels.
            within: The room.
        """
        return Box(
            max(self.left - margin, within.left),
            max(self.top - margin, within.top),
            min(self.right + margin, within.right),
            min(self.bottom + margin, within.bottom),
        )


def around(plane: Plane) -> Box | None:
    """
    The box around a mask, or None if it is empty.

    Args:
        plane: The mask.
    """
    rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _holes(masks: Sequence[Plane]) -> tuple[tuple[Floats, ...], list[Plane]]:
    """
    How much of each frame is to be replaced, 0 to 1, and wherever it is more than nothing; at working size.
    """
    radius = max(3, round(_MARGIN * max(masks[0].shape)))
    cores = [grown(mask, radius // 2 + 1).astype(np.float32) for mask in masks]
    soft = tuple(np.asarray(cv2.GaussianBlur(core, (0, 0), radius / 5), dtype=np.float32) for core in cores)
    return soft, [plane > 0.01 for plane in soft]


@frozen(kw_only=True)
class Plate:
    """
    The background, and how to lay it over a frame.
    """

    picture: Pixels
    "The background around the object, RGB."
    moves: Doubles
    "From the plate's pixels to those of each frame, n x 3 x 3."
    shares: tuple[Floats, ...]
    "How much of each frame it replaces, at working size."

    def over(self, frame: Pixels, index: int) -> Pixels:
        """
        The frame with the background in place of the object.

        Args:
            frame: RGB, at full size.
            index: Of the frame.
        """
        height, width = frame.shape[:2]
        whole = Box(0, 0, width, height)
        share = np.asarray(cv2.resize(self.shares[index], (width, height), interpolation=cv2.INTER_LINEAR))
        touched = around(share > _TRACE)
        if touched is None:
            return frame
        box = touched.wider(max(width, height) // 40, whole)
        move = shift(-box.left, -box.top) @ self.moves[index]
        behind = cv2.warpPerspective(
            self.picture, move, box.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        part = share[box.there]
        here = frame[box.there].astype(np.float32)
        lit = behind.astype(np.float32)
        lit += _gain(here - lit, part <= _TRACE)
        mixed = here + (lit - here) * part[..., None]
        result = frame.copy()
        result[box.there] = np.clip(np.rint(mixed), 0, 255)
        return result


def _gain(difference: Floats, open_to_both: Plane) -> Floats:
    """
    How much brighter the frame is than the plate, carried from where both can be seen to where the object was.
    """
    height, width = open_to_both.shape
    size = (max(4, width // 8), max(4, height // 8))
    alike = open_to_both & (np.abs(difference).max(2) < _FOREIGN)
    weight = cv2.resize(alike.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(difference * alike[..., None], size, interpolation=cv2.INTER_AREA)
    reach = max(2.0, max(size) / 16)
    weight, total = cv2.GaussianBlur(weight, (0, 0), reach), cv2.GaussianBlur(total, (0, 0), reach)
    gain = np.clip(total / (weight + 0.02)[..., None], -_GAIN, _GAIN)
    return np.asarray(cv2.resize(gain, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _canvas(moves: Doubles, width: int, height: int) -> Box:
    """
    What all frames together show, in the coordinates of the reference, at most one frame further on each side.
    """
    corners = np.array([[[0, 0], [width, 0], [0, height], [width, height]]], np.float64)
    seen = np.concatenate([cv2.perspectiveTransform(corners, np.linalg.inv(move))[0] for move in moves])
    left, top = np.floor(seen.min(0)).astype(int)
    right, bottom = np.ceil(seen.max(0)).astype(int)
    shown = Box(int(left), int(top), int(right), int(bottom))
    return shown.wider(0, Box(-width, -height, 2 * width, 2 * height))


def _hidden(holes: Sequence[Plane], moves: Doubles, canvas: Box, clip: Clip) -> Plane:
    """
    Everything on the canvas that is hidden in some frame, with a little more for interpolation at its rim.
    """
    height, width = holes[0].shape
    up = scaling(clip.width / width, clip.height / height)
    size = (max(8, canvas.size[0] * width // clip.width), max(8, canvas.size[1] * height // clip.height))
    down = np.linalg.inv(scaling(canvas.size[0] / size[0], canvas.size[1] / size[1])) @ shift(-canvas.left, -canvas.top)
    union = np.zeros(size[::-1], np.float32)
    for hole, move in zip(holes, moves, strict=True):
        placed = down @ np.linalg.inv(move) @ up
        union = np.maximum(union, cv2.warpPerspective(hole.astype(np.float32), placed, size))
    return grown(np.asarray(cv2.resize(union, canvas.size, interpolation=cv2.INTER_LINEAR) > 0.001), 3)


def _seen(
    clip: Clip, holes: Sequence[Plane], moves: Doubles, room: Box, indexes: Sequence[int]
) -> Iterator[tuple[Pixels, Plane]]:
    """
    The plate's room as some frames show it, and where they do.
    """
    for index, frame in clip.pick(indexes):
        back = shift(-room.left, -room.top) @ np.linalg.inv(moves[index])
        seen = cv2.warpPerspective(frame, back, room.size, flags=cv2.INTER_CUBIC)
        size = (clip.width, clip.height)
        free = 1 - cv2.resize(holes[index].astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        shown = cv2.warpPerspective(free, back, room.size, flags=cv2.INTER_LINEAR) > 0.99
        yield np.asarray(seen, dtype=np.uint8), np.asarray(shown)


def _gathered(clip: Clip, holes: Sequence[Plane], reference: int, moves: Doubles, room: Box) -> tuple[Pixels, Plane]:
    """
    The reference's view of the room, completed by what several other frames agree on, and what of it is known.
    """
    picture, known = next(_seen(clip, holes, moves, room, [reference]))
    rows, columns = np.nonzero(~known)
    samples = np.linspace(0, len(moves) - 1, min(_SAMPLES, len(moves))).round().astype(int).tolist()
    colours = np.full((len(samples), len(rows), 3), np.nan, np.float32)
    for number, (seen, shown) in enumerate(_seen(clip, holes, moves, room, samples)):
        visible = shown[rows, columns]
        colours[number, visible] = seen[rows[visible], columns[visible]]
    often = np.isfinite(colours[..., 0]).sum(0) >= _SEEN_OFTEN
    picture[rows[often], columns[often]] = np.nanmedian(colours[:, often], axis=0).round()
    known[rows[often], columns[often]] = True
    return picture, known


def build(clip: Clip, masks: Sequence[Plane]) -> Plate:
    """
    Look through the whole clip for the background of the object, and make up the rest.

    Args:
        clip: The video.
        masks: The object, a mask for each frame.
    """
    reference, moves = camera(clip, masks)
    shares, holes = _holes(masks)
    canvas = _canvas(moves, clip.width, clip.height)
    hidden = _hidden(holes, moves, canvas, clip)
    box = around(hidden)
    if box is None:
        return Plate(picture=np.zeros((8, 8, 3), np.uint8), moves=moves, shares=shares)
    room = box.wider(max(min(box.size), clip.width // 10), Box(0, 0, *canvas.size))
    wanted = hidden[room.there]
    room = room.moved(canvas.left, canvas.top)
    picture, known = _gathered(clip, holes, reference, moves, room)
    filled = fill(picture, wanted & ~known, ~wanted & ~known)
    return Plate(picture=filled, moves=moves @ shift(room.left, room.top), shares=shares)
