"""
Groups of figures by name, and how the lines of one are had.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice

from benchmarks.table import Line, Skipped

GROUPS: Mapping[str, Sequence[str]] = {
    "calls": ("calls:rows",),
    "peers": ("rates:peers",),
    "bridge": ("calls:bridge", "rates:trio"),
    "storm": ("storm:rows",),
    "polling": ("polling:rows",),
    "life": ("groups:life",),
    "imports": ("imports:rows",),
    "memory": ("memory:rows",),
    "decode": ("decode:rows",),
    "masks": ("masks:rows",),
    "download": ("download:rows",),
    "slots": ("slots:headline",),
    "allocator": ("allocator:rows",),
}
"""By name, the functions that give their lines."""
APART = ("allocator", "double_charge")
"""What is measured only where it is named: it explains other figures, or has a table of its own."""
COMPARED = 7
"""Lines of whole lives that compare; the further ones are of other settings."""
OWN = frozenset({"benchmarks", "kling_async"})


def life() -> Iterator[Line]:
    """
    What is compared of whole lives, once, for that takes minutes; `python -m benchmarks.life` does it again and again.
    """
    from benchmarks.life import lives

    yield from islice(lives(rounds=1), COMPARED)


def collected(name: str) -> list[Line]:
    """
    The lines of one function, up to what needs something that is not installed.
    """
    module, _, function = name.partition(":")
    lines: list[Line] = []
    try:
        lines.extend(getattr(import_module(f"benchmarks.{module}"), function)())
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OWN:
            raise
        lines.append(Skipped(module, f"needs {missing}"))
    return lines
