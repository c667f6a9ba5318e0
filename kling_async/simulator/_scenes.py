"""
The words of the simulator: clips, what is drawn on them, and what made of them.

`Sight` is the seam between the API and its pictures: `_blind.py` stands behind it with geometry, `_sight.py`
with real vision. Nothing here knows requests, replies or time.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

from attrs import field, frozen

from kling_async.errors import InvalidInputError
from kling_async.policy import check_count

__all__ = ("Footage",)

Content: TypeAlias = bytes | Path | Callable[[], bytes]
"""A file's bytes, where they are, or how to make them when somebody fetches them."""
Spot: TypeAlias = tuple[float, float]
"""A point as it came: fractions of width and height."""
Spots: TypeAlias = Mapping[int, tuple[Spot, ...]]
"""Points by frame index."""


@frozen(kw_only=True)
class Footage:
    """
    What the simulator takes a clip for when it has no eyes to look: by default 5 s of 720p.

    Example:
        >>> Footage(fps=30, total_frames=240).seconds
        8.0

    Raises:
        InvalidInputError: A number is not positive.
    """

    width: int = 1280
    """Width in pixels."""
    height: int = 720
    """Height in pixels."""
    fps: float = 24.0
    """Frames per second."""
    total_frames: int = 120
    """How many frames there are."""

    def __attrs_post_init__(self) -> None:
        for name in ("width", "height", "total_frames"):
            check_count(f"footage.{name}", getattr(self, name))
        rate: object = self.fps
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not isfinite(rate) or rate <= 0:
            raise InvalidInputError("footage.fps", f"must be a positive number, not {rate!r}")

    @property
    def seconds(self) -> float:
        """
        How long it lasts.
        """
        return self.total_frames / self.fps


@frozen(kw_only=True)
class Source:
    """
    A clip that is edited.
    """

    key: str
    """What caches know it by."""
    content: Content | None = field(default=None, repr=False)
    """The clip itself; None where only its address is known."""
    url: str | None = None
    """Where it can be fetched, if it comes from elsewhere."""
    footage: Footage | None = None
    """What it is known to be."""


@frozen(kw_only=True)
class Drawn:
    """
    A mask in the two spellings of the API.
    """

    counts: str
    """COCO's compressed run lengths."""
    png: bytes
    """White on black, as large as the clip."""


@frozen(kw_only=True)
class Rendered:
    """
    A preview's three files.
    """

    video: Content
    """The clip with its mask."""
    cover: Content
    """A PNG."""
    tracking: Content
    """JSON: the mask of every frame."""


@frozen(kw_only=True)
class Order:
    """
    What a task is to make.
    """

    edit_mode: str
    """`addition`, `swap` or `removal`."""
    images: tuple[str | bytes, ...]
    """Each a URL, base64, or the picture itself."""
    marks: Spots
    """Points by frame index, as they were at create."""
    seconds: int
    """5 or 10."""


@frozen(kw_only=True)
class Film:
    """
    What a task made.
    """

    source: Source
    """The clip, ready to be edited again."""
    seconds: float
    """How long the service says it is."""


class Sight(Protocol):
    """
    What looks at clips and makes new ones. Its methods may raise RefusalError, in the API's words.
    """

    heavy: ClassVar[bool]
    """Whether its methods take long, so that they belong into a thread."""

    def look(self, source: Source) -> tuple[Source, Footage]:
        """
        The source with its content, and what it is.
        """
        ...

    def draw(self, source: Source, footage: Footage, frame_index: int, spots: tuple[Spot, ...], /) -> Drawn:
        """
        The mask that these points give on a frame.
        """
        ...

    def preview(self, source: Source, footage: Footage, marks: Spots) -> Rendered:
        """
        The mask on every frame.
        """
        ...

    def make(self, source: Source, footage: Footage, order: Order) -> Film:
        """
        The edited clip.
        """
        ...
