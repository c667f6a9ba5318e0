"""
What the simulator does to a clip: it draws the mask, and removes, swaps and adds objects, plainly but visibly.

Decides how an edit looks. Knows nothing of tasks or of the API, and finds nothing in a frame by itself (`_eyes`).
Every result is an MP4 of the clip's size, rate and number of frames, its frames made and encoded one at a time.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import ceil

import cv2
import numpy as np
from attrs import field, frozen
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ._footage import WORK_SIDE, Clip, Pixels, encode, fit
from ._outline import Doubles, Floats, Plane, resized
from ._plate import Box, around, build, camera, scaling, shift

_TINT = (255, 40, 150)
_OUTLINE = (255, 255, 255)
_SHEET_WIDTH = 1600
_GAP = 8
_ROWS = ("before", "mask", "after")


def draw_mask(frame: Pixels, mask: Plane) -> Pixels:
    """
    The frame with its mask tinted and outlined.

    Args:
        frame: RGB, h x w x 3.
        mask: Of any size.
    """
    height, width = frame.shape[:2]
    full = resized(mask, (width, height))
    drawn = frame.copy()
    drawn[full] = (frame[full] * 0.45 + np.array(_TINT) * 0.55).astype(np.uint8)
    outlines, _ = cv2.findContours(full.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, _OUTLINE, max(1, round(max(width, height) / 480)), cv2.LINE_AA)
    return drawn


def _at_work(clip: Clip, masks: Sequence[Plane]) -> tuple[Plane, ...]:
    if len(masks) != clip.total_frames:
        raise ValueError(f"a mask for each of the clip's {clip.total_frames} frames is needed, not {len(masks)}")
    size = fit(clip.width, clip.height, WORK_SIDE)
    return tuple(resized(mask, size) for mask in masks)


def render_preview(clip: Clip, masks: Sequence[Plane]) -> tuple[bytes, bytes]:
    """
    The clip with the masks drawn, as MP4, and the frame with the largest of them as PNG.

    Args:
        clip: The video.
        masks: The object, a mask for each frame.

    Raises:
        ValueError: There are more or fewer masks than frames.
    """
    planes = _at_work(clip, masks)
    shown = max(range(len(planes)), key=lambda index: int(planes[index].sum()))
    video = encode((draw_mask(*pair) for pair in zip(clip.frames(), planes, strict=False)), clip)
    return video, _png(draw_mask(clip.frame(shown), planes[shown]))


def _png(picture: Pixels) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def remove(clip: Clip, masks: Sequence[Plane]) -> bytes:
    """
    The clip without the object, as MP4.

    Args:
        clip: The video.
        masks: The object, a mask for each frame.

    Raises:
        ValueError: There are more or fewer masks than frames.
    """
    return encode(_without(clip, _at_work(clip, masks)), clip)


def _without(clip: Clip, masks: Sequence[Plane]) -> Iterator[Pixels]:
    plate = build(clip, masks)
    for index, frame in enumerate(clip.frames()):
        yield plate.over(frame, index)


def swap(clip: Clip, masks: Sequence[Plane], image: bytes) -> bytes:
    """
    The clip with a picture in place of the object, as MP4.

    The picture keeps its shape, fits the box around the object, stands on the box's lower edge and follows it.

    Args:
        clip: The video.
        masks: The object, a mask for each frame.
        image: PNG, JPEG or whatever else Pillow reads.

    Raises:
        ValueError: There are more or fewer masks than frames, or the image cannot be read.
    """
    planes = _at_work(clip, masks)
    stickers = (_opened(image),)
    places = _followed(clip, planes)
    return encode(_pasted(_without(clip, planes), stickers, places), clip)


def add(clip: Clip, masks: Sequence[Plane], images: Sequence[bytes]) -> bytes:
    """
    The clip with pictures in it, side by side, as MP4.

    They fit the box around the tracked object, as in `swap`, or stand in the lower third and follow the camera.

    Args:
        clip: The video.
        masks: A mask for each frame, or none at all.
        images: PNG, JPEG or whatever else Pillow reads; one or more.

    Raises:
        ValueError: There is no image, one cannot be read, or masks are missing for some frames only.
    """
    if not images:
        raise ValueError("an addition needs at least one image")
    stickers = tuple(_opened(image) for image in images)
    places = _followed(clip, _at_work(clip, masks)) if masks else _resting(clip)
    return encode(_pasted(clip.frames(), stickers, places), clip)


def _opened(image: bytes) -> Floats:
    """
    A picture as RGB and opacity, opacity multiplied in, without its transparent margin; all from 0 to 1.
    """
    try:
        with Image.open(BytesIO(image)) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be read: {error}") from error
    picture = picture.crop(picture.getchannel("A").point(lambda level: 255 * (level > 8)).getbbox())
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    pixels[..., :3] *= pixels[..., 3:]
    return np.asarray(pixels, dtype=np.float32)


@frozen
class _Places:
    """
    Where pictures stand: boxes in the reference frame, and the camera that carries them.
    """

    boxes: Doubles = field(repr=False)
    "For each frame left, right, top and foot, in the reference's pixels; not a number where the object is gone."
    moves: Doubles = field(repr=False)
    "From the reference's pixels to those of each frame."

    def at(self, index: int) -> Doubles | None:
        """
        Left, right, top and foot in one frame, or None.

        Args:
            index: Of the frame.
        """
        box = self.boxes[index]
        return None if np.isnan(box).any() else _carried(box, self.moves[index])


def _carried(box: Doubles, move: Doubles) -> Doubles:
    """
    An upright box seen from elsewhere: still upright, its foot where the foot has gone.
    """
    left, right, top, foot = box
    middle = (left + right) / 2
    points = np.array([[[left, foot], [right, foot], [middle, top], [middle, foot]]])
    one, two, head, base = cv2.perspectiveTransform(points, move)[0]
    half, tall = np.linalg.norm(two - one) / 2, np.linalg.norm(head - base)
    return np.array([base[0] - half, base[0] + half, base[1] - tall, base[1]])


def _followed(clip: Clip, masks: Sequence[Plane]) -> _Places:
    """
    The boxes around the masks without the camera's motion, and smoothed in time.
    """
    _, moves = camera(clip, masks)
    height, width = masks[0].shape
    across, down = clip.width / width, clip.height / height
    boxes = np.full((len(masks), 4), np.nan)
    for index, mask in enumerate(masks):
        box = around(mask)
        if box is not None:
            seen = np.array([box.left * across, box.right * across, box.top * down, box.bottom * down])
            boxes[index] = _carried(seen, np.linalg.inv(moves[index]))
    return _Places(_smoothed(boxes, clip.fps / 6), moves)


def _weighed(values: Plane | Doubles, bell: Doubles) -> Doubles:
    reach = len(bell) // 2
    return np.asarray(np.convolve(values, bell)[reach:-reach], dtype=np.float64)


def _smoothed(boxes: Doubles, spread: float) -> Doubles:
    """
    Each box on a straight line through those around it in time; a mean would lag behind at both ends of the clip.
    """
    steps = np.arange(-ceil(3 * spread), ceil(3 * spread) + 1)
    there = ~np.isnan(boxes[:, 0])
    bells = [np.asarray(np.exp(-0.5 * (steps / spread) ** 2) * steps**power, dtype=np.float64) for power in (0, 1, 2)]
    count, first, second = (_weighed(there, bell) for bell in bells)
    second += 1e-6
    columns = []
    for column in boxes.T:
        values = np.where(there, column, 0.0)
        level = second * _weighed(values, bells[0]) - first * _weighed(values, bells[1])
        columns.append(np.where(there, level / np.where(there, count * second - first**2, 1), np.nan))
    return np.stack(columns, axis=1)


def _resting(clip: Clip) -> _Places:
    _, moves = camera(clip, ())
    box = np.array([0.25 * clip.width, 0.75 * clip.width, 0.6 * clip.height, 0.94 * clip.height])
    return _Places(np.tile(box, (len(moves), 1)), moves)


def _pasted(frames: Iterator[Pixels], stickers: Sequence[Floats], places: _Places) -> Iterator[Pixels]:
    for index, frame in enumerate(frames):
        box = places.at(index)
        if box is None:
            yield frame
            continue
        left, right, top, foot = box
        step = (right - left) / len(stickers)
        shown = frame
        for number, sticker in enumerate(stickers):
            room = np.array([left + number * step, left + (number + 1) * step, top, foot])
            shown = _stuck(shown, sticker, room)
        yield shown


def _stuck(frame: Pixels, sticker: Floats, room: Doubles) -> Pixels:
    """
    The frame with a picture as large as the room allows, in its middle, at its foot.
    """
    left, right, top, foot = room
    height, width = sticker.shape[:2]
    scale = min((right - left) / width, (foot - top) / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(sticker, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    start = (left + right - width * scale) / 2, foot - height * scale
    whole = Box(0, 0, frame.shape[1], frame.shape[0])
    box = Box(int(start[0]) - 1, int(start[1]) - 1, ceil(start[0] + size[0]) + 2, ceil(foot) + 2).wider(0, whole)
    if min(box.size) <= 0:
        return frame
    fine = shift(start[0] - box.left, start[1] - box.top) @ scaling(width * scale / size[0], height * scale / size[1])
    placed = np.asarray(cv2.warpAffine(small, fine[:2], box.size, flags=cv2.INTER_LINEAR), dtype=np.float32)
    mixed = frame[box.there] * (1 - placed[..., 3:]) + 255 * placed[..., :3]
    result = frame.copy()
    result[box.there] = np.clip(np.rint(mixed), 0, 255)
    return result


def contact_sheet(moments: Sequence[int], before: Clip, preview: Clip, after: Clip) -> bytes:
    """
    One PNG for people: a column for each moment; rows before, mask and after.

    Args:
        moments: Indexes of frames.
        before: The original clip.
        preview: The clip with the mask drawn.
        after: The result.

    Raises:
        ValueError: There is no moment, or a clip does not have such a frame.
    """
    if not moments:
        raise ValueError("a contact sheet needs at least one moment")
    width = (_SHEET_WIDTH - _GAP * (len(moments) + 1)) // len(moments)
    height = round(width * before.height / before.width)
    sheet = Image.new("RGB", (_SHEET_WIDTH, (height + _GAP) * len(_ROWS) + _GAP), "white")
    for row, clip in enumerate((before, preview, after)):
        frames = dict(clip.pick(moments))
        for column, moment in enumerate(moments):
            if moment not in frames:
                raise ValueError(f"the {_ROWS[row]} clip has no frame {moment}; it has {clip.total_frames}")
            picture = Image.fromarray(frames[moment]).resize((width, height), Image.Resampling.LANCZOS)
            _captioned(picture, f"{_ROWS[row]}, {moment / clip.fps:.2f} s")
            sheet.paste(picture, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return _png(np.asarray(sheet, dtype=np.uint8))


def _captioned(picture: Image.Image, text: str) -> None:
    font = ImageFont.load_default(size=20)
    pen = ImageDraw.Draw(picture, "RGBA")
    left, top, right, bottom = pen.textbbox((12, 8), text, font=font)
    pen.rounded_rectangle((left - 7, top - 6, right + 7, bottom + 6), radius=6, fill=(0, 0, 0, 150))
    pen.text((12, 8), text, font=font, fill="white")
