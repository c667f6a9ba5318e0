"""
The simulator's sight without extras: it takes clips for what it was told, and marks discs.

Decides that a clip whose content nobody gave is a grey one, and that masks stay where they were marked. Needs
nothing but Python.
"""

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import orjson
from attrs import evolve, field, frozen

from kling_async.masks import encode_runs

from ._geometry import picture, runs
from ._scenes import Drawn, Film, Footage, Order, Rendered, Source, Spot, Spots

BLANK = Path(str(files("kling_async.simulator") / "media" / "blank.mp4"))
"""Two grey seconds of H.264."""

_LENGTHS = {5: 5.04, 10: 10.04}
"""How long the service's own products of 5 and 10 s were seen to be."""


def drawn(spots: tuple[Spot, ...], height: int, width: int) -> Drawn:
    """
    The discs around points.
    """
    return Drawn(counts=encode_runs(runs(spots, height, width)), png=picture(spots, height, width))


def tracking(masks: tuple[str, ...], height: int, width: int) -> bytes:
    """
    The masks of all frames as JSON: a list of `{frame_index, rle_mask_list}`, masks as in add-selection.

    What the service keeps in this file is documented nowhere; this is our guess.

    Args:
        masks: COCO's run lengths, frame by frame.
        height: In pixels.
        width: In pixels.
    """
    lists = ([{"object_id": 0, "rle_mask": {"size": [height, width], "counts": counts}}] for counts in masks)
    return orjson.dumps([{"frame_index": index, "rle_mask_list": listed} for index, listed in enumerate(lists)])


@frozen
class Blind:
    """
    Geometry in the place of vision.
    """

    heavy: ClassVar[bool] = False

    footage: Footage = field(factory=Footage)
    """What a clip is taken for of which nothing is known."""

    def look(self, source: Source) -> tuple[Source, Footage]:
        """
        What was told of the clip.
        """
        content = BLANK if source.content is None else source.content
        return evolve(source, content=content), source.footage or self.footage

    def draw(self, _source: Source, footage: Footage, _frame_index: int, spots: tuple[Spot, ...]) -> Drawn:
        """
        Discs.
        """
        return drawn(spots, footage.height, footage.width)

    def preview(self, source: Source, footage: Footage, marks: Spots) -> Rendered:
        """
        The clip as it is, the first marked frame, and for each frame the mask of the marked frame next to it.
        """
        high, wide = footage.height, footage.width

        def follow() -> bytes:
            counts = {index: encode_runs(runs(spots, high, wide)) for index, spots in marks.items()}
            nearest = (min(counts, key=lambda marked: abs(marked - index)) for index in range(footage.total_frames))
            return tracking(tuple(counts[index] for index in nearest), high, wide)

        cover = partial(picture, marks[min(marks)], high, wide)
        return Rendered(video=source.content or BLANK, cover=cover, tracking=follow)

    def make(self, source: Source, footage: Footage, order: Order) -> Film:
        """
        The clip as it is, said to be as long as the service's own products are.
        """
        seconds = _LENGTHS[order.seconds]
        longer = evolve(footage, total_frames=round(seconds * footage.fps))
        return Film(source=evolve(source, footage=longer), seconds=seconds)
