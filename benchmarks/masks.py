"""
Decoding a mask to pixels: `Mask.to_array` against pycocotools, on the same run lengths.
"""

import time
import warnings
from statistics import median

import numpy as np
from numpy.typing import NDArray

from kling_async import Mask

ROUNDS = 15
TIMES = 20


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


def against_pycocotools(height: int, width: int) -> float:
    """
    Seconds of our decoder over seconds of pycocotools, both checked against the pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pycocotools import mask as coco

        pixels = blob(height, width)
        encoded = coco.encode(pixels)
        mask = Mask(object_id=0, height=height, width=width, counts=encoded["counts"].decode())
        assert (mask.to_array() == pixels).all()
        ratios = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(TIMES):
                mask.to_array()
            between = time.perf_counter()
            for _ in range(TIMES):
                coco.decode(encoded)
            ratios.append((between - began) / (time.perf_counter() - between))
    return median(ratios)
