"""
What an edit will cost, from the published prices: before it is paid, and without asking the service.

Decides which price a body that we send has, and where none is known. What it did cost is `Task.units`.
"""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from .edits import Edit, Mode, Seconds
from .errors import InvalidInputError
from .policy import check_seconds

__all__ = ("estimate_units",)

UNITS: Final[Mapping[tuple[Mode, Seconds], Decimal]] = MappingProxyType(
    {
        ("std", 5): Decimal(3),
        ("std", 10): Decimal(6),
        ("pro", 5): Decimal(5),
        ("pro", 10): Decimal(10),
    }
)
"""Units by mode and seconds, of the one model that does these edits."""
MODELS: Final = (None, "", "kling-v1-6")
"""What `model_name` may be for these prices to hold: that model, or left to the service."""
LONG: Final = 7.0
"""Seconds from which a clip is edited as one of 10."""


def estimate_units(edit: Edit, *, clip_seconds: float | None = None) -> Decimal | None:
    """
    What an edit will cost in the provider's units if it succeeds; None is unknown, never zero.

    The prices are those of 2025 and 2026 for kling-v1-6: 3 units for 5 seconds and 6 for 10 in `std`, 5 and 10 in
    `pro`. They stand in the price table of a gateway that serves these edits; Kling's own pages name none, so your
    contract may differ. A selection costs nothing, nor does a task that fails. `Task.units` is what it did cost.

    With `duration=None` the clip's length decides, so that is needed too. With a `model_name` of another model, or
    any other field in `extra`, there is no published price.

    Args:
        edit: An Addition, a Swap or a Removal.
        clip_seconds: The clip's length, such as `SelectionInfo.duration`; needed where the edit's duration is None.

    Example:
        >>> estimate_units(Removal.of("the bird", mode="pro", duration=10))
        Decimal('10')
        >>> estimate_units(Removal.of("the bird"), clip_seconds=4.2)
        Decimal('3')

    Raises:
        InvalidInputError: It is no edit, or the length is no positive number.
    """
    given: object = edit
    if not isinstance(given, Edit):
        raise InvalidInputError("edit", f"must be an Addition, a Swap or a Removal, not {type(given).__name__}")
    if clip_seconds is not None:
        check_seconds("clip_seconds", clip_seconds)
    more = dict(edit.extra or {})
    model = more.pop("model_name", None)
    seconds = edit.duration or _fitting(clip_seconds)
    if more or model not in MODELS or seconds is None:
        return None
    return UNITS[edit.mode, seconds]


def _fitting(clip_seconds: float | None) -> Seconds | None:
    if clip_seconds is None:
        return None
    return 10 if clip_seconds >= LONG else 5
