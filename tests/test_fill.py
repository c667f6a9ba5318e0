"""
One still picture with a hole, and what may well be behind it.
"""

import cv2
import numpy as np
import pytest

from kling_async.simulator import _fill
from kling_async.simulator._fill import fill
from tests.clips import texture


def hole_in(picture, top, left, tall, wide):
    hole = np.zeros(picture.shape[:2], bool)
    hole[top : top + tall, left : left + wide] = True
    return hole


@pytest.fixture(scope="module")
def land():
    """
    Sky over grass with a sharp horizon.
    """
    picture = texture(120, 200)
    picture[:60] = picture[:60] // 4 + np.array([90, 140, 190], np.uint8)
    picture[60:] = picture[60:] // 4 + np.array([60, 130, 20], np.uint8)
    return picture


def test_known_pixels_stay_as_they_are(land):
    """
    Only the hole is painted, and the picture that was given is left alone.
    """
    hole, before = hole_in(land, 30, 60, 50, 60), land.copy()
    filled = fill(land, hole)
    assert np.array_equal(before[~hole], filled[~hole])
    assert np.array_equal(before, land)


def test_horizon_runs_on_through_the_hole(land):
    """
    Behind something that hides the horizon there is sky above it and grass below it.
    """
    hole = hole_in(land, 25, 60, 70, 70)
    holed = land.copy()
    holed[hole] = (255, 0, 255)
    filled = fill(holed, hole).astype(int)
    blue = filled[..., 2] > filled[..., 1]
    assert blue[25:54, 60:130].mean() > 0.95
    assert blue[66:95, 60:130].mean() < 0.05


def test_hole_at_the_edge_is_filled_alike(land):
    """
    A hole that touches the picture's edge is filled from the other side.
    """
    hole = hole_in(land, 30, 140, 60, 60)
    holed = land.copy()
    holed[hole] = 0
    filled = fill(holed, hole).astype(int)
    blue = filled[..., 2] > filled[..., 1]
    assert blue[30:52, 140:].mean() > 0.95
    assert blue[68:90, 140:].mean() < 0.05


def test_texture_goes_on_without_a_smear():
    """
    The filling is as rough as what surrounds it, where a diffusion would be flat.
    """
    rng = np.random.default_rng(5)
    picture = np.clip(rng.normal(120, 40, (120, 160, 3)), 0, 255).astype(np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.2)
    hole = hole_in(picture, 40, 50, 40, 50)
    filled = fill(np.where(hole[..., None], 0, picture).astype(np.uint8), hole)
    inner = np.s_[48:72, 58:92]
    smeared = cv2.inpaint(picture, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    assert filled[inner].std() > 0.6 * picture[inner].std()
    assert filled[inner].std() > 1.2 * smeared[inner].std()


def test_same_seed_gives_the_same_picture(land):
    """
    Chance is seeded: equal seeds give equal pictures, others differ.
    """
    hole = hole_in(land, 30, 60, 50, 60)
    assert np.array_equal(fill(land, hole, seed=4), fill(land, hole, seed=4))
    assert not np.array_equal(fill(land, hole, seed=4), fill(land, hole, seed=5))


def test_nothing_is_copied_from_outside(land):
    """
    Pixels that are no part of the picture lend no colour, and stay as they are.
    """
    outside = hole_in(land, 0, 150, 120, 50)
    hole = hole_in(land, 20, 90, 70, 60)
    marked = land.copy()
    marked[outside] = (255, 0, 255)
    filled = fill(marked, hole, outside)
    assert not (filled[hole].astype(int) @ [1, -1, 1] > 250).any()
    assert np.array_equal(marked[outside], filled[outside])


def test_picture_without_a_hole_is_returned(land):
    """
    Nothing to do is done.
    """
    assert np.array_equal(land, fill(land, np.zeros(land.shape[:2], bool)))


def test_picture_that_is_all_hole_is_returned(land):
    """
    Where nothing is known, nothing is made up.
    """
    assert np.array_equal(land, fill(land, np.ones(land.shape[:2], bool)))


def test_too_little_to_copy_from_gives_the_nearest_colour():
    """
    With a rim too thin for a patch, the hole takes the rim's colours.
    """
    picture = np.full((60, 60, 3), 90, np.uint8)
    hole = hole_in(picture, 2, 2, 56, 56)
    picture[hole] = 250
    assert 90 == fill(picture, hole).max()


def test_hole_too_large_to_search_is_painted_from_a_smaller_size(land, monkeypatch):
    """
    Beyond the search's budget the last size only copies what was found before, and the horizon still holds.
    """
    monkeypatch.setattr(_fill, "_SEARCHED", 2000)
    hole = hole_in(land, 25, 60, 70, 70)
    holed = land.copy()
    holed[hole] = (255, 0, 255)
    filled = fill(holed, hole).astype(int)
    blue = filled[..., 2] > filled[..., 1]
    assert blue[25:52, 60:130].mean() > 0.9
    assert blue[68:95, 60:130].mean() < 0.1
