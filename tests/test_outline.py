"""
Objects in one frame: points in, a mask out.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from kling_async import simulator
from kling_async.simulator._footage import open_clip
from kling_async.simulator._outline import grabcut, grown, resized, segment
from tests.clips import overlap, scene, texture

BUNNY = Path(simulator.__file__).parent / "media" / "bunny-24fps-4s.mp4"


def disc(height, width, x, y, radius):
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(columns - x, rows - y) < radius


def painted(mask, colour=(225, 50, 40), seed=3):
    frame = texture(*mask.shape, seed=seed)
    frame[mask] = colour
    return frame


def test_one_point_finds_the_whole_object():
    """
    A point in a disc on a textured wall gives that disc.
    """
    truth = disc(180, 320, 150, 90, 30)
    assert overlap(truth, segment(painted(truth), [(150 / 320, 90 / 180)])) > 0.95


def test_large_frames_are_outlined_at_full_size():
    """
    The mask of a frame larger than the working size has the frame's size and its edges.
    """
    truth = disc(720, 1280, 700, 300, 140)
    mask = segment(painted(truth), [(700 / 1280, 300 / 720)])
    assert (720, 1280) == mask.shape
    assert overlap(truth, mask) > 0.97


def test_only_pieces_under_a_point_are_kept():
    """
    Of two equal discs the one without a point stays out, and both come with a point each.
    """
    left, right = disc(180, 320, 80, 90, 26), disc(180, 320, 240, 90, 26)
    frame = painted(left | right)
    one, both = segment(frame, [(0.25, 0.5)]), segment(frame, [(0.25, 0.5), (0.75, 0.5)])
    assert overlap(left, one) > 0.95
    assert not (one & right).any()
    assert overlap(left | right, both) > 0.95


def test_points_on_the_frame_s_edges_count():
    """
    A point at the very corner marks what lies there.
    """
    truth = disc(180, 320, 319, 179, 60)
    assert overlap(truth, segment(painted(truth), [(1, 1)])) > 0.9


def test_same_points_give_the_same_mask():
    """
    Nothing is left to chance.
    """
    frame = scene(frames=1).frames[0]
    assert np.array_equal(segment(frame, [(0.45, 0.5)]), segment(frame, [(0.45, 0.5)]))


def test_something_thin_is_not_lost():
    """
    A line thinner than the thumbnail's pixels still gives a mask that holds it.
    """
    frame = np.full((180, 320, 3), 90, np.uint8)
    frame[60:120, 160:161] = (255, 240, 0)
    mask = segment(frame, [(160.5 / 320, 0.5)])
    assert mask[90, 160]
    assert 0 < mask.mean() < 0.1


def test_frame_of_one_colour_gives_something():
    """
    Where there is no outline at all, the mask is not empty, and nothing fails.
    """
    assert segment(np.full((90, 160, 3), 120, np.uint8), [(0.5, 0.5)]).any()


@pytest.mark.parametrize("points", [[], [(0.5, 1.2)], [(-0.1, 0.5)], [(0.5, 0.5), (float("nan"), 0.1)]])
def test_points_outside_of_the_frame_are_refused(points):
    """
    No point, or one beyond the edges, is an error.
    """
    with pytest.raises(ValueError, match="two fractions between 0 and 1"):
        segment(texture(45, 80), points)


def test_masks_change_size_and_keep_their_shape():
    """
    Shrinking and enlarging a mask keeps what it covers; the same size is the same mask.
    """
    truth = disc(360, 640, 300, 200, 90)
    small = resized(truth, (320, 180))
    assert overlap(disc(180, 320, 150, 100, 45), small) > 0.97
    assert overlap(truth, resized(small, (640, 360))) > 0.97
    assert truth is resized(truth, (640, 360))


def test_margins_grow_and_shrink():
    """
    A margin adds to all sides, a negative one takes away, and the frame's edge takes nothing.
    """
    truth = disc(100, 100, 50, 50, 20)
    assert overlap(disc(100, 100, 50, 50, 26), grown(truth, 6)) > 0.93
    assert overlap(disc(100, 100, 50, 50, 14), grown(truth, -6)) > 0.9
    assert grown(np.ones((20, 20), bool), -5).all()


def test_cut_needs_something_to_learn_from():
    """
    With next to nothing on one side, what is likely stays as it was.
    """
    marks = np.full((20, 20), cv2.GC_PR_FGD, np.uint8)
    assert grabcut(texture(20, 20), marks, None, 1) is None
    assert (marks == cv2.GC_PR_FGD).all()


def test_stones_of_the_demo_clip_are_found():
    """
    Three points on the real clip give the stones: about 6 % of the frame, up to its right edge, without the grass.
    """
    mask = segment(open_clip(BUNNY).frame(40), [(0.80, 0.53), (0.90, 0.57), (0.965, 0.57)])
    assert 0.055 < mask.mean() < 0.075
    assert mask[380:450, -1].all()
    assert not mask[:290].any()
    assert not mask[490:].any()
    assert not mask[:, :800].any()
