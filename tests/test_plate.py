"""
The background behind an object, and the object gone.
"""

import numpy as np
import pytest

from kling_async.simulator._footage import open_clip
from kling_async.simulator._plate import Box, around, build, camera
from tests.clips import movie, scene


def without(clip, masks):
    plate = build(clip, masks)
    return [plate.over(frame, index) for index, frame in enumerate(clip.frames())]


def apart(one, two, where):
    return float(np.abs(one.astype(int) - two)[where].mean())


@pytest.fixture(scope="module")
def moving():
    return scene(frames=16, motion=(6.0, -1.0), start=(90, 100), radius=20)


@pytest.fixture(scope="module")
def still():
    return scene(frames=12)


def test_box_knows_its_size_and_stays_within_its_room():
    """
    A box is moved, and widened as far as there is room.
    """
    box = Box(2, 3, 6, 10)
    assert (4, 7) == box.size
    assert Box(12, 2, 16, 9) == box.moved(10, -1)
    assert Box(0, 0, 8, 13) == box.wider(3, Box(0, 0, 8, 20))


def test_box_around_a_mask():
    """
    The box holds the mask tightly; an empty mask has none.
    """
    mask = np.zeros((20, 30), bool)
    assert around(mask) is None
    mask[4:9, 7:21] = True
    assert Box(7, 4, 21, 9) == around(mask)


def test_camera_is_given_at_full_size():
    """
    Of a clip larger than the working size, the motion is that of its own pixels.
    """
    large = scene(frames=5, size=(960, 540), drift=(4.0, 2.0), start=(400, 250), radius=60)
    reference, moves = camera(open_clip(large.video), large.masks)
    assert 2 == reference
    point = moves[4] @ [480, 270, 1]
    assert [488, 274] == pytest.approx((point[:2] / point[2]).tolist(), abs=0.4)


def test_background_that_other_frames_show_comes_back(moving):
    """
    Behind a moving object the true background is put, frame by frame.
    """
    frames = without(open_clip(moving.video), moving.masks)
    for frame, clean, mask in zip(frames, moving.clean, moving.masks, strict=True):
        assert apart(frame, clean, mask) < 8


def test_background_that_no_frame_shows_is_made_up(still):
    """
    Behind an object that never moves there is something like its surroundings, and nothing of its own colour.
    """
    frames = without(open_clip(still.video), still.masks)
    for frame, clean, mask in zip(frames, still.clean, still.masks, strict=True):
        assert apart(frame.mean(), clean.mean(), ...) < 4
        assert not (frame[mask].astype(int) @ [1, -0.5, -0.5] > 120).any()
        assert frame[mask].std() > 0.4 * clean[mask].std()


def test_made_up_background_moves_with_the_camera(still):
    """
    What is made up is one picture that drifts with the wall: it does not flicker.
    """
    frames = without(open_clip(still.video), still.masks)
    first, later = (frames[index].astype(int) for index in (0, 8))
    assert np.abs(first[80:100, 140:160] - later[84:104, 152:172]).mean() < 6


def test_rest_of_the_frame_is_untouched(still):
    """
    Away from the object every pixel is that of the clip.
    """
    clip = open_clip(still.video)
    for frame, result in zip(clip.frames(), without(clip, still.masks), strict=True):
        assert np.array_equal(frame[:, :90], result[:, :90])
        assert np.array_equal(frame[:30], result[:30])


def test_no_seam_is_left(moving):
    """
    Along the object's outline the result differs no more from the truth than elsewhere in the mask.
    """
    frames = without(open_clip(moving.video), moving.masks)
    frame, clean, mask = frames[8], moving.clean[8], moving.masks[8]
    rows, columns = np.nonzero(mask)
    box = np.s_[rows.min() - 8 : rows.max() + 8, columns.min() - 8 : columns.max() + 8]
    assert np.abs(frame[box].astype(int) - clean[box]).max(2).mean() < 10


def test_frames_without_the_object_are_passed_on(still):
    """
    Where the mask is empty the frame itself comes back, in the whole clip too.
    """
    clip = open_clip(still.video)
    empty = [np.zeros((180, 320), bool)] * 12
    assert all(np.array_equal(one, two) for one, two in zip(clip.frames(), without(clip, empty), strict=True))


def test_brighter_frames_get_a_brighter_background():
    """
    When the light changes during the clip, the background follows it.
    """
    dark = scene(frames=9, motion=(9.0, 0.0), start=(70, 90), radius=18)
    lit = [np.clip(frame.astype(int) + number, 0, 255).astype(np.uint8) for number, frame in enumerate(dark.frames)]
    frames = without(open_clip(movie(lit)), dark.masks)
    truth = [np.clip(frame.astype(int) + number, 0, 255) for number, frame in enumerate(dark.clean)]
    signed = [(frame - wanted)[mask].mean() for frame, wanted, mask in zip(frames, truth, dark.masks, strict=True)]
    assert np.abs(signed).max() < 3
