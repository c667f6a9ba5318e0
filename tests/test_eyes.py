"""
Objects and the camera, followed through a clip.
"""

from pathlib import Path

import numpy as np
import pytest

from kling_async.simulator import _eyes
from kling_async.simulator._eyes import Clip, open_clip, register, segment, track
from tests.clips import movie, overlap, scene, texture

BUNNY = Path(_eyes.__file__).parent / "media" / "bunny-24fps-4s.mp4"


@pytest.fixture(scope="module")
def still():
    return scene(frames=16)


@pytest.fixture(scope="module")
def moving():
    return scene(frames=16, motion=(4.0, -1.0), start=(90, 100))


def test_camera_is_followed_to_a_fraction_of_a_pixel(still):
    """
    The drift of the camera is found exactly, although the object hides a part of the wall.
    """
    moves = register(still.frames, 5, {5: still.masks[5]})
    for index, move in enumerate(moves):
        corners = np.array([[20, 20, 1], [300, 20, 1], [20, 160, 1], [300, 160, 1.0]])
        seen = corners @ move.T
        apart = seen[:, :2] / seen[:, 2:] - corners[:, :2] - np.array([1.5, 0.5]) * (index - 5)
        assert np.abs(apart).max() < 0.4


def test_camera_is_followed_beyond_the_reference():
    """
    When the view has left the reference behind, other frames take over.
    """
    pan = scene(frames=24, drift=(-9.0, 0.0), radius=4)
    moves = register(pan.frames, 0, {})
    assert -9.0 * 23 == pytest.approx(moves[-1][0, 2] / moves[-1][2, 2], abs=4)


def test_camera_stands_still_where_nothing_can_be_seen():
    """
    Frames without a corner, or with a few that lead nowhere, leave the camera where it was.
    """
    blank = [np.full((90, 160, 3), 128, np.uint8)] * 3
    assert np.array_equal(np.repeat(np.eye(3)[None], 3, axis=0), register(blank, 1, {}))
    noise = np.random.default_rng(1)
    square = [np.pad(np.full((30, 40, 3), 250, np.uint8), ((30, 30), (60, 60), (0, 0)))] * 2
    assert np.array_equal(np.repeat(np.eye(3)[None], 2, axis=0), register(square, 0, {}))
    wild = [noise.integers(0, 255, (90, 160, 3), dtype=np.uint8) for _ in range(3)]
    assert np.allclose(np.eye(3), register(wild, 0, {}), atol=60)


def test_what_no_camera_does_is_not_believed():
    """
    Corners that all end in one place, or that are turned over, give no motion at all.
    """
    before = np.random.default_rng(2).uniform(0, 100, (60, 1, 2)).astype(np.float32)
    for after in (np.full_like(before, 7), before * np.array([-1, 1], np.float32)):
        assert _eyes._fitted(before[:20], after[:20], 10_000) is None
        assert _eyes._fitted(before, after, 10_000) is None


def test_few_corners_give_a_plain_motion():
    """
    With corners in one small part of the view, shift, turn and scale are found and no more.
    """
    frames = []
    for number in range(4):
        frame = np.full((180, 320, 3), 90, np.uint8)
        frame[60:110, 100 + 2 * number : 170 + 2 * number] = texture(50, 70)
        frames.append(frame)
    moves = register(frames, 0, {})
    assert 6 == pytest.approx(moves[3][0, 2] + (moves[3][0, 0] - 1) * 135, abs=0.5)
    assert [0, 0, 1] == moves[3][2].tolist()


def test_object_that_stands_still_is_tracked(still):
    """
    A disc on the wall is found in every frame from one mark.
    """
    masks = track(open_clip(still.video), {5: still.masks[5]})
    assert 16 == len(masks)
    assert min(overlap(truth, mask) for truth, mask in zip(still.masks, masks, strict=True)) > 0.93


def test_object_that_moves_is_tracked(moving):
    """
    A disc that crosses the wall by itself is found in every frame, before and after its mark.
    """
    masks = track(open_clip(moving.video), {6: moving.masks[6]})
    assert min(overlap(truth, mask) for truth, mask in zip(moving.masks, masks, strict=True)) > 0.9


def test_points_are_enough(moving):
    """
    From one point to masks in all frames.
    """
    clip = open_clip(moving.video)
    mask = segment(clip.frame(6), [((90 + 5.5 * 6) / 320, (100 - 0.5 * 6) / 180)])
    masks = track(clip, {6: mask})
    assert min(overlap(truth, mask) for truth, mask in zip(moving.masks, masks, strict=True)) > 0.9


def test_each_frame_follows_the_nearest_mark(moving):
    """
    With two marks, one of them empty, the frames nearer to the empty one are empty.
    """
    masks = track(open_clip(moving.video), {2: moving.masks[2], 12: np.zeros((180, 320), bool)})
    assert [True] * 7 + [False] * 9 == [bool(mask.any()) for mask in masks]


def test_object_cut_off_by_the_edge_grows_into_view():
    """
    What was beyond the edge in the marked frame belongs to the object when the camera comes to see it.
    """
    pan = scene(frames=8, drift=(-3.0, 0.0), start=(316, 90), radius=30)
    masks = track(open_clip(pan.video), {0: pan.masks[0]})
    assert overlap(pan.masks[7], masks[7]) > 0.8


def test_object_that_leaves_is_gone():
    """
    A disc that walks out of view leaves an empty mask and no trace.
    """
    leaving = scene(frames=16, motion=(12.0, 0.0), start=(220, 90), drift=(0.5, 0.0), radius=18)
    masks = track(open_clip(leaving.video), {0: leaving.masks[0]})
    assert overlap(leaving.masks[4], masks[4]) > 0.85
    assert masks[-1].mean() < 0.002


def test_tiny_mark_is_carried_by_the_flow_alone(moving):
    """
    A mark with too few pixels to learn colours from still moves along.
    """
    speck = np.zeros((180, 320), bool)
    speck[98:101, 110:114] = True
    masks = track(open_clip(moving.video), {4: speck})
    assert [True] * 6 == [bool(mask.any()) for mask in masks[2:8]]


def test_tracking_repeats(moving):
    """
    The same clip and marks give the same masks.
    """
    clip = open_clip(moving.video)
    one, two = (track(clip, {6: moving.masks[6]}) for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("marks", [{}, {16: np.ones((180, 320), bool)}, {-1: np.ones((180, 320), bool)}])
def test_marks_outside_of_the_clip_are_refused(still, marks):
    """
    No mark, or one on a frame that the clip does not have, is an error.
    """
    with pytest.raises(ValueError, match="between 0 and 15"):
        track(open_clip(still.video), marks)


def test_rabbit_of_the_demo_clip_is_tracked():
    """
    Ten frames of the real clip: the rabbit's mask stays about as large and moves with it.
    """
    whole = open_clip(BUNNY)
    frames = [frame for _, frame in whole.pick(range(36, 46))]
    clip = open_clip(movie([frame[::2, ::2].copy() for frame in frames]))
    assert isinstance(clip, Clip)
    mask = segment(clip.frame(4), [(0.37, 0.60), (0.36, 0.20)])
    sizes = [found.mean() / mask.mean() for found in track(clip, {4: mask})]
    assert 0.9 < min(sizes) <= max(sizes) < 1.1
