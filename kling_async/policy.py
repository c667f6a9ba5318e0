"""
How long to wait before trying or looking again: numbers in, seconds out, without clock or chance.
"""

import sys

from attrs import Attribute, field, frozen

from .errors import InvalidInputError

__all__ = ("PollPolicy", "RetryPolicy")

RETRY_AFTER_MOST = 60.0
"""Seconds that a server may ask to wait; more is answered with its error."""


def check_seconds(name: str, value: object, *, least: float = 0.0, above: bool = True) -> float:
    """
    A finite number of seconds.

    Raises:
        InvalidInputError: It is no number, not finite, or below what makes sense.
    """
    most = sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        raise InvalidInputError(name, f"must be a finite number, not {value!r}")
    if value < least or (above and value == least):
        raise InvalidInputError(name, f"must be {'more than' if above else 'at least'} {least:g}, not {value!r}")
    return float(value)


def check_count(name: str, value: object) -> int:
    """
    A whole number from 1.

    Raises:
        InvalidInputError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(name, f"must be a whole number from 1, not {value!r}")
    return value


def _positive(_policy: object, attribute: "Attribute[float]", value: float) -> None:
    check_seconds(attribute.name, value)


@frozen(kw_only=True)
class RetryPolicy:
    """
    When a call that may be sent again is sent again.

    Example:
        >>> RetryPolicy(base=1.0).delay(2, chance=0.5)
        1.0

    Raises:
        InvalidInputError: A number makes no sense.
    """

    attempts: int = field(default=3)
    """How often a call is sent at most."""
    base: float = field(default=0.5, validator=_positive)
    """Seconds; the wait before attempt n + 1 is drawn from 0 to base x 2^(n - 1)."""
    ceiling: float = field(default=20.0, validator=_positive)
    """Seconds that a drawn wait never exceeds."""
    doubt: float = field(default=90.0, validator=_positive)
    """
    Seconds over which the outcome of a create is looked for when its reply was lost. They must be longer than a host's
    index of tasks ever lags behind: with `resend`, an absence that is proven too early is paid for twice.
    """
    on_unknown: str = field(default="raise")
    """What to do when it is not found: `raise`, or `resend` and take the risk of paying twice."""

    @attempts.validator
    def _check_attempts(self, _attribute: object, value: object) -> None:
        check_count("attempts", value)

    @on_unknown.validator
    def _check_on_unknown(self, _attribute: object, value: object) -> None:
        if value not in ("raise", "resend"):
            raise InvalidInputError("on_unknown", f"must be 'raise' or 'resend', not {value!r}")

    def delay(self, attempt: int, *, chance: float, retry_after: float | None = None) -> float | None:
        """
        Seconds to wait after this attempt failed, or None to give up.

        Args:
            attempt: 1 for the first.
            chance: From 0 to 1; the wait is drawn in full from 0 to its ceiling.
            retry_after: Seconds that the server asked for; waited at least, unless they are more than 60.
        """
        if attempt >= self.attempts or (retry_after or 0) > RETRY_AFTER_MOST:
            return None
        return max(self.drawn(attempt, chance=chance), retry_after or 0.0)

    def drawn(self, attempt: int, *, chance: float) -> float:
        """
        Seconds by chance alone, for a wait that the number of attempts does not end.

        Args:
            attempt: 1 for the first.
            chance: From 0 to 1.
        """
        return chance * min(self.ceiling, self.base * 2.0 ** min(attempt - 1, 32))


@frozen(kw_only=True)
class PollPolicy:
    """
    When to look at a running task: soon at first, then ever less often.

    Example:
        >>> [PollPolicy(jitter=0).delay(look, chance=0) for look in range(4)]
        [1.0, 1.5, 2.25, 3.375]

    Raises:
        InvalidInputError: A number makes no sense.
    """

    first: float = field(default=1.0, validator=_positive)
    """Seconds before the first look."""
    factor: float = 1.5
    """How much longer each further wait is, from 1."""
    ceiling: float = field(default=10.0, validator=_positive)
    """Seconds that a wait never exceeds."""
    jitter: float = 0.1
    """Share of a wait that chance may take off, from 0 to below 1, so that many waiters do not look at once."""

    def __attrs_post_init__(self) -> None:
        check_seconds("factor", self.factor, least=1.0, above=False)
        check_seconds("jitter", self.jitter, above=False)
        if self.jitter >= 1:
            raise InvalidInputError("jitter", f"must be below 1, not {self.jitter!r}")

    def delay(self, looks: int, *, chance: float) -> float:
        """
        Seconds to wait for the next look.

        Args:
            looks: How many looks there were.
            chance: From 0 to 1.
        """
        try:
            grown = min(self.ceiling, self.first * float(self.factor) ** looks)
        except OverflowError:
            grown = self.ceiling
        return grown * (1 - self.jitter * chance)
