"""
Masks: COCO's run lengths, held against COCO's own code.
"""

import pickle
import re
import sys
import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import PIL.Image
import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from pycocotools import mask as coco

from kling_async import DecodeError, InvalidInputError, Mask, Point, from_dict, masks
from kling_async._endpoints import ADD
from kling_async._replies import read
from kling_async.masks import SIDE_LIMIT, TEXT_LIMIT, decode_runs, encode_runs
from kling_async.transport import Response
from tests import strategies
from tests.rle import slow_box, slow_pixels, slow_runs
from tests.strategies import modest

VECTORS = [
    pytest.param(3, 4, [12], "<", id="empty"),
    pytest.param(3, 4, [0, 12], "0<", id="full"),
    pytest.param(3, 4, [0, 1, 11], "01;", id="corner"),
    pytest.param(3, 4, [4, 2, 1, 2, 3], "42102", id="middle"),
    pytest.param(6, 8, [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8], "=3300000005", id="block"),
    pytest.param(720, 1280, [288100, 200, 520, 200, 520, 200, 631860], "T[i8X6X`0000\\aXc0", id="frame"),
    pytest.param(2, 3, [1, 2, 2, 1], "122O", id="checkered"),
    pytest.param(1, 43, [42, 1], "Z11", id="row"),
]
pixels = drawn.arrays(bool, drawn.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def of(array):
    """
    The mask of an array, by COCO's own encoder.
    """
    made = coco.encode(np.asfortranarray(array, np.uint8))
    return Mask(object_id=0, height=array.shape[0], width=array.shape[1], counts=made["counts"].decode())


def by_coco(mask):
    """
    The pixels as COCO's own decoder has them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it speaks to numpy as numpy 1 was spoken to
        return coco.decode({"size": [mask.height, mask.width], "counts": mask.counts}).astype(bool)


def box(array):
    """
    Left, top, right, bottom, read off the pixels.
    """
    rows, columns = np.nonzero(array)
    if not len(rows):
        return (0, 0, 0, 0)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("height, width, runs, counts", VECTORS)
def test_the_verified_vectors_hold_both_ways(height, width, runs, counts):
    """
    Runs to text and text to runs, as the provider's and COCO's code have them.
    """
    assert counts == encode_runs(runs)
    assert tuple(runs) == decode_runs(counts, height * width)
    mask = Mask.from_runs(runs, height=height, width=width)
    assert counts == mask.counts
    assert sum(runs[1::2]) == mask.area
    assert np.array_equal(by_coco(mask), mask.to_array())


@given(pixels)
@modest
def test_any_picture_reads_as_coco_wrote_it(array):
    """
    Text from COCO's encoder gives the pixels, area and box that COCO gives, and encodes to the same text.
    """
    mask = of(array)
    theirs = {"size": list(array.shape), "counts": mask.counts}
    assert np.array_equal(array, mask.to_array())
    assert mask.counts == encode_runs(mask.runs)
    assert coco.area(theirs) == mask.area
    left, top, right, bottom = mask.bbox
    assert [left, top, right - left, bottom - top] == coco.toBbox(theirs).tolist()


@given(st.data(), strategies.sides, strategies.sides)
@modest
def test_any_runs_survive_their_text(data, height, width):
    """
    Decode of encode is the identity, empty runs included, and COCO decodes our text to the same pixels.
    """
    runs = data.draw(strategies.runs(height * width))
    mask = Mask.from_runs(runs, height=height, width=width)
    assert tuple(runs) == mask.runs
    assert 0 == mask.object_id
    assert np.array_equal(by_coco(mask), mask.to_array())


@given(strategies.masks())
@modest
def test_what_is_read_from_runs_is_what_the_pixels_say(mask):
    """
    Area, box and every single pixel, without making an array.
    """
    array = mask.to_array()
    assert (mask.height, mask.width) == array.shape
    assert array.sum() == mask.area
    assert box(array) == mask.bbox
    for row in range(mask.height):
        for column in range(mask.width):
            middle = Point((column + 0.5) / mask.width, (row + 0.5) / mask.height)
            assert array[row, column] == mask.contains(middle)


def test_the_far_edge_belongs_to_the_last_pixel():
    """
    A fraction of exactly 1 is on the frame.
    """
    mask = Mask.from_runs([11, 1], height=3, width=4)
    assert mask.contains(Point(1, 1))
    assert mask.contains(Point(0.76, 0.99))
    assert not mask.contains(Point(0, 0))


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30), strategies.sides, strategies.sides)
@modest
def test_any_text_is_a_mask_or_a_decode_error(counts, height, width):
    """
    Run lengths are foreign data: they fill the mask exactly or are refused.
    """
    mask = Mask(object_id=0, height=height, width=width, counts=counts)
    try:
        runs = mask.runs
    except DecodeError:
        return
    assert height * width == sum(runs)
    assert all(run >= 0 for run in runs)


@pytest.mark.parametrize(
    "counts, reason",
    [
        ("", "cover 0 of 12"),
        (";", "cover 11 of 12"),
        ("=", "leaves the mask"),
        ("O", "leaves the mask"),
        ("4210N", "leaves the mask"),
        ("T", "within a number"),
        ("/", "cannot stand there"),
        ("p", "cannot stand there"),
        ("é", "cannot stand there"),
        ("ooooooo0", "cannot stand there"),
        ("oooooo0", "leaves the mask"),
    ],
)
def test_runs_that_do_not_fill_their_mask_are_refused(counts, reason):
    """
    Too few, too many, negative, cut short, no character of the format, or a number beyond 35 bits.
    """
    with pytest.raises(DecodeError, match=reason):
        decode_runs(counts, 12)


@example(counts="0\u20ac", height=3, width=5)
@given(
    st.text("0123456789:;<=>?@NOPTo", max_size=12)
    | st.text(max_size=6)
    | strategies.masks().map(lambda mask: mask.counts),
    strategies.sides,
    strategies.sides,
)
@modest
def test_pixels_and_runs_agree_on_any_text(counts, height, width):
    """
    The way to pixels reads what the plain reader reads, and refuses what it refuses.
    """
    mask = Mask(object_id=0, height=height, width=width, counts=counts)
    try:
        runs = mask.runs
    except DecodeError as error:
        with pytest.raises(DecodeError, match=re.escape(str(error))):
            mask.to_array()
    else:
        flat = [pixel for index, run in enumerate(runs) for pixel in [index % 2 == 1] * run]
        assert flat == mask.to_array().ravel(order="F").tolist()


near = st.text("0123456789:;<=>?@NOPTo", max_size=30) | st.builds(
    lambda mask, at, piece: mask.counts[: at % (len(mask.counts) + 1)] + piece + mask.counts[at:],
    strategies.masks(),
    st.integers(0, 20),
    st.text("01;?NOPo/p", max_size=2),
)


@given(near | strategies.masks().map(lambda mask: mask.counts), strategies.sides, strategies.sides, st.integers(7, 16))
@settings(modest, max_examples=200)
def test_a_slow_decoder_reads_the_same(counts, height, width, block):
    """
    Written from the format alone, it draws the same pixels and box, or refuses as well; in blocks of any size.
    """
    rows = slow_pixels(counts, height, width)
    mask = Mask(object_id=0, height=height, width=width, counts=counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "BLOCK", block)
        if rows is None:
            for ask in (mask.to_array, lambda: mask.runs, lambda: decode_runs(counts, height * width)):
                with pytest.raises(DecodeError):
                    ask()
        else:
            assert rows == mask.to_array().tolist()
            assert (slow_runs(counts), slow_box(rows)) == (list(mask.runs), mask.bbox)
            assert mask.runs == decode_runs(counts, height * width)


def test_a_mask_of_many_blocks_is_drawn_as_coco_draws_it():
    """
    Longer than what becomes numbers at once, with runs of all lengths across the joints.
    """
    noise = np.random.default_rng(7).random((500, 400))
    for share in (0.5, 0.01, 0.0001):
        array = noise < share
        mask = of(array)
        assert np.array_equal(array, mask.to_array())
        assert mask.runs == decode_runs(mask.counts, array.size)
        assert share < 0.1 or len(mask.counts) > 5 * masks.BLOCK


def wrapping(pixels):
    """
    Run lengths, none negative, that add up to so many pixels once 64 bits are full.
    """
    steps = [2**34 - 1] * 70_000
    last = len(steps) - 1
    over = sum(step * ((last - at) // 2 + 1) for at, step in enumerate(steps)) - 2**64 - pixels
    for at in range(len(steps)):
        times = (last - at) // 2 + 1
        spared = min(over // times, steps[at])
        steps[at] -= spared
        over -= spared * times
    runs = [0, *steps[:2]]
    for step in steps[2:]:
        runs.append(runs[-2] + step)
    return runs


def test_runs_whose_sum_wraps_are_refused():
    """
    A sum that is right in 64 bits alone would have numpy write beyond its array.
    """
    runs = wrapping(12)
    assert 2**64 + 12 == sum(runs)
    assert min(runs) >= 0
    with pytest.raises(DecodeError, match="leaves the mask"):
        Mask(object_id=0, height=3, width=4, counts=encode_runs(runs)).to_array()


@pytest.mark.parametrize("runs", [[11], [13], [-1, 13], [4, 2]])
def test_a_mask_is_made_from_runs_that_fill_it(runs):
    """
    Wrong runs are told at once, not on first use.
    """
    with pytest.raises(DecodeError):
        Mask.from_runs(runs, height=3, width=4)


@pytest.mark.parametrize(
    "height, width, counts",
    [
        (0, 4, "<"),
        (4, 0, "<"),
        (-3, -4, "<"),
        (SIDE_LIMIT + 1, 1, "<"),
        (10**9, 10**9, "<"),
        (3, 4, "0" * (TEXT_LIMIT + 1)),
    ],
)
def test_a_mask_of_absurd_size_is_refused_at_once(height, width, counts):
    """
    Before anything is read or allocated.
    """
    with pytest.raises(DecodeError, match="mask"):
        Mask(object_id=0, height=height, width=width, counts=counts)


def test_the_largest_mask_is_allowed():
    """
    8192 a side, so 64 Mi pixels, and four megabytes of text, which are not read before somebody asks.
    """
    assert 67_108_864 == Mask.from_runs([0, 8192**2], height=8192, width=8192).area
    assert 4 * 1024 * 1024 == len(Mask(object_id=0, height=3, width=4, counts="0" * TEXT_LIMIT).counts)


@contextmanager
def costing_little():
    """
    Refused, and with less than a mebibyte taken on the way, whatever was claimed.
    """
    with pytest.raises(DecodeError, match="mask"):
        tracemalloc.start()
        try:
            yield
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("counts", ["<", "0" * 10_000])
def test_f49_a_claim_of_a_billion_a_side_costs_nothing(counts):
    """
    Made by hand, read from its plain form, and read from a reply: it is refused by its size alone.
    """
    body = b'{"code":0,"data":{"res":{"rle_mask_list":[{"rle_mask":{"size":[%d,%d],"counts":"%s"}}]}}}'
    plain = {"object_id": 0, "height": 10**9, "width": 10**9, "counts": counts}
    small, large = (Response(200, {}, body % (side, side, counts.encode())) for side in (1, 10**9))
    read(ADD, small)  # builds what is built on first use
    for make in (lambda: Mask(**plain), lambda: from_dict(Mask, plain), lambda: read(ADD, large)):
        with costing_little():
            make()


ASKED = [
    pytest.param(lambda mask: mask.area, id="area"),
    pytest.param(lambda mask: mask.bbox, id="bbox"),
    pytest.param(lambda mask: mask.contains(Point(0.5, 0.5)), id="contains"),
    pytest.param(Mask.to_array, id="to_array"),
]


@pytest.mark.parametrize("loaded", [True, False], ids=["numpy", "no-numpy"])
@pytest.mark.parametrize("ask", ASKED[:-1])
def test_what_is_asked_of_the_runs_is_the_same_with_numpy_and_without(monkeypatch, ask, loaded):
    """
    Where numpy is loaded already it reads the runs; it is not loaded for that, and makes no pixels.
    """
    noise = np.random.default_rng(7).random((60, 40))
    asked = [of(noise < share) for share in (0, 0.001, 0.5, 1.1)]
    expected = [ask(evolve(mask)) for mask in asked]
    read = []
    monkeypatch.setattr(masks, "_run_array", lambda *given, plain=masks._run_array: read.append(1) or plain(*given))
    monkeypatch.setattr(Mask, "to_array", None)
    if not loaded:
        monkeypatch.delitem(sys.modules, "numpy")
    assert expected == [ask(evolve(mask)) for mask in asked]
    assert loaded == ("numpy" in sys.modules)
    assert len(read) == loaded * len(asked)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize(
    "counts",
    [
        pytest.param(encode_runs([0, 2**34]), id="one-run"),
        pytest.param(encode_runs([0, 2**34]) + "0" * 100_000, id="and-many-after-it"),
        pytest.param(encode_runs([2**25] * 100_000), id="many-runs"),
        pytest.param(encode_runs([8192, 8192, -1]) + "0" * 100_000, id="one-below-nothing"),
    ],
)
def test_f49_runs_that_leave_the_mask_cost_nothing(ask, counts):
    """
    The first run too many ends it: neither its pixels nor the runs behind it are made.
    """
    mask = Mask(object_id=0, height=SIDE_LIMIT, width=SIDE_LIMIT, counts=counts)
    with costing_little():
        ask(mask)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("cut", [1, 2, 5, 40])
def test_f49_counts_that_were_cut_short_are_refused(ask, cut):
    """
    Within a number or between two, they do not fill the mask.
    """
    whole = encode_runs([100, 2**20] * 20 + [8192**2 - 20 * (2**20 + 100)])
    assert 20 * 2**20 == Mask(object_id=0, height=SIDE_LIMIT, width=SIDE_LIMIT, counts=whole).area
    mask = Mask(object_id=0, height=SIDE_LIMIT, width=SIDE_LIMIT, counts=whole[:-cut])
    with costing_little():
        ask(mask)


@pytest.mark.parametrize(
    "size, video, read",
    [
        ((720, 1280), (1280, 720), (1280, 720)),
        ((720, 1280), (720, 1280), (720, 1280)),
        ((360, 640), (720, 1280), (360, 640)),
        ((720, 1280), (None, 1280), (720, 1280)),
        ((720, 1280), (1280, None), (720, 1280)),
        ((720, 720), (720, 720), (720, 720)),
        ((720, 1280), (720, 720), (720, 1280)),
    ],
)
def test_a_size_is_read_in_the_order_of_the_video(size, video, read):
    """
    Official samples have it both ways round; a size that is not the video's in any order is kept.
    """
    counts = encode_runs([size[0] * size[1]])
    mask = Mask(object_id=0, height=size[0], width=size[1], counts=counts, size=size)
    fitted = mask.fitted(*video)
    assert read == (fitted.height, fitted.width)
    assert size == fitted.size
    assert 0 == fitted.area


def test_a_mask_is_a_value_whatever_was_asked_of_it():
    """
    What it has worked out is no part of what it is: not of equality, hash, pickle or repr.
    """
    asked, fresh = (Mask(object_id=0, height=3, width=4, counts="42102", png=b"png") for _ in range(2))
    assert ((1, 1, 3, 3), 4, True) == (asked.bbox, asked.area, asked.contains(Point(0.5, 0.5)))
    assert fresh == asked
    assert hash(fresh) == hash(asked)
    assert fresh == pickle.loads(pickle.dumps(asked))
    assert (4, 2, 1, 2, 3) == pickle.loads(pickle.dumps(asked)).runs
    assert (12,) == evolve(asked, counts="<").runs
    assert "Mask(object_id=0, height=3, width=4)" == repr(asked)


def test_an_overlay_tints_the_object_alone():
    """
    On a picture of any size and mode; the picture itself is left alone.
    """
    mask = Mask.from_runs([6, 6], height=3, width=4)
    picture = PIL.Image.new("L", (8, 6), 100)
    tinted = mask.overlay(picture, color=(255, 0, 0))
    assert ("RGB", (8, 6)) == (tinted.mode, tinted.size)
    assert (100, 100, 100) == tinted.getpixel((0, 3))
    red, green, blue = tinted.getpixel((7, 3))
    assert red > 100 > green == blue
    assert 100 == picture.getpixel((7, 3))
    pink = mask.overlay(picture).getpixel((7, 3))
    assert all(abs(seen - wanted) <= 1 for seen, wanted in zip(pink, (185, 80, 133), strict=True))


def test_pixels_need_numpy_and_say_so(monkeypatch):
    """
    Runs, area, box and contains work without the extra.
    """
    monkeypatch.setitem(sys.modules, "numpy", None)
    mask = Mask(object_id=0, height=3, width=4, counts="42102")
    assert (4, (1, 1, 3, 3)) == (mask.area, mask.bbox)
    with pytest.raises(InvalidInputError, match=r"kling-async\[masks\]"):
        mask.to_array()


def test_a_picture_is_read_when_it_is_asked_for():
    """
    It is equal to the same bytes; base64 that is broken further on is told of then.
    """
    mask = Mask(object_id=0, height=3, width=4, counts="42102", png="data:image/png;base64,cG5n")
    assert b"png" == mask.png
    assert Mask(object_id=0, height=3, width=4, counts="42102", png=b"png") == mask
    assert hash(Mask(object_id=0, height=3, width=4, counts="42102", png=b"png")) == hash(mask)
    broken = evolve(mask, png="A" * 64 + "%%%%")
    assert broken != mask
    with pytest.raises(DecodeError, match="its picture is no base64"):
        _ = broken.png
