"""
Objects in one frame: masks, and the outline that a few points most likely mean.

Decides which pixels belong to a marked object. Knows nothing of motion and of clips.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ._footage import WORK_SIDE, Pixels, fit

Plane = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_COARSE_SIDE = 320
_LAYOUT_SIDE = 160
_FEWEST_PIXELS = 24
_SEED = 7


def resized(plane: Plane, size: tuple[int, int]) -> Plane:
    """
    A mask at another size, its outline kept smooth.

    Args:
        plane: The mask.
        size: Width and height.
    """
    if plane.shape == size[::-1]:
        return plane
    smaller = size[0] < plane.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=how) > 0.5)


def _disc(radius: int) -> Pixels:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), dtype=np.uint8)


def grown(plane: Plane, radius: int) -> Plane:
    """
    A mask with a margin around it.

    Args:
        plane: The mask.
        radius: Width of the margin; negative: take as much away.
    """
    change = cv2.dilate if radius > 0 else cv2.erode
    return np.asarray(change(plane.astype(np.uint8), _disc(abs(radius)), borderType=cv2.BORDER_REPLICATE) > 0)


def _small(frame: Pixels, side: int) -> Pixels:
    size = fit(frame.shape[1], frame.shape[0], side)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _effort(lab: Floats, seeds: Plane) -> Floats:
    """
    How much change of colour lies between each pixel and the nearest seed, along the easiest way.
    """
    height, width = seeds.shape
    weighted = lab * np.array([0.5, 1, 1], np.float32)
    strange = np.min([np.linalg.norm(weighted - colour, axis=2) for colour in weighted[seeds]], axis=0)
    toll = 0.3 + 0.6 * np.maximum(strange - 4, 0)
    around = np.pad(lab, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inner = np.s_[1:-1, 1:-1]
    effort = np.pad(np.where(seeds, 0, np.inf), 1, constant_values=np.inf).astype(np.float32)
    ways = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        there = np.s_[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        back = np.s_[1 - down : 1 - down + height, 1 - right : 1 - right + width]
        # A power above 1 lets shading pass and makes an outline dear.
        change = np.linalg.norm(around[there] - lab, axis=2) ** 1.6 * 8**-0.6 + toll * np.hypot(down, right)
        price = np.pad(change, 1, constant_values=np.inf).astype(np.float32)
        ways += [(there, price[inner]), (back, price[back])]
    here = effort[inner]
    before = np.empty_like(here)
    while not np.array_equal(before, here):
        before = here.copy()
        for there, price in ways:
            np.minimum(here, effort[there] + price, out=here)
    return here


def _closeness(frame: Pixels, points: Sequence[tuple[float, float]]) -> Floats:
    """
    Below 1 inside of the object that the points most likely mean, at thumbnail size.

    Of all outlines at equal effort from the points, the best is the one with the strongest contrast across it.
    """
    thumbnail = _small(frame, _LAYOUT_SIDE)
    lab = cv2.GaussianBlur(cv2.cvtColor(thumbnail.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 0.7)
    height, width = lab.shape[:2]
    marks = np.zeros((height, width), np.uint8)
    for x, y in points:
        cv2.circle(marks, (min(int(x * width), width - 1), min(int(y * height), height - 1)), 1, 1, -1)
    effort = _effort(np.asarray(lab, dtype=np.float32), marks > 0)
    slopes = [cv2.Sobel(lab, cv2.CV_32F, *axis, scale=0.25) for axis in ((1, 0), (0, 1))]
    contrast = np.sqrt(sum((slope * slope).sum(2) for slope in slopes))
    box = np.ones((3, 3), np.uint8)
    scores: dict[float, float] = {}
    for limit in np.geomspace(5, 300, 40):
        inside = cv2.morphologyEx((effort < limit).astype(np.uint8), cv2.MORPH_CLOSE, box)
        edge = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, box) > 0
        if edge.any():
            scores[float(limit)] = float(contrast[edge].mean()) * (1 - float(inside.mean()))
    best = max(scores, key=lambda limit: scores[limit], default=300.0)
    return np.asarray(effort / best, dtype=np.float32)


def _pieces(mask: Plane, points: Sequence[tuple[float, float]]) -> Plane:
    """
    Only the pieces under, or next to, a point.
    """
    height, width = mask.shape
    near = np.zeros(mask.shape, np.uint8)
    for x, y in points:
        cv2.circle(
            near, (min(int(x * width), width - 1), min(int(y * height), height - 1)), max(2, width // 100), 1, -1
        )
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    return mask & np.isin(labels, labels[(near > 0) & mask])


@frozen
class Looks:
    """
    How an object and its surroundings are coloured.
    """

    behind: Doubles
    "Mixture of Gaussians around it, as GrabCut keeps it."
    before: Doubles
    "The same within it."


def grabcut(frame: Pixels, marks: Pixels, looks: Looks | None, rounds: int) -> Looks | None:
    """
    Decide the likely pixels of `marks` in place; nothing happens where one side has too few pixels to learn from.

    Args:
        frame: RGB.
        marks: What is sure and what is likely, as GrabCut wants it.
        looks: What was learned before, taken as it is; None: learn from this frame.
        rounds: How often to learn and cut.

    Returns:
        What was learned, or None.
    """
    inside = int((marks & 1).sum())
    if min(inside, marks.size - inside) < _FEWEST_PIXELS:
        return looks
    learned = Looks(np.zeros((1, 65)), np.zeros((1, 65))) if looks is None else looks
    how = cv2.GC_INIT_WITH_MASK if looks is None else cv2.GC_EVAL_FREEZE_MODEL
    cv2.setRNGSeed(_SEED)
    cv2.grabCut(frame, marks, (0, 0, 1, 1), learned.behind, learned.before, rounds, how)
    return learned


def band(mask: Plane, radius: int) -> Pixels:
    """
    What GrabCut is told: only a band along the outline is open to doubt.

    Args:
        mask: The object so far.
        radius: Of the band, to both sides.
    """
    sure = np.where(grown(mask, -radius), cv2.GC_FGD, cv2.GC_BGD)
    doubt = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return np.where(grown(mask, radius) & ~grown(mask, -radius), doubt, sure).astype(np.uint8)


def _snapped(mask: Plane, frame: Pixels) -> Plane:
    """
    A small mask at the frame's size, its outline drawn to the frame's own edges by a guided filter.
    """
    height, width = frame.shape[:2]
    if mask.shape == (height, width):
        return mask
    soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    guide = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    window = (2 * round(1.5 * width / mask.shape[1]) + 1,) * 2
    mean_guide, mean_soft = cv2.blur(guide, window), cv2.blur(soft, window)
    shared = cv2.blur(guide * soft, window) - mean_guide * mean_soft
    slope = shared / (cv2.blur(guide * guide, window) - mean_guide * mean_guide + 1e-3)
    level = cv2.blur(mean_soft - slope * mean_guide, window)
    return np.asarray(cv2.blur(slope, window) * guide + level > 0.5)


def segment(frame: Pixels, points: Sequence[tuple[float, float]]) -> Plane:
    """
    The object that these points mean, h x w.

    Args:
        frame: RGB, h x w x 3.
        points: x and y as fractions of width and height.

    Raises:
        ValueError: There is no point, or one lies outside of the frame.
    """
    if not points or not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points):
        raise ValueError("an object needs at least one point, and every point two fractions between 0 and 1")
    closeness = _closeness(frame, points)
    coarse = _small(frame, _COARSE_SIDE)
    near = cv2.resize(closeness, coarse.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    choices = [cv2.GC_FGD, cv2.GC_PR_FGD, cv2.GC_PR_BGD]
    marks = np.select([near < 0.7, near < 1, near < 1.35], choices, cv2.GC_BGD).astype(np.uint8)
    grabcut(coarse, marks, None, 3)
    cut = cv2.morphologyEx(marks & 1, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    mask = _first([_pieces(cut, points), near < 1])
    fine = _small(frame, WORK_SIDE)
    marks = band(resized(mask, fine.shape[1::-1]), 5)
    grabcut(fine, marks, None, 1)
    return _snapped(_first([_pieces((marks & 1) > 0, points), mask]), frame)


def _first(masks: Sequence[Plane]) -> Plane:
    """
    The first that is not empty: something thin can vanish as it is cut out or smoothed.
    """
    return next((mask for mask in masks if mask.any()), masks[-1])
