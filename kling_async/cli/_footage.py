"""
The clip that is shipped, and the pictures that the demo makes of it. Needs the extra `demo` to draw.

Decides what these pictures show. Knows nothing of the service.
"""

from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from kling_async.masks import Mask
from kling_async.points import Point

from ._codes import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

CLIP = Path(str(files("kling_async.simulator") / "media" / "bunny-24fps-4s.mp4"))
"""96 frames at 24 fps, 1280 x 720; the stones at its right are a fair thing to remove."""
CREDIT = "Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"
LICENCE = "https://creativecommons.org/licenses/by/3.0/"
FRAME_INDEX = 40
STONES = (Point(0.80, 0.53), Point(0.90, 0.57), Point(0.965, 0.57))
RABBIT = (Point(0.37, 0.60),)
MOMENTS = (8, 48, 88)
"""Frames of the contact sheet."""

_DOT = 9
_WRONG = (230, 60, 50)
_RIGHT = (40, 200, 90)


def check_extra() -> None:
    """
    Whether what sees and edits video is installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import av  # noqa: F401 - whether it is there
        import cv2  # noqa: F401 - the same
        import numpy as np  # noqa: F401 - the same
        import PIL  # noqa: F401 - the same
    except ImportError as error:
        raise UsageError(f"editing real video needs more: pip install 'kling-async[cli,demo]' ({error})") from error


def attribution() -> str:
    """
    Author and licence of the clip, as its licence asks for.
    """
    return (
        f"The clip is cut from {CREDIT}\n{LICENCE}\n"
        "preview.mp4, result.mp4 and the pictures here are made from it and were changed by kling-async's simulator.\n"
    )


def frame_png(mask: Mask | None, good: Sequence[Point], misplaced: Sequence[Point] = ()) -> bytes:
    """
    The marked frame, with its mask if there is one, and its points.

    Args:
        mask: What they marked.
        good: Points that stay.
        misplaced: Points that were taken away again, drawn as crosses.
    """
    from PIL import Image

    from kling_async.simulator._footage import open_clip
    from kling_async.simulator._hands import draw_mask

    frame = open_clip(CLIP).frame(FRAME_INDEX)
    picture = Image.fromarray(frame if mask is None else draw_mask(frame, mask.to_array()))
    for points, color in ((good, _RIGHT), (misplaced, _WRONG)):
        for point in points:
            _dot(picture, point, color)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _dot(picture: "Picture", point: Point, color: tuple[int, int, int]) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    x, y = point.x * picture.width, point.y * picture.height
    for radius, shade in ((_DOT + 3, (255, 255, 255)), (_DOT, color)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
    if color == _WRONG:
        arm = _DOT // 2
        pen.line((x - arm, y - arm, x + arm, y + arm), fill="white", width=3)
        pen.line((x - arm, y + arm, x + arm, y - arm), fill="white", width=3)


def sheet_png(preview: Path, result: Path) -> bytes:
    """
    Before, mask and after at three moments.

    Args:
        preview: The clip with its mask.
        result: The edited clip.
    """
    from kling_async.simulator._footage import open_clip
    from kling_async.simulator._hands import contact_sheet

    return contact_sheet(MOMENTS, open_clip(CLIP), open_clip(preview), open_clip(result))
