"""
How a simulator's replies are spelled: what real hosts were seen to do differently, as one frozen value.

Decides spellings alone. What is answered is decided elsewhere; single replies that go wrong are `_faults.py`'s.
Seen at https://klingai.com/document-api/api/video/multi-elements.md,
https://apidoc.cometapi.com/api/video/kling/individual-queries and https://github.com/QuantumNous/new-api
"""

from typing import Literal

from attrs import field, frozen

from kling_async.errors import InvalidInputError

__all__ = ("Shape",)

EPOCH = 1_767_225_600
"""2026-01-01T00:00:00Z: where the simulator's clock begins, so that runs repeat to the millisecond."""

_ALLOWED: dict[str, tuple[object, ...]] = {
    "envelope": ("raw", "wrapped1", "wrapped2", "flat", "openai"),
    "code": (0, "0", "success"),
    "empty": ("{}", "missing", "null"),
    "size": ("hw", "wh"),
    "duration": ("5.04", "5", 5),
    "timestamps": ("ms", "s", "text"),
    "external_ids": ("unique", "repeatable", "dropped"),
}


@frozen(kw_only=True)
class Shape:
    """
    How every reply of a simulator is spelled; the defaults are Kling's own.

    Example:
        >>> Shape(envelope="wrapped1", timestamps="s").envelope
        'wrapped1'

    Raises:
        InvalidInputError: A spelling is none of those listed.
    """

    envelope: Literal["raw", "wrapped1", "wrapped2", "flat", "openai"] = "raw"
    """
    What a single task comes in: Kling's envelope; a gateway's around that (`wrapped1`) or around its data
    (`wrapped2`); a gateway's own object in an envelope (`flat`) or bare (`openai`). The last two answer a create
    alike and know neither video ids nor external ids. All but `raw` call an unknown task `task_not_exist`.
    """
    message: str = "SUCCEED"
    """What a success says; `success` and nothing at all were seen too."""
    code: Literal[0, "0", "success"] = 0
    """How a success is numbered in Kling's envelope."""
    empty: Literal["{}", "missing", "null"] = "{}"
    """What stands for `task_info` and `task_result` while there is nothing in them."""
    size: Literal["hw", "wh"] = "hw"
    """The order of a mask's `size`; the official type and the official sample differ."""
    duration: Literal["5.04", "5", 5] = "5.04"
    """How a video's seconds are spelled: text with decimals, text without, or a number."""
    timestamps: Literal["ms", "s", "text"] = "ms"
    """Milliseconds, the gateways' seconds, or milliseconds as text."""
    bare: bool = field(default=False)
    """Whether delete, clear and preview answer without `data`, as CometAPI's schema allows."""
    external_ids: Literal["unique", "repeatable", "dropped"] = "unique"
    """
    What the host does with `external_task_id`: refuses it the second time; makes another task all the same, and
    finds the newest; or drops it, so that it is neither found nor told. `Simulator.charges` knows it in any case.
    """

    def __attrs_post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value: object = getattr(self, name)
            if not any(value == one and type(value) is type(one) for one in allowed):
                raise InvalidInputError(f"shape.{name}", f"must be one of {allowed}, not {value!r}")
        for name, kind in (("message", str), ("bare", bool)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InvalidInputError(f"shape.{name}", f"must be {kind.__name__}, not {value!r}")

    def moment(self, now: float) -> int | str:
        """
        A time of the simulator's clock.
        """
        if self.timestamps == "s":
            return int(EPOCH + now)
        milliseconds = round((EPOCH + now) * 1000)
        return str(milliseconds) if self.timestamps == "text" else milliseconds

    def seconds(self, length: float) -> int | str:
        """
        A video's length.
        """
        if self.duration == "5.04":
            return str(round(float(length), 3))
        return int(length) if self.duration == 5 else str(int(length))

    def sides(self, height: int, width: int) -> list[int]:
        """
        A mask's `size`.
        """
        return [height, width] if self.size == "hw" else [width, height]

    def part(self, name: str, value: dict[str, object]) -> dict[str, object]:
        """
        A field that may have nothing in it.
        """
        if value or self.empty == "{}":
            return {name: value}
        return {} if self.empty == "missing" else {name: None}
