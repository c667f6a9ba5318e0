"""
The contact sheet of a batch.
"""

from io import BytesIO

import pytest
from PIL import Image

from kling_async.cli._footage import CLIP
from kling_async.cli._sheet import MOMENTS, ROWS_MOST, can_draw, sheet_jpg


def opened(sheet):
    return Image.open(BytesIO(sheet))


def test_a_result_is_shown_at_three_moments():
    """
    A row of the clip's own frames: the sheet is no empty paper.
    """
    sheet = opened(sheet_jpg([("spring-1", CLIP)]))
    thirds = [sheet.crop((at, 40, at + 250, sheet.height - 20)).convert("L").getextrema() for at in (20, 330, 640)]
    assert len(MOMENTS) == len([least for least, most in thirds if most - least > 60])


def test_what_is_no_video_has_a_row_that_says_so(tmp_path):
    """
    It is named, and the others are shown all the same.
    """
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    alone, both = opened(sheet_jpg([("a", CLIP)])), opened(sheet_jpg([("a", CLIP), ("b", broken)]))
    assert alone.height < both.height < 2 * alone.height
    assert opened(sheet_jpg([("b", tmp_path / "gone.mp4")])).height < alone.height


def test_a_long_batch_is_shown_in_part(tmp_path):
    """
    The first sixty are.
    """
    gone = [("gone", tmp_path / "gone.mp4")]
    assert opened(sheet_jpg(gone * ROWS_MOST)).height == opened(sheet_jpg(gone * (ROWS_MOST + 1))).height


@pytest.mark.parametrize("missing", ["av", "PIL"])
def test_without_the_extra_nothing_is_drawn(monkeypatch, missing):
    """
    The command asks first.
    """
    assert can_draw()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    assert not can_draw()
