"""
The contact sheet of a batch: a row for each result, with three of its frames. Needs the extra `demo` to draw.

Decides what is shown of how many results. A result that cannot be read is shown as such: it is what people look for.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SHEET: Final = "contact-sheet.jpg"
"""Its name."""
ROWS_MOST: Final = 60
"""Results that are shown; the first ones, where there are more."""
MOMENTS: Final = (0.1, 0.5, 0.9)
"""Parts of the clip's length at which its frames are taken."""
_WIDTH, _GAP, _NAME = 300, 8, 22


def can_draw() -> bool:
    """
    Whether what reads video and draws is installed.
    """
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("av", "cv2", "numpy", "PIL"))


def sheet_jpg(results: Sequence[tuple[str, Path]]) -> bytes:
    """
    The sheet.

    Args:
        results: Names and files.
    """
    from PIL import Image

    rows = [_row(name, path) for name, path in results[:ROWS_MOST]]
    sheet = Image.new(
        "RGB", (len(MOMENTS) * (_WIDTH + _GAP) + _GAP, sum(row.height + _GAP for row in rows) + _GAP), "white"
    )
    top = _GAP
    for row in rows:
        sheet.paste(row, (_GAP, top))
        top += row.height + _GAP
    file = BytesIO()
    sheet.save(file, "JPEG", quality=85)
    return file.getvalue()


def _row(name: str, path: Path) -> "Picture":
    """A result's name over its frames."""
    from PIL import Image, ImageDraw, ImageFont

    try:
        frames = _frames(path)
    except (OSError, ValueError) as error:
        frames, name = [], f"{name}: cannot be read ({type(error).__name__})"
    height = max((frame.height for frame in frames), default=0)
    row = Image.new("RGB", (len(MOMENTS) * (_WIDTH + _GAP), height + _NAME), "white")
    ImageDraw.Draw(row).text((2, 2), name, font=ImageFont.load_default(size=14), fill="black")
    for column, frame in enumerate(frames):
        row.paste(frame, (column * (_WIDTH + _GAP), _NAME))
    return row


def _frames(path: Path) -> "list[Picture]":
    from PIL import Image

    from kling_async.simulator._footage import fit, open_clip

    clip = open_clip(path)
    moments = [int(part * (clip.total_frames - 1)) for part in MOMENTS]
    found = dict(clip.pick(moments))
    size = fit(clip.width, clip.height, _WIDTH)
    return [Image.fromarray(found[moment]).resize(size, Image.Resampling.LANCZOS) for moment in moments]
