"""
What the targets share: what a target is, what an error of ours must be, and the words that mutation puts in.
"""

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from attrs import frozen

SAMPLES = Path(__file__).parents[1] / "samples" / "replies"
LONGEST = 1200
"""Characters of an error: a few quotes of 200 each, and what we say ourselves."""


@frozen
class Target:
    """
    Something to be fuzzed: it ends in silence, or raises what nobody promised.
    """

    opened: Callable[[], AbstractContextManager[Callable[[bytes], None]]]
    """What takes the bytes, for as long as the block lasts."""
    seeds: tuple[bytes, ...]
    """Where mutation begins."""
    words: tuple[bytes, ...]
    """What it puts in."""


def fine(error):
    """
    Whether an error of ours is what errors promise to be.
    """
    text = str(error)
    assert len(text) <= LONGEST, len(text)
    assert text.isprintable()
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), text) == (type(again), str(again))


def headers_of(lines):
    """
    Header fields, names as they came; what is no text arrives as servers hand it on.
    """
    pairs = (line.decode(errors="surrogateescape").partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


VALUES = tuple(b'{ } [ ] : , " \\u0000 \\ud800 null true false NaN 1e999 -0.0 0 -1 1e-7 99999999999999999999'.split())
STATES = (b'"succeed"', b'"failed"', b'"processing"', b'"SUCCESS"', b'"https://a.example"', b'"2026-04-28T14:09:21"')
NAMES = tuple(
    f'"{name}":'.encode()
    for name in (
        *("code", "message", "msg", "request_id", "data", "error", "type", "success", "status", "session_id", "fps"),
        *("original_duration", "total_frame", "width", "height", "normalized_video", "res", "frame_index", "object_id"),
        *("rle_mask_list", "rle_mask", "size", "counts", "png_mask", "base64", "video", "tasks", "task_id", "id"),
        *("task_status", "task_status_msg", "task_info", "external_task_id", "task_result", "videos", "url"),
        *("created_at", "updated_at", "submit_time", "fail_reason", "result_url", "final_unit_deduction"),
        *("external_id", "outputs", "watermark_url", "duration"),
    )
)
"""Words of JSON, and the service's own."""
