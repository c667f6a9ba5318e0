"""
Manifests as files: the same rows in each format, and what is wrong with them.
"""

import csv
import io
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kling_async import ManifestError
from kling_async.manifest import read_manifest

CLIP = "https://example.com/clip.mp4"
MARKS = {"40": [[0.8, 0.53]]}
REMOVAL = {"key": "a", "edit_mode": "removal", "video_url": CLIP, "what": "the bird", "points": MARKS}
SWAP = {
    "key": "b",
    "edit_mode": "swap",
    "video_url": CLIP,
    "old": "the rabbit",
    "new": "the cat",
    "images": ["https://example.com/cat.png"],
    "points": MARKS,
}
ADDITION = {
    "key": "c",
    "edit_mode": "addition",
    "video_id": "v-1",
    "what": "the hat",
    "images": ["https://example.com/hat.png"],
}
TYPES = {
    "images": pa.list_(pa.string()),
    "points": pa.map_(pa.string(), pa.list_(pa.list_(pa.float64()))),
    "duration": pa.int64(),
    "watermark": pa.bool_(),
}
"""Columns of Parquet that are no text."""


def write_jsonl(path, rows):
    """
    A row to a line.
    """
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def spelled(name, value):
    """
    A JSON value as the text of a cell.
    """
    match name, value:
        case _, None:
            return ""
        case "images", _:
            return "|".join(value)
        case "points", _:
            return "|".join(f"{frame}:{x!r},{y!r}" for frame, listed in value.items() for x, y in listed)
        case "extra", _:
            return orjson.dumps(value).decode()
        case "watermark", _:
            return str(value).lower()
    return str(value)


def columns_of(rows):
    """
    Every name, in the order of its first row.
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def write_csv(path, rows, *, newline="\n"):
    """
    A header and a row to a record; all is quoted, for Python before 3.13 forgets a lone carriage return.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL)
    names = columns_of(rows)
    writer.writerow(names)
    writer.writerows([spelled(name, row.get(name)) for name in names] for row in rows)
    path.write_bytes(text.getvalue().encode())


def write_parquet(path, rows):
    """
    Types of their own for what is no text; `extra` is JSON, since its shape differs from row to row.
    """
    names = columns_of(rows)
    columns = {
        name: [spelled(name, row.get(name)) or None if name == "extra" else row.get(name) for row in rows]
        for name in names
    }
    arrays = [pa.array(columns[name], TYPES.get(name, pa.string())) for name in names]
    pq.write_table(pa.table(arrays, names), path)


WRITERS = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


def faults_of(path, **named):
    """
    Row, column and reason of every fault of a file.
    """
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **named)
    assert str(Path(path)) == caught.value.path
    return [(fault.row, fault.column, fault.reason) for fault in caught.value.faults]


def row_faults(tmp_path, row, **named):
    """
    Column and reason of every fault of one row of JSONL.
    """
    path = tmp_path / "one.jsonl"
    write_jsonl(path, [row])
    found = faults_of(path, **named)
    assert {1} == {row for row, _, _ in found}
    return [(column, reason) for _, column, reason in found]
