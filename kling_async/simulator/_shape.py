"""
What real hosts were seen to do differently, as one frozen value: how replies are spelled, and what becomes of ids.

Decides the ways of a host that works. Single replies that go wrong are `_faults.py`'s.
Seen at https://klingai.com/document-api/api/video/multi-elements.md,
https://apidoc.cometapi.com/api/video/kling/individual-queries and https://github.com/QuantumNous/new-api
"""

from math import isfinite
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
    "refusal": ("kling", "hidden", "gateway", "nested"),
    "lost_session": (1203, 1201),
}


@frozen(kw_only=True)
class Shape:
    """
    The ways of the host that a simulator plays; the defaults are Kling's own.

    For a whole simulator give it as `shape`, for single requests as a `Fault(..., "shape", shape=...)`.

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
    finds_external_ids: bool = True
    """Whether a query finds a task by its external id, whatever else becomes of that; CometAPI documents none."""
    lag_seconds: float = 0.0
    """For how long an accepted task is neither found by its external id nor listed."""
    lists: bool = True
    """Whether there is a list of tasks; without one it is a wrong path, as for CometAPI nobody knows better."""
    lost_session: Literal[1203, 1201] = 1203
    """The code for a session that is over or never was; which one it is, is documented nowhere."""
    refusal: Literal["kling", "hidden", "gateway", "nested"] = "kling"
    """
    How the simulator's own refusals are told: by Kling's code and HTTP status; by the code in an HTTP 200
    (`hidden`); in a gateway's words without the code (`gateway`); or as text in a gateway's message (`nested`).
    """

    def __attrs_post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value: object = getattr(self, name)
            if not any(value == one and type(value) is type(one) for one in allowed):
                raise InvalidInputError(f"shape.{name}", f"must be one of {allowed}, not {value!r}")
        kinds = {"message": str, "bare": bool, "finds_external_ids": bool, "lists": bool}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InvalidInputError(f"shape.{name}", f"must be {kind.__name__}, not {value!r}")
        lag: object = self.lag_seconds
        if not isinstance(lag, int | float) or isinstance(lag, bool) or not isfinite(lag) or lag < 0:
            raise InvalidInputError("shape.lag_seconds", f"must be 0 or more seconds, not {lag!r}")

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
