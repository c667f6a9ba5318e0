"""
Masks without extras: the same discs by columns, by rows, and by definition.
"""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from kling_async.masks import Mask, encode_runs
from kling_async.points import Point
from kling_async.simulator._geometry import SHARE, picture, runs

fractions = st.floats(0, 1)
spots = st.lists(st.tuples(fractions, fractions), max_size=10)
sides = st.integers(1, 90)


def truth(points, height, width):
    """
    Every pixel asked by itself, in half-pixels.
    """
    down, across = np.mgrid[0:height, 0:width] * 2 + 1
    radius = max(2, round(2 * SHARE * min(height, width)))
    plane = np.zeros((height, width), bool)
    for x, y in points:
        plane |= (across - round(2 * x * width)) ** 2 + (down - round(2 * y * height)) ** 2 <= radius**2
    return plane


def decoded(data):
    with Image.open(BytesIO(data)) as image:
        return image.mode, np.asarray(image) > 0


@given(points=spots, height=sides, width=sides)
@settings(deadline=None, max_examples=300)
def test_runs_and_picture_are_the_discs_to_the_pixel(points, height, width):
    """
    For any points and any size, runs and PNG agree with the definition of a disc.
    """
    expected = truth(points, height, width)
    mask = Mask.from_runs(runs(points, height, width), height=height, width=width)
    assert expected.tolist() == mask.to_array().tolist()
    mode, pixels = decoded(picture(points, height, width))
    assert "1" == mode
    assert expected.tolist() == pixels.tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (2160, 2160), (719, 1281)])
def test_runs_of_real_sizes_are_read_by_coco(size):
    """
    COCO's own decoder sees the same discs, at the edges and where they overlap.
    """
    height, width = size
    points = [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.52, 0.5), (0.3, 1.0), (1.0, 0.2)]
    counts = encode_runs(runs(points, height, width))
    expected = truth(points, height, width)
    assert (expected == coco.decode({"size": [height, width], "counts": counts}).astype(bool)).all()
    assert (expected == decoded(picture(points, height, width))[1]).all()


@given(point=st.tuples(fractions, fractions))
def test_a_point_lies_on_its_own_mask(point):
    """
    Whatever is marked is on the object.
    """
    mask = Mask.from_runs(runs([point], 90, 160), height=90, width=160)
    assert mask.contains(Point(*point))


def test_a_frame_may_be_covered_and_may_be_empty():
    """
    The first run is of zeros, and there is no empty run at the end.
    """
    assert [6] == runs([], 2, 3)
    assert [0, 1] == runs([(0.5, 0.5)], 1, 1)
