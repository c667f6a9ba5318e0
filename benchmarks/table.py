"""
One table for all that is measured: what it is, how far its rounds lie apart, what it must be and what it should be.
"""

from collections.abc import Iterable, Sequence
from math import floor, log10
from statistics import median
from typing import Self, TypeAlias

from attrs import frozen

HEADINGS = ("figure", "is", "rounds from..to", "gate", "goal", "verdict")
WIDTHS = (62, 11, 20, 8, 8, 7)
"""So that a row can be printed before the next one is measured, and still stands below it."""


def shown(value: float) -> str:
    """
    Three digits that count, or all before the point.

    Example:
        >>> [shown(value) for value in (0.003571, 0.0, 1.1, 52.04, 12_345.6)]
        ['0.00357', '0', '1.10', '52.0', '12,346']
    """
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - floor(log10(abs(value))))}f}"


def aimed(value: float | None, unit: str) -> str:
    """
    A gate or a goal, which has no more digits than it was set with.
    """
    return "" if value is None else f"{value:.3g}{unit}"


@frozen
class Row:
    """
    A line of the table.
    """

    name: str
    """What against what."""
    value: float
    """The median of the rounds."""
    gate: float | None = None
    """What it must reach; None where it is only told."""
    goal: float | None = None
    """What it should reach."""
    more: bool = False
    """Whether higher is better."""
    noise: tuple[float, float] | None = None
    """The lowest and the highest round."""
    unit: str = ""
    """What stands behind the numbers."""

    @classmethod
    def of(
        cls,
        name: str,
        rounds: Iterable[float],
        gate: float | None = None,
        goal: float | None = None,
        *,
        more: bool = False,
        unit: str = "",
    ) -> Self:
        """
        The line of what the rounds gave.
        """
        found = list(rounds)
        return cls(name, median(found), gate, goal, more, (min(found), max(found)), unit)

    def reaches(self, aim: float | None) -> bool:
        """
        Whether the value is as good as this.
        """
        return aim is None or (self.value >= aim if self.more else self.value <= aim)

    @property
    def missed(self) -> bool:
        """
        Whether it fails its gate.
        """
        return not self.reaches(self.gate)

    @property
    def verdict(self) -> str:
        """
        The best that it reaches; empty where nothing was aimed at.
        """
        if self.gate is None and self.goal is None:
            return ""
        if self.missed:
            return "missed"
        return "goal" if self.goal is not None and self.reaches(self.goal) else "gate"

    @property
    def cells(self) -> tuple[str, ...]:
        """
        The line's text, column by column.
        """
        noise = "" if self.noise is None else "..".join(map(shown, self.noise))
        is_now = f"{shown(self.value)}{self.unit}"
        return self.name, is_now, noise, aimed(self.gate, self.unit), aimed(self.goal, self.unit), self.verdict


@frozen
class Skipped:
    """
    A line that could not be measured here.
    """

    name: str
    """What it would tell."""
    why: str
    """What is missing."""

    @property
    def missed(self) -> bool:
        """
        Nothing was measured that could fail.
        """
        return False

    @property
    def cells(self) -> tuple[str, ...]:
        """
        The line's text, column by column.
        """
        return self.name, "skipped", self.why, "", "", ""


Line: TypeAlias = Row | Skipped


def line(cells: Sequence[str]) -> str:
    """
    One line of Markdown; names to the left, numbers to the right.
    """
    first, *rest = cells
    texts = [first.ljust(WIDTHS[0]), *(text.rjust(width) for text, width in zip(rest, WIDTHS[1:], strict=True))]
    return f"| {' | '.join(texts)} |"


def heading() -> str:
    """
    What stands above the lines.
    """
    rule = ["-" * (WIDTHS[0] + 2), *(f"{'-' * (width + 1)}:" for width in WIDTHS[1:])]
    return f"{line(HEADINGS)}\n|{'|'.join(rule)}|"


def printed(lines: Iterable[Line], *, head: bool = True) -> list[Line]:
    """
    Print a table, each line as soon as it is there.

    Args:
        lines: What was measured.
        head: Print the heading before.

    Returns:
        The lines.
    """
    if head:
        print(heading(), flush=True)
    told: list[Line] = []
    for each in lines:
        print(line(each.cells), flush=True)
        told.append(each)
    return told


def status(lines: Iterable[Line]) -> int:
    """
    The exit status: 1 where a gate is missed, 0 else.
    """
    return int(any(each.missed for each in lines))
