"""
Masks against pycocotools, on the same run lengths: `python -m benchmarks.masks`.

Pixels are compared with its pixels. Area, box and whether a point lies on the object are asked of a mask that was not
asked before, and compared with what pycocotools takes to make pixels, from which a script would read them.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import pinned
from benchmarks.table import Row, printed
from kling_async import Mask, Point

ROUNDS = 15
TIMES = 20
SIZES = ((720, 1280), (2160, 2160))
MIDDLE = Point(0.5, 0.5)

ASKED: dict[str, Callable[[Mask], object]] = {
    "to_array": Mask.to_array,
    "area": lambda mask: mask.area,
    "bbox": lambda mask: mask.bbox,
    "contains": lambda mask: mask.contains(MIDDLE),
}


def blob(height: int, width: int) -> NDArray[np.uint8]:
    """
    A few smooth shapes with rough edges, as segmentation gives them.
    """
    draw = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    pixels = np.zeros((height, width), bool)
    for _ in range(3):
        top, left, radius = draw.uniform(0.2, 0.8), draw.uniform(0.2, 1.2), draw.uniform(0.1, 0.25)
        angle = np.arctan2(y - top, x - left)
        edge = radius * (1 + 0.1 * np.sin(9 * angle) + 0.03 * np.sin(61 * angle))
        pixels |= np.hypot(y - top, x - left) < edge
    return np.asfortranarray(pixels.astype(np.uint8))


def to_pycocotools(height: int, width: int, what: str = "to_array") -> list[float]:
    """
    CPU seconds of an answer of ours over those of pycocotools' pixels, round by round; both checked against the pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pycocotools import mask as coco

        pixels = blob(height, width)
        encoded = coco.encode(pixels)
        counts, ask = encoded["counts"].decode(), ASKED[what]
        mask = Mask(object_id=0, height=height, width=width, counts=counts)
        assert (mask.to_array() == pixels).all()
        assert (mask.area, mask.contains(MIDDLE)) == (pixels.sum(), pixels[height // 2, width // 2])
        ratios = []
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(TIMES):
                ask(Mask(object_id=0, height=height, width=width, counts=counts))
            between = time.process_time()
            for _ in range(TIMES):
                coco.decode(encoded)
            ratios.append((between - began) / (time.process_time() - between))
    return ratios


def against_pycocotools(height: int, width: int) -> float:
    """
    The median for pixels.
    """
    return median(to_pycocotools(height, width))


def rows() -> Iterator[Row]:
    """
    The table, line by line.
    """
    with pinned():
        for height, width in SIZES:
            size = f"{height} x {width}"
            yield Row.of(f"mask to pixels / pycocotools, {size}", to_pycocotools(height, width), 0.6, 0.35)
            for what in ("area", "bbox", "contains"):
                yield Row.of(f"Mask.{what} / pixels by pycocotools, {size}", to_pycocotools(height, width, what))


if __name__ == "__main__":
    printed(rows())
