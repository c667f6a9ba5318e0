"""
Files as rows: where each begins, which cells it has, and what keeps it from being read.
"""

import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kling_async import _tables
from kling_async._cells import Unreadable
from kling_async._tables import LINE_MOST, Fault, file_size, is_spelled, read_rows

HEAD = b"key,edit_mode,what\n"


def rows_of(path, content=None):
    """
    Rows and faults of a file with this content.
    """
    if content is not None:
        path.write_bytes(content)
    return [
        (found.row, found.column, found.reason) if isinstance(found, Fault) else (found[0], dict(found[1]))
        for found in read_rows(path)
    ]


def test_a_row_of_jsonl_is_a_line(tmp_path):
    """
    Its number is that of an editor: blank lines count, a BOM and either end of line do not matter.
    """
    content = b'\xef\xbb\xbf{"key": "a"}\r\n\r\n  \n{"key": "\xc3\xa9", "duration": 5}\n{"key": "\\u2028"}'
    assert [(1, {"key": "a"}), (4, {"key": "é", "duration": 5}), (5, {"key": "\u2028"})] == rows_of(
        tmp_path / "a.jsonl", content
    )


@pytest.mark.parametrize(
    "line, said",
    [
        (b'{"key": "a"', "is not JSON: Expecting ',' delimiter at character"),
        (b'{"key": "a", "key": "b"}', "holds the name 'key' twice"),
        (b'["a"]', "must be a JSON object, one to a line"),
        (b'"a"', "must be a JSON object"),
        (b'{"duration": NaN}', "holds NaN"),
        (b"\0", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"key": "' + b"x" * LINE_MOST + b'"}', "has more than 1,048,576 bytes in its line"),
        (b'{"key": "' + b"x" * 5 * LINE_MOST + b'"}', "has more than 1,048,576 bytes in its line"),
    ],
)
def test_a_broken_line_of_jsonl_is_one_fault(tmp_path, line, said):
    """
    The lines around it are read all the same.
    """
    before, (number, column, reason), after = rows_of(
        tmp_path / "a.jsonl", b'{"key": "a"}\n' + line + b'\n{"key": "b"}'
    )
    assert ((1, {"key": "a"}), 2, None, (3, {"key": "b"})) == (before, number, column, after)
    assert said in reason


def test_a_line_may_be_as_long_as_the_limit(tmp_path):
    """
    With its end or without; a byte more is too long.
    """
    line = b'{"key": "%s"}'
    fits = line % (b"x" * (LINE_MOST - len(line) + 2 - 1))
    found = rows_of(tmp_path / "a.jsonl", fits + b"\n" + b" " + fits + b"\n" + fits + b"\n" + fits)
    assert [1, 2, 3, 4] == [number for number, *_ in found]
    assert [True, False, True, True] == [isinstance(row[1], dict) for row in found]


def test_bytes_that_are_no_utf_8_stand_where_they_are(tmp_path):
    """
    As lone surrogates, which the cell is refused for.
    """
    assert [(1, {"key": "\udcff"})] == rows_of(tmp_path / "a.jsonl", b'{"key": "\xff"}')
    assert [(2, {"key": "\udcff", "what": "é"})] == rows_of(tmp_path / "a.csv", HEAD + b"\xff,,\xc3\xa9\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_told_once(tmp_path, name, encoding):
    """
    As some programs save what they call Unicode.
    """
    content = "\ufeffkey,what\na,b\n".encode(encoding)
    assert [(None, None, "is UTF-16: save it as UTF-8")] == rows_of(tmp_path / name, content)


def test_a_row_of_csv_begins_in_the_line_that_an_editor_shows(tmp_path):
    """
    Quoted ends of line and blank lines count; cells keep what is quoted, and empty ones are not there.
    """
    content = b'\xef\xbb\xbf\n"key",edit_mode,what\r\na,,"the ""bird"",\nred\r\n"\r\n\r\n,,\r\nb,swap,\r\nc,,"x"'
    assert [
        (3, {"key": "a", "what": 'the "bird",\nred\r\n'}),
        (8, {"key": "b", "edit_mode": "swap"}),
        (9, {"key": "c", "what": "x"}),
    ] == rows_of(tmp_path / "a.csv", content)


@pytest.mark.parametrize(
    "record, said",
    [
        (b"a,swap", "has 2 cells, but the header has 3"),
        (b"a,swap,it,it", "has 4 cells, but the header has 3"),
        (b'a,"swap"x,it', "is not CSV: ',' expected after '\"'; is a quote missing or left open?"),
        (b"a,swap\rx,it", "is not CSV: new-line character seen in unquoted field; is"),
        (b"a,swap," + b"x" * 140_000, "is not CSV: field larger than field limit (131072); is"),
        (b"a,swap," + b"x" * LINE_MOST, "has more than 1,048,576 bytes in its line"),
    ],
)
def test_a_broken_record_of_csv_is_one_fault(tmp_path, record, said):
    """
    The records around it are read all the same.
    """
    before, (number, column, reason), after = rows_of(tmp_path / "a.csv", HEAD + b"a,,\n" + record + b"\nb,,\n")
    assert ((2, {"key": "a"}), 3, None, (4, {"key": "b"})) == (before, number, column, after)
    assert said in reason


def test_a_quote_that_is_left_open_is_told_where_it_was_opened(tmp_path):
    """
    To the end of the file, or until the cell is longer than any.
    """
    said = "is not CSV: unexpected end of data; is a quote missing or left open?"
    assert [(2, {"key": "a"}), (3, None, said)] == rows_of(tmp_path / "a.csv", HEAD + b'a,,\nb,,"open\nc,,\n')
    found = rows_of(tmp_path / "a.csv", HEAD + b'b,,"open\n' + b"c,,\n" * 40_000)
    assert (2, None, "is not CSV: field larger than field limit (131072); is a quote missing or left open?") == found[0]
    assert {"key": "c"} == found[-1][1]


def test_a_line_that_is_too_long_is_told_at_the_end_of_a_file_too(tmp_path):
    """
    Where no record follows it.
    """
    said = "has more than 1,048,576 bytes in its line"
    assert [(2, None, said)] == rows_of(tmp_path / "a.csv", HEAD + b"x" * LINE_MOST + b"x")


@pytest.mark.parametrize(
    "header, faults",
    [
        (b"key,edit_mode,weather", [(1, "weather", "is no column")]),
        (b"key,edit_mode,image", [(1, "image", "is no column; did you mean 'images'?")]),
        (b"key,edit_mode,what,what", [(1, "what", "is the name of two columns")]),
        (b"key,edit_mode,", [(1, None, "column 3 has no name")]),
        (b"key,edit_mode,\xff", [(1, "\ufffd", "is no column")]),
    ],
)
def test_a_fault_of_the_header_is_told_once(tmp_path, header, faults):
    """
    And the rows are read by the columns that are known.
    """
    found = rows_of(tmp_path / "a.csv", header + b"\na,swap" + b"," * (header.count(b",") - 1) + b"\n")
    assert len(faults) + 1 == len(found)
    for (row, column, reason), (number, name, said) in zip(faults, found[:-1], strict=True):
        assert (row, reason) == (number, said[: len(reason)])
        assert column in {name, "\ufffd"}
    assert (2, {"key": "a", "edit_mode": "swap"}) == found[-1]


def test_a_header_without_what_every_row_needs_is_all_that_is_told(tmp_path):
    """
    Its rows would each say the same.
    """
    told = [(2, "Key", "is no column; did you mean 'key'?"), (2, "key", "is missing: every row needs it")]
    assert told == rows_of(tmp_path / "a.csv", b"\nKey,edit_mode\na,swap\nb,swap\n")
    assert ["key;edit_mode", "key", "edit_mode"] == [row[1] for row in rows_of(tmp_path / "b.csv", b"key;edit_mode\n")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    """
    Nor has one of blank lines.
    """
    assert [] == rows_of(tmp_path / name, b"")
    assert [] == rows_of(tmp_path / name, b"\xef\xbb\xbf\n\r\n")


def write(path, **columns):
    pq.write_table(pa.table(columns), path)


MODES = pa.array(["swap", None])


def test_a_row_of_parquet_has_its_number_and_json_types(tmp_path):
    """
    Nulls of structs are not there, maps are objects, categories are text, however deep.
    """
    path = tmp_path / "a.parquet"
    write(
        path,
        key=pa.array(["a", "b"]).dictionary_encode(),
        edit_mode=MODES,
        points=pa.array([{"40": [[0.5, 0.5]]}, {"8": [[0.1, 0.2]], "9": None}]),
        extra=pa.array(
            [[("a", {"b": 1, "c": None})], None], pa.map_(pa.string(), pa.struct({"b": pa.int8(), "c": "f8"}))
        ),
        images=pa.array([["a.png"], None], pa.large_list(pa.large_string())),
        watermark=pa.array([True, None]),
        duration=pa.array([5.0, None]),
        what=pa.nulls(2),
    )
    assert [
        (
            1,
            {
                "key": "a",
                "edit_mode": "swap",
                "points": {"40": [[0.5, 0.5]]},
                "extra": {"a": {"b": 1}},
                "images": ["a.png"],
                "watermark": True,
                "duration": 5.0,
                "what": None,
            },
        ),
        (
            2,
            {
                "key": "b",
                "edit_mode": None,
                "points": {"8": [[0.1, 0.2]]},
                "extra": None,
                "images": None,
                "watermark": None,
                "duration": None,
                "what": None,
            },
        ),
    ] == rows_of(path)


def test_rows_of_parquet_are_counted_over_batches_and_groups(tmp_path):
    """
    From one to the last.
    """
    path = tmp_path / "a.parquet"
    keys = [str(number) for number in range(1, 2502)]
    pq.write_table(pa.table({"key": keys, "edit_mode": ["swap"] * 2501}), path, row_group_size=700)
    assert [(int(key), {"key": key, "edit_mode": "swap"}) for key in keys] == rows_of(path)


@pytest.mark.parametrize(
    "columns, faults",
    [
        ({"key": [b"a", b"b"], "edit_mode": MODES}, [(None, "key", "is of the type binary: make it text")]),
        (
            {"key": ["a", "b"], "edit_mode": MODES, "points": pa.nulls(2, pa.list_(pa.timestamp("ns")))},
            [(None, "points", "is of the type list<element: timestamp[ns]>: make it text")],
        ),
        (
            {"key": ["a", "b"], "edit_mode": MODES, "extra": pa.nulls(2, pa.map_(pa.string(), pa.binary()))},
            [(None, "extra", "is of the type map<string, binary")],
        ),
        ({"key": ["a", "b"]}, [(None, "edit_mode", "is missing: every row needs it")]),
        ({"keys": ["a", "b"], "edit_mode": MODES}, [(None, "keys", "is no col"), (None, "key", "is missing")]),
    ],
)
def test_a_column_of_parquet_that_cannot_be_read_is_told_alone(tmp_path, columns, faults):
    """
    No row is read of it.
    """
    write(tmp_path / "a.parquet", **columns)
    found = rows_of(tmp_path / "a.parquet")
    assert [fault[:2] for fault in faults] == [fault[:2] for fault in found]
    assert all(told.startswith(said) for (_, _, said), (_, _, told) in zip(faults, found, strict=True))


def test_an_unknown_column_of_parquet_is_told_and_the_rest_is_read(tmp_path):
    """
    Whatever stands in it.
    """
    write(tmp_path / "a.parquet", key=["a", "b"], weather=pa.nulls(2, pa.binary()), edit_mode=MODES)
    (row, column, reason), *rows = rows_of(tmp_path / "a.parquet")
    assert (None, "weather") == (row, column)
    assert reason.startswith("is no column")
    assert [(1, {"key": "a", "edit_mode": "swap"}), (2, {"key": "b", "edit_mode": None})] == rows


def test_two_columns_of_one_name_are_told_alone(tmp_path):
    """
    Which of them is meant cannot be known.
    """
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["a"], ["b"], ["swap"]], ["key", "key", "edit_mode"]), path)
    assert [(None, "key", "is the name of two columns")] == rows_of(path)


def test_a_cell_of_parquet_that_is_no_utf_8_is_told_alone(tmp_path):
    """
    The cells around it are read.
    """
    text = pa.array([b"\xc3\xa9", b"\xff", None], pa.binary()).view(pa.string())
    write(tmp_path / "a.parquet", key=text, edit_mode=["swap"] * 3)
    unreadable = Unreadable("holds bytes that are not UTF-8")
    assert ["é", unreadable, None] == [cells["key"] for _, cells in rows_of(tmp_path / "a.parquet")]


def test_a_map_with_a_name_twice_holds_no_value(tmp_path):
    """
    One of its values would be lost.
    """
    marks = pa.array(
        [[("40", [[0.1, 0.2]]), ("40", [[0.3, 0.4]])]], pa.map_(pa.string(), pa.list_(pa.list_(pa.float64())))
    )
    write(tmp_path / "a.parquet", key=["a"], edit_mode=["swap"], points=marks)
    ((_, cells),) = rows_of(tmp_path / "a.parquet")
    assert Unreadable("holds the name '40' twice") == cells["points"]


@pytest.mark.parametrize("cut", [0, 4, 8, -1, -5, -40])
def test_a_broken_file_of_parquet_is_one_fault(tmp_path, cut):
    """
    Wherever it was cut.
    """
    path = tmp_path / "a.parquet"
    write(path, key=["a", "b"], edit_mode=MODES)
    ((row, column, reason),) = rows_of(path, path.read_bytes()[:cut])
    assert (None, None) == (row, column)
    assert reason.startswith(("is no Parquet file that can be read: ", "cannot be read: "))


def test_a_page_of_parquet_that_is_broken_is_one_fault(tmp_path):
    """
    Found only when it is read, after rows that could be.
    """
    path = tmp_path / "a.parquet"
    table = pa.table({"key": [f"{n:04}" for n in range(4000)], "edit_mode": ["swap"] * 4000})
    pq.write_table(table, path, row_group_size=2000, use_dictionary=False, compression="zstd")
    whole = path.read_bytes()
    meta = pq.ParquetFile(path).metadata.row_group(1).column(0)
    at = meta.data_page_offset + meta.total_compressed_size - 20
    *rows, (row, column, reason) = rows_of(path, whole[:at] + bytes(10) + whole[at + 10 :])
    assert [(n + 1, {"key": f"{n:04}", "edit_mode": "swap"}) for n in range(2000)] == rows
    assert (None, None) == (row, column)
    assert "cannot be read: " in reason


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    """
    Once a Parquet file is read, not before.
    """
    path = tmp_path / "a.parquet"
    write(path, key=["a"], edit_mode=["swap"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert [(None, None, "needs pyarrow: pip install 'kling-async[parquet]'")] == rows_of(path)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.json", "jsonl"])
def test_another_ending_is_no_manifest(tmp_path, name):
    """
    The ending says how it is read.
    """
    said = "must end in .jsonl, .csv, .parquet, for that says how to read it"
    assert [(None, None, said)] == rows_of(tmp_path / name, b"{}")


def test_an_ending_may_be_spelled_in_capitals(tmp_path):
    """
    As some systems do.
    """
    assert [(1, {"key": "a"})] == rows_of(tmp_path / "A.JSONL", b'{"key": "a"}')


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_what_is_not_there_or_no_file_is_told(tmp_path, name):
    """
    A pipe would keep the reader waiting for ever.
    """
    path = tmp_path / name
    assert [(None, None, "cannot be read: No such file or directory")] == rows_of(path)
    os.mkfifo(path)
    assert [(None, None, "is no regular file")] == rows_of(path)
    path.unlink()
    path.mkdir()
    assert [(None, None, "is a folder")] == rows_of(path)
    assert "cannot be read: no path holds a NUL" == file_size(tmp_path / "a\0.jsonl")


def test_a_file_that_fails_while_it_is_read_is_told(tmp_path, monkeypatch):
    """
    With the system's own reason.
    """

    def failing(_path):
        yield 1, {"key": "a"}
        raise OSError(5, "Input/output error")

    monkeypatch.setitem(_tables._READERS, ".jsonl", failing)
    assert [(1, {"key": "a"}), (None, None, "cannot be read: Input/output error")] == rows_of(
        tmp_path / "a.jsonl", b"{}"
    )


def test_jsonl_alone_has_types_of_its_own(tmp_path):
    """
    In the others text may stand for them.
    """
    assert [False, True, True] == [is_spelled(tmp_path / name) for name in ("a.jsonl", "a.CSV", "a.parquet")]
