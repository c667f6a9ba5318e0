"""
Masks: a byte for what follows, a mask as replies hold it, or height, width, how often, of what kind, and run lengths.
"""

import json
from contextlib import contextmanager

import orjson

from kling_async import DecodeError, KlingError, Mask, Point, from_dict, to_dict
from kling_async._endpoints import ADD
from kling_async._replies import read
from kling_async.transport import Response
from tests.fuzz.common import NAMES, SAMPLES, VALUES, Target, fine
from tests.rle import slow_box, slow_pixels

DRAWN = 1 << 16
"""Pixels of a mask that is drawn."""
SLOWLY = 1 << 10
"""Pixels of one that the slow decoder draws as well."""


@contextmanager
def mask():
    """
    Any mask, off the wire: what can be asked of it agrees with the slow decoder, or all of it refuses.
    """

    def run(data):
        item = orjson.dumps(wire(data[1:])) if data[:1] == b"\1" else data[1:]
        body = b'{"code":0,"data":{"res":{"rle_mask_list":[' + item + b"]}}}"
        try:
            marked = read(ADD, Response(200, {}, body))
        except KlingError as error:
            fine(error)
            return
        for found in marked.masks:
            assert found == from_dict(Mask, json.loads(json.dumps(to_dict(found))))
            examine(found)

    yield run


def wire(data):
    """
    A mask out of bytes; for large ones `often` makes thousands of a few.
    """
    height, width, often, kind = (int.from_bytes(data[at : at + 2]) for at in (0, 2, 4, 6))
    counts = data[8:] * (often % 8 if height > 4096 else 1)
    said = list(counts) if kind % 2 else counts.decode("latin-1")
    return {"object_id": kind % 7, "rle_mask": {"size": [height, width], "counts": said}}


def examine(found):
    """
    Ask a mask everything.
    """
    area = found.height * found.width
    try:
        runs = found.runs
    except DecodeError as error:
        fine(error)
        assert area > SLOWLY or slow_pixels(found.counts, found.height, found.width) is None
        for ask in (lambda: found.area, lambda: found.bbox, lambda: found.contains(Point(0, 0)), found.to_array):
            refuses(ask)
        return
    assert area == sum(runs)
    left, top, right, bottom = found.bbox
    if area <= DRAWN:
        pixels = found.to_array()
        assert (found.height, found.width) == pixels.shape
        assert found.area == pixels.sum() == pixels[top:bottom, left:right].sum()
        assert pixels[-1, -1] == found.contains(Point(1, 1))
        if area <= SLOWLY:
            rows = slow_pixels(found.counts, found.height, found.width)
            assert (rows, slow_box(rows)) == (pixels.tolist(), found.bbox)


def refuses(ask):
    """
    Whether something is refused.
    """
    try:
        ask()
    except DecodeError:
        return
    raise AssertionError("a mask that cannot be read was read")


def seeds():
    """
    The masks of the samples, and a few of the other kind.
    """
    for path in sorted((SAMPLES / "add").glob("*.json")):
        text = json.loads(path.read_text("utf-8"))
        data = text.get("body", {}).get("data")
        listed = data["res"].get("rle_mask_list") if isinstance(data, dict) and data.get("res") else None
        yield from (b"\0" + orjson.dumps(item) for item in listed or ())
    for height, width, often, kind, counts in [
        (3, 4, 1, 0, b"42102"),
        (6, 8, 1, 0, b"=3300000005"),
        (720, 1280, 1, 0, b"T[i8X6X`0000\\aXc0"),
        (1, 43, 1, 0, b"Z11"),
        (3, 4, 1, 1, bytes([4, 2, 1, 2, 3])),
        (8192, 8192, 7, 0, b"0" * 128),
        (8192, 8192, 7, 0, b"1o" * 64),
        (8192, 8192, 1, 0, b"ooooooOoooooo?"),
    ]:
        yield b"\1" + b"".join(number.to_bytes(2) for number in (height, width, often, kind)) + counts


MASK = Target(mask, tuple(seeds()), (*VALUES, *NAMES, b"o", b"_", b"O", b"P", b"\x20\x00", b"\0\7"))
