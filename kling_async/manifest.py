"""
Manifests: many jobs as the rows of one file, JSONL, CSV or Parquet, checked as a whole before anything is sent.

A row is a job with its key and the name of its result's file. The columns are the same in all three formats::

    key,edit_mode,video_url,what,points
    clip-1,removal,https://example.com/1.mp4,the bird,"40:0.80,0.53|40:0.90,0.57"

Every row needs `key` and `edit_mode` (addition, swap, removal), `video_url` or `video_id`, and its words: `what` for
an addition or a removal, `old` and `new` for a swap, or a `prompt` of one's own. A swap or a removal needs `points`, a
swap one of `images`, an addition one or two. `output`, `negative_prompt`, `mode`, `duration`, `watermark` and `extra`
may be given. `manifest_schema` is the same as a JSON Schema.

In JSONL `images` is a list, `points` an object such as `{"40": [[0.8, 0.53]]}`, `extra` an object. In CSV several
values of a cell are separated by `|`, a point is spelled FRAME:X,Y, and `extra` is JSON. Parquet takes either. What
is empty or null is not given. Files of pictures are relative to the manifest's folder.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Final

from attrs import field, frozen

from ._cells import EMPTY
from ._columns import COLUMNS, MODES, WORDS, EditMode
from ._rows import ManifestRow, RowReader
from ._tables import Fault, is_spelled, read_rows
from .costs import estimate_units
from .errors import ManifestError

__all__ = ("Fault", "Manifest", "ManifestRow", "manifest_schema", "read_manifest")

FAULTS_MOST: Final = 100_000
"""Faults after which a file is not read further: it is no manifest, and each of them takes memory."""
_EMPTY: Final[Mapping[str, str]] = {"$ref": "#/$defs/empty"}
_CLIP_MOST = 10.0
"""Seconds of the longest clip that is taken: https://klingai.com/document-api/api/video/multi-elements.md"""


@frozen
class Manifest:
    """
    A manifest without faults.
    """

    path: Path
    """Its file."""
    rows: tuple[ManifestRow, ...] = field(repr=lambda rows: f"{len(rows):,} rows")
    """Its rows, in the order of the file."""

    @property
    def worst_case(self) -> Decimal | None:
        """
        What all of it costs at most by the published prices, in the provider's units; None is unknown, never zero.

        Where a row leaves its duration to the clip, the longest is taken. It is unknown if one row is.
        """
        known = [units for units in self._units() if units is not None]
        return sum(known, Decimal(0)) if len(known) == len(self.rows) else None

    @property
    def unpriced(self) -> int:
        """
        How many rows have no published price.
        """
        return sum(units is None for units in self._units())

    def _units(self) -> Iterator[Decimal | None]:
        return (estimate_units(row.job.edit, clip_seconds=_CLIP_MOST) for row in self.rows)


def read_manifest(path: str | os.PathLike[str], *, local: bool = True) -> Manifest:
    """
    Read a manifest and check all of it. Nothing is sent; it works with files, so call it in a thread from async code.

    Args:
        path: A file whose name ends in `.jsonl`, `.csv` or `.parquet` (extra `parquet`).
        local: Whether plain http and addresses of this machine are fine, as for a client of the simulator.

    Raises:
        ManifestError: With every fault by row and column.
    """
    file = Path(path)
    reader = RowReader(file.parent, is_spelled(file), local)
    rows: list[ManifestRow] = []
    faults: list[Fault] = []
    for found in read_rows(file):
        read = [found] if isinstance(found, Fault) else reader.read(found)
        if isinstance(read, ManifestRow):
            rows.append(read)
        else:
            faults += read
        if len(faults) > FAULTS_MOST:
            faults.append(Fault(None, None, "has so many faults that the rest of it was not read"))
            break
    if not rows and not faults:
        faults.append(Fault(None, None, "holds no rows"))
    if faults:
        raise ManifestError(str(file), faults)
    return Manifest(file, tuple(rows))


def manifest_schema() -> dict[str, object]:
    """
    A row of a JSONL manifest as JSON Schema, draft 2020-12; made from the table that the reader uses.

    It says what a schema can: that URLs and prompts make sense, that files are there and that no key stands twice is
    known to `read_manifest` alone.

    Example:
        >>> sorted(manifest_schema()["properties"])[:4]
        ['duration', 'edit_mode', 'extra', 'images']
    """
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A row of a kling_async manifest",
        "type": "object",
        "properties": {
            name: {"description": column.about, "anyOf": [column.schema, _EMPTY]} for name, column in COLUMNS.items()
        },
        "additionalProperties": False,
        "allOf": [
            *(_given(name) for name, column in COLUMNS.items() if column.required),
            {"oneOf": [_given("video_url"), _given("video_id")]},
            *(_rule(name, mode) for name, mode in MODES.items()),
        ],
        "$defs": {"empty": {"description": "Nothing is given.", "enum": list(EMPTY)}},
    }
    return deepcopy(schema)


def _given(name: str) -> dict[str, object]:
    return {"required": [name], "properties": {name: {"not": _EMPTY}}}


def _absent(name: str) -> dict[str, object]:
    return {"properties": {name: _EMPTY}}


def _at_most(name: str, count: int) -> dict[str, object]:
    return {"properties": {name: {"maxItems": count}}}


def _rule(name: str, mode: EditMode) -> dict[str, object]:
    """What follows from an edit mode, as in `_rows.py`."""
    own = {"allOf": [_given("prompt"), *map(_absent, mode.words)]}
    filled = {"allOf": [_absent("prompt"), *map(_given, mode.words)]}
    rules: list[dict[str, object]] = [{"oneOf": [own, filled]}]
    rules += [_absent(word) for word in WORDS if word not in mode.words]
    rules += [_at_most("images", mode.most) if mode.most else _absent("images")]
    rules += [_given("images")] if mode.least else []
    rules += [_given("points")] if mode.marked else []
    return {
        "if": {"properties": {"edit_mode": {"const": name}}, "required": ["edit_mode"]},
        "then": {"allOf": rules},
    }
