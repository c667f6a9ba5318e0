"""
Previews and the three edits, on clips whose truth is known.
"""

import io

import numpy as np
import pytest
from PIL import Image

from kling_async.simulator import _hands
from kling_async.simulator._footage import open_clip
from tests.clips import movie, scene, texture

BLUE = (5, 5, 250)


def picture(size=(300, 400), colour=BLUE, form="PNG", margin=0):
    """
    A reference picture of one colour, with a transparent margin if wanted.
    """
    image = Image.new("RGBA" if form == "PNG" else "RGB", size, (*colour, 0)[: 4 if form == "PNG" else 3])
    inner = Image.new(image.mode, (size[0] - 2 * margin, size[1] - 2 * margin), colour)
    image.paste(inner, (margin, margin))
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def blue(frame):
    """
    Where a frame shows the reference picture.
    """
    return np.abs(frame.astype(int) - BLUE).max(2) < 45


def reach(plane):
    rows, columns = np.nonzero(plane)
    return columns.min(), columns.max() + 1, rows.min(), rows.max() + 1


@pytest.fixture(scope="module")
def still():
    return scene(frames=10)


@pytest.fixture(scope="module")
def moving():
    return scene(frames=14, motion=(5.0, 1.0), start=(90, 80))


def test_mask_is_drawn_in_colour_and_outlined():
    """
    Inside the frame is tinted, on the outline it is white, elsewhere it is as before.
    """
    frame, mask = texture(90, 160), np.zeros((45, 80), bool)
    mask[10:30, 20:50] = True
    drawn = _hands.draw_mask(frame, mask)
    assert np.array_equal(frame[:15], drawn[:15])
    assert drawn[40, 70, 0] > 130
    assert drawn[18:22, 70].min(1).max() > 200
    assert not np.array_equal(frame[40, 70], drawn[40, 70])


def test_preview_is_a_video_and_a_cover(still):
    """
    The preview has the clip's size, rate and frames, and its cover shows the mask at its largest.
    """
    clip = open_clip(still.video)
    masks = [*still.masks[:-1], np.zeros_like(still.masks[0])]
    video, cover = _hands.render_preview(clip, masks)
    preview = open_clip(video)
    assert (24.0, 320, 180, 10) == (preview.fps, preview.width, preview.height, preview.total_frames)
    tinted = np.abs(np.asarray(Image.open(io.BytesIO(cover))).astype(int) - still.frames[0]).max(2) > 30
    assert tinted.sum() > 0.8 * still.masks[0].sum()
    assert np.abs(preview.frame(9).astype(int) - clip.frame(9)).mean() < 5


def test_removal_removes(moving):
    """
    The object's colour is gone from every frame, and what is there is close to the true background.
    """
    clip = open_clip(moving.video)
    result = open_clip(_hands.remove(clip, moving.masks))
    assert (24.0, 320, 180, 14) == (result.fps, result.width, result.height, result.total_frames)
    for frame, clean, mask in zip(result.frames(), moving.clean, moving.masks, strict=True):
        assert np.abs(frame.astype(int) - clean)[mask].mean() < 10
        assert np.abs(frame.astype(int) - clean)[~mask].mean() < 5


def test_removal_repeats(still):
    """
    The same clip and masks give the same pictures to the encoder.
    """
    clip = open_clip(still.video)
    one, two = (list(_hands._without(clip, still.masks)) for _ in range(2))
    assert np.array_equal(one, two)


def test_swap_puts_the_picture_where_the_object_was(moving):
    """
    In every frame the picture stands on the lower edge of the object's box, in its middle, as tall as it.
    """
    result = open_clip(_hands.swap(open_clip(moving.video), moving.masks, picture(margin=40)))
    for frame, mask in zip(result.frames(), moving.masks, strict=True):
        left, right, top, foot = reach(mask)
        shown = reach(blue(frame))
        assert [(left + right) / 2, foot, foot - top] == pytest.approx(
            [(shown[0] + shown[1]) / 2, shown[3], shown[3] - shown[2]], abs=6
        )
        assert not (frame[mask].astype(int) @ [1, -0.5, -0.5] > 120).any()


def test_swapped_picture_moves_smoothly():
    """
    Masks that jump to and fro do not make the picture tremble.
    """
    calm = scene(frames=16, drift=(0.0, 0.0))
    masks = [np.roll(mask, 6 * (number % 2), axis=1) for number, mask in enumerate(calm.masks)]
    result = open_clip(_hands.add(open_clip(calm.video), masks, [picture()]))
    middles = [np.mean(reach(blue(frame))[:2]) for frame in result.frames()]
    assert np.abs(np.diff(middles)).max() < 2


def test_addition_without_a_mask_stands_in_the_lower_third(still):
    """
    Pictures without a place of their own stand low in the frame, side by side, and go with the camera.
    """
    result = open_clip(_hands.add(open_clip(still.video), (), [picture(form="JPEG"), picture((500, 300))]))
    first, last = (blue(result.frame(index)) for index in (0, 9))
    assert first[:90].sum() == 0
    assert first[120:165, 80:160].mean() > 0.2
    assert first[120:165, 160:240].mean() > 0.2
    moved = np.array(reach(last)) - reach(first)
    assert [9 * 1.5, 9 * 1.5, 9 * 0.5, 9 * 0.5] == pytest.approx(moved.tolist(), abs=2)


def test_addition_with_masks_keeps_the_rest(still):
    """
    On a tracked object the picture covers it and nothing else.
    """
    clip = open_clip(still.video)
    result = open_clip(_hands.add(clip, still.masks, [picture((400, 400))]))
    frame, mask = result.frame(4), still.masks[4]
    assert blue(frame)[mask].mean() > 0.95
    assert np.abs(frame.astype(int) - clip.frame(4))[:, :90].mean() < 5


def test_frames_without_the_object_get_no_picture(still):
    """
    Where the mask is empty nothing is pasted, whether for a while or from far away in time.
    """
    masks = [mask if number < 3 else np.zeros_like(mask) for number, mask in enumerate(still.masks)]
    result = open_clip(_hands.add(open_clip(still.video), masks, [picture()]))
    assert [True] * 3 + [False] * 7 == [bool(blue(frame).sum() > 50) for frame in result.frames()]


def test_picture_that_the_camera_leaves_behind_is_gone():
    """
    A place out of view is no error.
    """
    pan = scene(frames=30, drift=(-14.0, 0.0), radius=3)
    result = open_clip(_hands.add(open_clip(pan.video), (), [picture()]))
    shown = [blue(frame).sum() for frame in result.frames()]
    assert shown[15] > 500
    assert 0 == shown[-1]


@pytest.mark.parametrize("image", [b"", b"not a picture", picture()[:60]])
def test_picture_that_cannot_be_read_is_refused(still, image):
    """
    What Pillow cannot read is an error with the reason.
    """
    with pytest.raises(ValueError, match="image cannot be read"):
        _hands.swap(open_clip(still.video), still.masks, image)


def test_addition_needs_a_picture(still):
    """
    Adding nothing is an error.
    """
    with pytest.raises(ValueError, match="at least one image"):
        _hands.add(open_clip(still.video), (), [])


def test_picture_that_is_all_transparent_adds_nothing(still):
    """
    A picture that shows nothing is accepted and changes nothing.
    """
    clear = io.BytesIO()
    Image.new("RGBA", (300, 300), (0, 0, 0, 0)).save(clear, "PNG")
    clip = open_clip(still.video)
    result = open_clip(_hands.add(clip, (), [clear.getvalue()]))
    assert np.abs(result.frame(5).astype(int) - clip.frame(5)).mean() < 5


@pytest.mark.parametrize("edit", [_hands.render_preview, _hands.remove])
def test_masks_must_be_as_many_as_frames(still, edit):
    """
    A mask too few is an error that says both numbers.
    """
    with pytest.raises(ValueError, match="10 frames is needed, not 9"):
        edit(open_clip(still.video), still.masks[:-1])


def test_contact_sheet_shows_three_clips_at_three_moments(still):
    """
    Rows are the clips, columns the moments, and the sheet is 1600 pixels wide.
    """
    clips = [open_clip(movie([np.full((90, 160, 3), level, np.uint8)] * 4)) for level in (40, 120, 220)]
    sheet = np.asarray(Image.open(io.BytesIO(_hands.contact_sheet([0, 2, 3], *clips))))
    assert 1600 == sheet.shape[1]
    step = sheet.shape[0] // 3
    for row, level in enumerate((40, 120, 220)):
        for column in range(3):
            assert level == pytest.approx(sheet[row * step + step * 2 // 3, 300 + column * 520].mean(), abs=4)
    assert (sheet[:60, :200] == 255).all(2).any()


@pytest.mark.parametrize("moments, reason", [([], "at least one moment"), ([1, 10], "before clip has no frame 10")])
def test_contact_sheet_needs_moments_that_exist(still, moments, reason):
    """
    No moment, or one past the end, is an error.
    """
    clip = open_clip(still.video)
    with pytest.raises(ValueError, match=reason):
        _hands.contact_sheet(moments, clip, clip, clip)
