"""
What a manifest asks for, before anything of it is sent: its faults, what it costs at most, and what is there already.

Decides how a manifest's faults are said. Reads files and the jobs that are kept; knows no service.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from kling_async._outputs import folded
from kling_async._submit import clip_digest
from kling_async.costs import estimate_units
from kling_async.manifest import Fault, Manifest

from ._codes import Exit
from ._show import Show

if TYPE_CHECKING:
    from kling_async.dbos import Kept

GIVEN_UP: Final = frozenset({"failed", "declined", "refused", "cancelled"})
"""Ends after which a job's file may be that of another."""
CLIP_MOST: Final = 10.0
"""Seconds of the longest clip that is taken: https://klingai.com/document-api/api/video/multi-elements.md"""


def counted(count: int, what: str) -> str:
    """
    So many of something, as people say it.

    Args:
        count: How many.
        what: One of them.
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def faulty(path: str, faults: Sequence[Fault], show: Show) -> Exit:
    """
    Say all that is wrong with a manifest.

    Args:
        path: Its file.
        faults: What is wrong.
        show: The command's voice.
    """
    for fault in faults:
        show.event("fault", {"row": fault.row, "column": fault.column, "reason": fault.reason})
    whole = faults[0].reason if len(faults) == 1 and faults[0].row is None and faults[0].column is None else ""
    what = f"{path} {whole}" if whole else f"{path}: {counted(len(faults), 'fault')}, and nothing was sent"
    show.event("error", {"error": "ManifestError", "message": what, "exit_code": Exit.USAGE})
    show.error(what)
    if whole:
        return Exit.USAGE
    places = [(f"row {fault.row}" if fault.row else "file", fault.column or "") for fault in faults]
    rows, columns = (max(map(len, names)) for names in zip(*places, strict=True))
    for (row, column), fault in zip(places, faults, strict=True):
        show.advice(f"  {row:<{rows}}  {column:<{columns}}  {fault.reason}")
    return Exit.USAGE


@frozen(kw_only=True)
class Plan:
    """
    A manifest beside the jobs that are kept.
    """

    manifest: Manifest
    """Without faults of its own."""
    batch: str
    """What its rows are to belong to."""
    kept: Mapping[str, "Kept"]
    """The account's jobs, by key."""
    _units: tuple[Decimal | None, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = (estimate_units(row.job.edit, clip_seconds=CLIP_MOST) for row in self.manifest.rows)
        object.__setattr__(self, "_units", tuple(found))

    @property
    def worst(self) -> Decimal:
        """
        Units that the rows with a published price cost at most.
        """
        return sum((each for each in self._units if each is not None), Decimal(0))

    @property
    def unpriced(self) -> int:
        """
        How many rows have none.
        """
        return self._units.count(None)

    @property
    def there(self) -> dict[str, int]:
        """
        Rows whose job is kept already, by state.
        """
        found = (self.kept.get(str(row.job.key)) for row in self.manifest.rows)
        return dict(Counter(each.state for each in found if each is not None))

    @property
    def elsewhere(self) -> dict[str, int]:
        """
        Rows whose job belongs to another batch, by that.
        """
        found = (self.kept.get(str(row.job.key)) for row in self.manifest.rows)
        return dict(Counter(each.batch for each in found if each is not None and each.batch != self.batch))

    @property
    def other(self) -> str | None:
        """
        The batch to which all rows belong, or most of them, where none is left for this one; None where one is.
        """
        found = self.elsewhere
        mine = any(each.batch == self.batch for each in self.kept.values())
        if mine or sum(found.values()) < len(self.manifest.rows):
            return None
        return max(found, key=lambda name: found[name])

    @property
    def dropped(self) -> tuple[str, ...]:
        """
        Jobs of the batch that wait, and that the manifest no longer names.
        """
        named = {row.job.key for row in self.manifest.rows}
        mine = (key for key, each in self.kept.items() if each.batch == self.batch and each.state == "waiting")
        return tuple(key for key in mine if key not in named)

    def faults(self) -> Iterator[Fault]:
        """
        Rows that do not go with what is kept: a key that stands for another edit, a file that is another job's.
        """
        files = {folded(each.output): key for key, each in self.kept.items() if each.state not in GIVEN_UP}
        for row in self.manifest.rows:
            job, key = row.job, str(row.job.key)
            each, owner = self.kept.get(key), files.get(folded(row.output), key)
            if each is not None and each.payload != clip_digest(job.source, job.marks, job.edit):
                reason = f"{key!r} stands for another edit since it was first run: another edit needs another key"
                yield Fault(row.number, "key", reason)
            elif each is None and owner != key:
                yield Fault(row.number, "output", f"{row.output!r} is the result of {owner!r}: give another name")

    @property
    def facts(self) -> dict[str, object]:
        """
        The plan for programs.
        """
        edits = [row.job.edit for row in self.manifest.rows]
        return {
            "manifest": self.manifest.path,
            "batch": self.batch,
            "rows": len(edits),
            "edits": dict(Counter(f"{edit.edit_mode} {edit.mode}" for edit in edits)),
            "worst_units": self.worst,
            "unpriced": self.unpriced,
            "there": self.there,
            "elsewhere": self.elsewhere,
            "new": len(edits) - sum(self.there.values()),
        }

    @property
    def told(self) -> str:
        """
        Its rows and what they cost at most, for people.
        """
        unpriced = f"{counted(self.unpriced, 'row')} of which nobody knows the cost" if self.unpriced else ""
        known = f"{self.worst:f} units at most by the published prices" if self.unpriced < len(self._units) else ""
        cost = ", and ".join(filter(None, (known, unpriced)))
        return f"{self.manifest.path}: {counted(len(self._units), 'row')} without faults; {cost}"

    @property
    def lines(self) -> list[tuple[str, str]]:
        """
        What they ask for and what is there already, for people, by what each line is about.
        """
        edits, there = Counter((row.job.edit.edit_mode, row.job.edit.mode) for row in self.manifest.rows), self.there
        modes = [f"{count} {kind} {mode}" for (kind, mode), count in sorted(edits.items())]
        new = len(self.manifest.rows) - sum(there.values())
        already = ", ".join(f"{count} {state}" for state, count in sorted(there.items()))
        others = ", ".join(f"{count} in {name}" for name, count in sorted(self.elsewhere.items()))
        told = [
            ("edits", ", ".join(modes)),
            ("there", f"{already}; {new} new" if there else f"nothing yet, {new} new"),
            ("elsewhere", f"of these {others}" if others else ""),
        ]
        return [(name, text) for name, text in told if text]
