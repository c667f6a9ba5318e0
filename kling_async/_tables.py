"""
A manifest's file as rows of cells: JSONL, CSV and Parquet.

Decides where a row begins and which cells it has, and says what keeps it from being read. Knows the names of the
columns, but nothing of what stands in them. A line is read at a time, a thousand rows of Parquet.
"""

import csv
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeAlias

from attrs import frozen

from ._cells import Unreadable, read_json, unique
from ._columns import COLUMNS, unknown
from ._refusals import excerpt

if TYPE_CHECKING:
    import pyarrow as pa

Row: TypeAlias = tuple[int, Mapping[str, object]]
"""Its number, and its cells by column; a cell in which nothing stands may be left out."""

LINE_MOST: Final = 1024 * 1024
"""Bytes of a line. The longest prompts, marks and links together take some thirty thousand."""
_BATCH = 1000
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@frozen
class Fault:
    """
    What is wrong in one place of a manifest.
    """

    row: int | None
    """The line of the file where its row begins, in Parquet the row; from 1. None is the file as a whole."""
    column: str | None
    """The column; None is the row as a whole."""
    reason: str
    """What is wrong and what to give instead."""

    def __str__(self) -> str:
        at = (f"row {self.row}" if self.row else "", self.column or "")
        return ": ".join(filter(None, (", ".join(filter(None, at)), self.reason)))


def read_rows(path: Path) -> Iterator[Row | Fault]:
    """
    The rows of a file, and what cannot be read of it, in its order.

    Args:
        path: A file whose name ends in `.jsonl`, `.csv` or `.parquet`.
    """
    size = file_size(path)
    reader = _READERS.get(path.suffix.lower())
    if isinstance(size, str):
        yield Fault(None, None, size)
    elif reader is None:
        yield Fault(None, None, f"must end in {', '.join(_READERS)}, for that says how to read it")
    else:
        try:
            yield from reader(path)
        except OSError as error:
            yield Fault(None, None, f"cannot be read: {error.strerror or excerpt(error)}")


def file_size(path: Path) -> int | str:
    """
    Bytes of a file, or why there is nothing to read: a pipe, say, need never end.

    Args:
        path: What should be a file.
    """
    try:
        found = path.stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "cannot be read: no path holds a NUL"
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    return "is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file"


def is_spelled(path: Path) -> bool:
    """
    Whether text in this file is spelled as cells of a table are.

    Args:
        path: The file.
    """
    return path.suffix.lower() != ".jsonl"


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Line after line, None for one that is too long."""
    while line := file.readline(LINE_MOST + 1):
        yield line if len(line) <= LINE_MOST else None
        while len(line) > LINE_MOST and not line.endswith(b"\n"):
            line = file.readline(LINE_MOST + 1)


def _texts(file: IO[bytes]) -> Iterator[str | Fault]:
    """
    Line after line as text. Bytes that are not UTF-8 become lone surrogates, which are refused where they stand.
    """
    for number, line in enumerate(_lines(file), 1):
        if line is None:
            yield Fault(number, None, f"has more than {LINE_MOST:,} bytes in its line")
        elif number == 1 and line.startswith(_UTF_16):
            yield Fault(None, None, "is UTF-16: save it as UTF-8")
            return
        else:
            plain = line.removeprefix(_BOM) if number == 1 else line
            yield plain.decode(errors="surrogateescape")


def _jsonl(path: Path) -> Iterator[Row | Fault]:
    with path.open("rb") as file:
        for number, text in enumerate(_texts(file), 1):
            if isinstance(text, Fault):
                yield text
            elif not text.isspace():
                yield _object(number, text)


def _object(number: int, text: str) -> Row | Fault:
    try:
        cells = read_json(text)
    except ValueError as error:
        return Fault(number, None, str(error))
    if not isinstance(cells, dict):
        return Fault(number, None, "must be a JSON object, one to a line")
    return number, cells


def _csv(path: Path) -> Iterator[Row | Fault]:
    found: list[Fault] = []

    def lines(file: IO[bytes]) -> Iterator[str]:
        for text in _texts(file):
            if isinstance(text, Fault):
                found.append(text)
            yield "\n" if isinstance(text, Fault) else text

    with path.open("rb") as file:
        header: list[str] | None = None
        for row in _csv_rows(lines(file)):
            yield from found
            found.clear()
            if isinstance(row, Fault):
                yield row
                continue
            number, cells = row
            if not any(cells):
                continue
            if header is None:
                header = cells
                faults = _header_faults(header, number)
                yield from faults
                if any(fault.column in _REQUIRED for fault in faults):
                    return
            elif len(cells) != len(header):
                yield Fault(number, None, f"has {len(cells)} cells, but the header has {len(header)}")
            else:
                yield number, {name: cell for name, cell in zip(header, cells, strict=True) if cell and name in COLUMNS}
        yield from found


def _csv_rows(lines: Iterator[str]) -> Iterator[tuple[int, list[str]] | Fault]:
    """Rows with the line that each begins in; one that is broken ends with its line."""
    reader = csv.reader(lines, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Fault(number, None, f"is not CSV: {str(error).partition(' - ')[0]}; is a quote missing or left open?")
        else:
            if cells is None:
                return
            yield number, cells


def _header_faults(names: Iterable[str], row: int | None) -> list[Fault]:
    faults = []
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name:
            faults.append(Fault(row, None, f"column {place} has no name"))
        elif name in seen:
            faults.append(Fault(row, excerpt(name, 80), "is the name of two columns"))
        elif name not in COLUMNS:
            faults.append(Fault(row, excerpt(name, 80), unknown(name)))
        seen.add(name)
    faults += [Fault(row, name, "is missing: every row needs it") for name in _REQUIRED if name not in seen]
    return faults


def _parquet(path: Path) -> Iterator[Row | Fault]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        yield Fault(None, None, "needs pyarrow: pip install 'kling-async[parquet]'")
        return
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            faults = [*_header_faults(schema.names, None), *_type_faults(schema)]
            yield from faults
            if any(fault.column in COLUMNS for fault in faults):
                return
            names = [name for name in schema.names if name in COLUMNS]
            numbers = count(1)
            for batch in file.iter_batches(batch_size=_BATCH, columns=names, use_threads=False):
                for cells in zip(*(_cells(batch.column(name)) for name in names), strict=True):
                    yield next(numbers), dict(zip(names, cells, strict=True))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        yield Fault(None, None, f"is no Parquet file that can be read: {excerpt(error)}")


def _type_faults(schema: "pa.Schema") -> list[Fault]:
    return [
        Fault(None, field.name, f"is of the type {excerpt(field.type, 80)}: make it text")
        for field in schema
        if field.name in COLUMNS and not _is_plain(field.type)
    ]


def _is_plain(kind: "pa.DataType") -> bool:
    """Whether its values are those of JSON."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if types.is_map(kind):
        return _is_plain(kind.key_type) and _is_plain(kind.item_type)
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    return bool(re.fullmatch(r"null|bool|u?int\d+|float|double|(large_)?string(_view)?", str(kind)))


def _cells(column: "pa.Array") -> list[object]:
    try:
        return [_plain(value) for value in column.to_pylist()]
    except UnicodeDecodeError:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: "pa.Scalar") -> object:
    try:
        return _plain(scalar.as_py())
    except UnicodeDecodeError:
        return Unreadable("holds bytes that are not UTF-8")


def _plain(value: object) -> object:
    """A value as JSON would have it: what a struct leaves null is not in it, and maps are objects."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        try:
            return unique([(str(name), _plain(each)) for name, each in value if each is not None])
        except ValueError as error:
            return Unreadable(str(error))
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


_REQUIRED = [name for name, column in COLUMNS.items() if column.required]
_READERS: dict[str, Callable[[Path], Iterator[Row | Fault]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
