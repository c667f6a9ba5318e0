"""
What the simulator sees: objects and the camera, followed through a clip from the frames in which they are marked.

Decides where an object is in every frame. Knows nothing of edits (`_hands`), of tasks or of the API. All of it is a
pure function of its arguments; searches are seeded. Small pictures of all frames are kept together, frames at full
size are not.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np

from ._footage import Clip, Pixels, open_clip
from ._halt import heed
from ._outline import Doubles, Floats, Looks, Plane, band, grabcut, grown, resized, segment

__all__ = ("Clip", "open_clip", "register", "segment", "track")


def _corners(grey: Pixels, hidden: Plane | None) -> Floats:
    allowed = None if hidden is None else np.where(grown(hidden, 6), 0, 255).astype(np.uint8)
    corners: object = cv2.goodFeaturesToTrack(grey, 1000, 0.005, 7, mask=allowed)
    if isinstance(corners, np.ndarray):
        return corners.astype(np.float32)
    return np.zeros((0, 1, 2), np.float32)


def _sought(before: Pixels, after: Pixels, corners: Floats, guess: Floats) -> tuple[Floats, Plane]:
    how = cv2.OPTFLOW_USE_INITIAL_FLOW
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, guess.copy(), winSize=(21, 21), flags=how)
    return np.asarray(there, dtype=np.float32), np.asarray(found)[:, 0] > 0


def _seen_again(before: Pixels, after: Pixels, corners: Floats, guess: Floats) -> tuple[Floats, Plane]:
    """
    Where the corners are now, and which of them are found from there again.
    """
    there, found = _sought(before, after, corners, guess)
    back, again = _sought(after, before, there, corners)
    return there, found & again & (np.linalg.norm(back - corners, axis=2)[:, 0] < 0.5)


def _sound(matrix: object, agreed: object) -> tuple[Doubles, int] | None:
    """
    What was fitted, unless nothing was, few points agree, or it is something that no camera does.
    """
    votes = np.asarray(agreed, dtype=bool)
    if not isinstance(matrix, np.ndarray) or votes.mean() < 0.25 or not 0.2 < np.linalg.det(matrix[:2, :2]) < 5:
        return None
    square = np.eye(3)
    square[: len(matrix)] = matrix
    return square, int(votes.sum())


def _fitted(before: Floats, after: Floats, area: int) -> tuple[Doubles, int] | None:
    """
    The camera's motion between two sets of points and how many agree with it, or None if too few do.
    """
    if len(before) < 8:
        return None
    spread = cv2.contourArea(cv2.convexHull(before)) / area
    if len(before) >= 40 and spread > 0.25:
        matrix, agreed = cv2.findHomography(before, after, cv2.RANSAC, 1.0)
        return _sound(matrix, agreed)
    matrix, agreed = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=1.0)
    return _sound(matrix, agreed)


def register(pictures: Sequence[Pixels], reference: int, objects: Mapping[int, Plane]) -> Doubles:
    """
    Where the camera has moved: for each picture the homography that takes the reference's pixels to its own, n x 3 x 3.

    Corners of the reference are sought in each picture directly, so that errors do not add up; when fewer than half
    are found, the corners of that picture take over.

    Args:
        pictures: RGB, all of one size.
        reference: Index of the picture that the others are compared with.
        objects: Masks of what may move by itself, by index, as far as known.
    """
    greys = _greys(pictures)
    moves = np.repeat(np.eye(3)[None], len(greys), axis=0)
    for way in (range(reference + 1, len(greys)), range(reference - 1, -1, -1)):
        key, base, step = reference, np.eye(3), np.eye(3)
        corners = _corners(greys[key], objects.get(key))
        for index in way:
            heed()
            agreed = 0
            if len(corners):
                guess = cv2.perspectiveTransform(corners, step).astype(np.float32)
                there, found = _seen_again(greys[key], greys[index], corners, guess)
                fitted = _fitted(corners[found], there[found], greys[key].size)
                step, agreed = (step, 0) if fitted is None else fitted
            moves[index] = step @ base
            if agreed < len(corners) / 2:
                key, base, step = index, moves[index], np.eye(3)
                corners = _corners(greys[key], objects.get(key))
    return moves


def _stretches(marks: Sequence[int], total: int) -> Iterator[tuple[int, range]]:
    """
    Each marked frame with the frames that are nearer to it than to any other.
    """
    borders = [0, *((one + two + 1) // 2 for one, two in pairwise(marks)), total]
    for mark, (first, end) in zip(marks, pairwise(borders), strict=True):
        yield mark, range(first, end)


def _carried(mask: Plane, move: Doubles) -> Plane:
    """
    A mask where the camera sees it; one that is cut off by the frame's edge goes on a little beyond it.
    """
    height, width = mask.shape
    beyond = max(height, width) // 12
    soft = np.pad(mask.astype(np.float32), beyond, mode="edge")
    shift = np.array([[1, 0, -beyond], [0, 1, -beyond], [0, 0, 1.0]])
    return np.asarray(cv2.warpPerspective(soft, move @ shift, (width, height)) > 0.5)


def _flow(before: Pixels, after: Pixels) -> Floats:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(flow.calc(before, after, np.empty((1, 1, 2), np.float32)), dtype=np.float32)


def _greys(pictures: Sequence[Pixels]) -> list[Pixels]:
    return [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8) for picture in pictures]


def _stands_still(part: Plane, pictures: Sequence[Pixels], mark: int, moves: Doubles) -> bool:
    """
    Whether a marked object only moves with the camera: seen from the marked frame, it never changes.
    """
    samples = np.linspace(0, len(pictures) - 1, 9).round().astype(int)
    own, *greys = _greys([pictures[mark], *(pictures[index] for index in samples)])
    zone = grown(part, 3)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    verdicts = []
    for grey, index in zip(greys, samples, strict=True):
        seen = np.asarray(cv2.warpPerspective(grey, moves[index], own.shape[::-1], flags=how), dtype=np.uint8)
        change = cv2.absdiff(cv2.blur(own, (3, 3)), cv2.blur(seen, (3, 3)))
        drift = np.linalg.norm(_flow(own, seen), axis=2)
        limit = 4 + 2 * float(np.median(change))
        verdicts.append(float(np.mean(change[zone])) < limit and float(np.median(drift[part])) < 0.75)
    return float(np.mean(verdicts)) > 0.75


def _telling(part: Plane, picture: Pixels) -> tuple[Looks | None, float]:
    """
    The colours of a marked object, and how far they may be trusted: as far as they would have drawn its outline.
    """
    marks = band(part, 5)
    doubt = marks >= cv2.GC_PR_BGD
    looks = grabcut(picture, marks, None, 1)
    right = (marks & 1 > 0) == part
    return looks, float(np.clip(2 * right[doubt].mean() - 1, 0.3, 0.8)) if looks else 0


def _outlined(soft: Floats, picture: Pixels, looks: Looks, trust: float) -> Floats:
    """
    A mask carried along by the flow, pulled towards the outline that the colours show.
    """
    mask = soft > 0.5
    if not mask.any():
        return soft
    rows, columns = (np.flatnonzero(grown(mask, 8).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    marks = np.ascontiguousarray(band(mask, 5)[box])
    grabcut(np.ascontiguousarray(picture[box]), marks, looks, 1)
    cut = np.zeros_like(soft)
    cut[box] = marks & 1
    mixed = soft + trust * (cv2.GaussianBlur(cut, (0, 0), 1.2) - soft)
    return np.asarray(np.clip(1.5 * mixed - 0.25, 0, 1), dtype=np.float32)


def _followed(part: Plane, pictures: Sequence[Pixels], mark: int) -> Plane:
    """
    Where an object that moves by itself is in every picture: optical flow, then its colours, step by step.
    """
    if not part.any():
        return np.zeros((len(pictures), *part.shape), bool)
    greys = _greys(pictures)
    down, across = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    looks, trust = _telling(part, pictures[mark])
    masks = np.repeat(part[None], len(pictures), axis=0)
    for way in (range(mark + 1, len(pictures)), range(mark - 1, -1, -1)):
        before, soft = mark, part.astype(np.float32)
        for index in way:
            heed()
            shift = _flow(greys[index], greys[before])
            places = across + shift[..., 0], down + shift[..., 1]
            soft = cv2.remap(soft, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
            soft = soft if looks is None else _outlined(soft, pictures[index], looks, trust)
            masks[index], before = soft > 0.5, index
    return masks


def track(clip: Clip, masks: Mapping[int, Plane]) -> tuple[Plane, ...]:
    """
    The object in every frame, as masks of the working size: no side longer than `WORK_SIDE`.

    A frame follows the marked frame that is nearest to it. What stands still in the world follows the camera; what
    moves by itself is followed by its flow and colours.

    Args:
        clip: The video.
        masks: The object in the marked frames, by index, of any size.

    Raises:
        ValueError: No frame is marked, or one that the clip does not have.
    """
    pictures = list(clip.small_frames())
    if not masks or not all(0 <= index < len(pictures) for index in masks):
        raise ValueError(f"marked frames must lie between 0 and {len(pictures) - 1}, and there must be one")
    found: list[Plane] = []
    for mark, stretch in _stretches(sorted(masks), len(pictures)):
        part = resized(masks[mark], pictures[mark].shape[1::-1])
        own = pictures[stretch.start : stretch.stop]
        here = mark - stretch.start
        moves = register(own, here, {here: part})
        count, labels = cv2.connectedComponents(part.astype(np.uint8))
        still = [name for name in range(1, count) if _stands_still(labels == name, own, here, moves)]
        fixed = np.isin(labels, still)
        moving = _followed(part & ~fixed, own, here)
        found += [_carried(fixed, move) | mask for move, mask in zip(moves, moving, strict=True)]
    return tuple(found)
