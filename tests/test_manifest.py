"""
Manifests: the same rows in three formats, every fault before anything is sent, and the schema that says so too.
"""

import pickle
import re
import tempfile
from decimal import Decimal
from pathlib import Path

import attrs
import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_async import InvalidInputError, Job, ManifestError, from_dict, manifest, to_dict
from kling_async._cells import EMPTY, KEY
from kling_async._columns import COLUMNS
from kling_async._outputs import folded
from kling_async.costs import LONG
from kling_async.manifest import Fault, Manifest, ManifestRow, manifest_schema, read_manifest
from tests.filing import ADDITION, CLIP, MARKS, REMOVAL, SWAP, WRITERS, faults_of, row_faults, write_csv, write_jsonl
from tests.strategies import ids, json_values, modest, png, urls, words

SAMPLES = Path(__file__).parent / "samples" / "manifests"
VALIDATOR = jsonschema.Draft202012Validator(manifest_schema())

keys = words.filter(re.compile(KEY).fullmatch)
pictures = st.sampled_from(["hat.png", "https://example.com/hat.png", "https://example.com/cat.png?sign=1"])
places = st.floats(0, 1).map(abs)
marks = st.dictionaries(
    st.integers(0, 999_999_999).map(str),
    st.lists(st.tuples(places, places).map(list), min_size=1, max_size=2, unique_by=tuple),
    min_size=1,
    max_size=2,
)
wishes = {
    "negative_prompt": words,
    "mode": st.sampled_from(["std", "pro"]),
    "duration": st.sampled_from([5, 10]),
    "watermark": st.booleans(),
    "extra": st.dictionaries(words.map("x-{}".format), json_values, min_size=1, max_size=2),
}
sources = st.builds(lambda url: {"video_url": url}, urls) | st.builds(lambda one: {"video_id": one}, ids)
prompts = words.map("<<<video_1>>> {}".format)
removals = st.fixed_dictionaries({"what": words, "points": marks}) | st.fixed_dictionaries(
    {"prompt": prompts, "points": marks}
)
swaps = st.fixed_dictionaries(
    {"old": words, "new": words, "points": marks, "images": st.lists(pictures, min_size=1, max_size=1)}
)
additions = st.fixed_dictionaries(
    {"what": words, "images": st.lists(pictures, min_size=1, max_size=2)}, optional={"points": marks}
)
asked = st.one_of(
    [
        st.tuples(st.just({"edit_mode": mode}), wanted, sources, st.fixed_dictionaries({}, optional=wishes)).map(
            lambda parts: {name: value for part in parts for name, value in part.items()}
        )
        for mode, wanted in (("removal", removals), ("swap", swaps), ("addition", additions))
    ]
)
named = st.lists(st.tuples(keys, asked), min_size=1, max_size=3, unique_by=lambda pair: folded(pair[0]).strip("."))
manifests = named.map(lambda pairs: [{"key": key, **row} for key, row in pairs])


@pytest.fixture(scope="module")
def folder():
    """
    A folder with one picture.
    """
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "hat.png").write_bytes(png(300, 300))
        yield Path(name)


@modest
@given(rows=manifests)
def test_the_same_rows_are_the_same_jobs_in_every_format(folder, rows):
    """
    Whatever their text holds: each row with its job and the name of its file.
    """
    read = {}
    for suffix, write in WRITERS.items():
        path = folder / f"rows{suffix}"
        write(path, rows)
        read[suffix] = [(row.job, row.job.edit.extra, row.output) for row in read_manifest(path).rows]
    assert [row["key"] for row in rows] == [job.key for job, _, _ in read[".jsonl"]]
    assert read[".jsonl"] == read[".csv"]
    assert read[".jsonl"] == read[".parquet"]


@modest
@given(rows=manifests)
def test_a_job_of_a_row_survives_json(folder, rows):
    """
    As what is stored of it, and as what is sent to other machines.
    """
    write_jsonl(folder / "rows.jsonl", rows)
    for row in read_manifest(folder / "rows.jsonl").rows:
        assert row.job == from_dict(Job, orjson.loads(orjson.dumps(to_dict(row.job))))


ODD = {
    "key": [7, True, " a", "a\nb", "a\n", ["a"]],
    "output": ["a/b.mp4", "a.mov", ".mp4", "b.mp4\n", "b?.mp4", 7, "x" * 200 + ".mp4"],
    "video_url": ["clip.mp4", "ftp://example.com/a.mp4", "https://example.com/" + "x" * 2048, "https://a b.com/", 7],
    "video_id": [7, " ", ["v-1"]],
    "edit_mode": ["remove", "REMOVAL", 7],
    "prompt": [7, " ", "x" * 2501],
    "what": [7, "\n", "x" * 2501],
    "old": [7, " "],
    "new": [["a"], " "],
    "images": ["hat.png", [7], [""], ["https://example.com/a.png"] * 3, {"a": 1}],
    "points": [
        [[0.5, 0.5]],
        {"40": []},
        {"040": [[0.5, 0.5]]},
        {"x": [[0.5, 0.5]]},
        {"1234567890": [[0.5, 0.5]]},
        {"40": [[0.5]]},
        {"40": [[0.5, 0.5, 0.5]]},
        {"40": [["0.5", 0.5]]},
        {"40": [[True, 0.5]]},
        {"40": [[1.5, 0.5]]},
        {"40": [[-0.5, 0.5]]},
        {"40": [[0.5, 0.5], [0.5, 0.5]]},
        {"40": [[0.0, 0.5], [-0.0, 0.5]]},
        {"40": [{"x": 0.5, "y": 0.5}]},
        {"40": [[n / 20, 0.5] for n in range(11)]},
        {str(n): [[0.5, 0.5]] for n in range(11)},
        "40:0.5,0.5",
    ],
    "negative_prompt": [7, " ", "x" * 2501],
    "mode": ["best", "PRO", 5],
    "duration": [7, 0, True, "7", "5.0", 5.5, [5]],
    "watermark": ["true", 1, 0, [True]],
    "extra": ["{}", 7, ["a"], True],
    "weather": ["fine", None],
}
FINE = {
    "key": ["a", "spring/1 ü"],
    "output": ["b.mp4", "ü b.mp4"],
    "video_url": [CLIP, "HTTP://127.0.0.1:8080/a.mp4"],
    "video_id": ["v-1"],
    "edit_mode": ["addition", "swap", "removal"],
    "prompt": ["<<<video_1>>>, but red"],
    "what": ["the bird"],
    "old": ["the rabbit"],
    "new": ["the cat"],
    "images": [["https://example.com/a.png"], ["https://example.com/a.png", "https://example.com/b.png"]],
    "points": [MARKS, {"0": [[0, 1]], "999999999": [[1.0, 0.0]]}],
    "negative_prompt": ["blur"],
    "mode": ["std", "pro"],
    "duration": [5, 10, "5", "10", 5.0],
    "watermark": [True, False],
    "extra": [{"model_name": "kling-v1-6"}],
}
EACH = {name: [*FINE.get(name, []), *odd, *EMPTY] for name, odd in ODD.items()}
changes = st.lists(
    st.sampled_from(sorted(EACH)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(EACH[name]))),
    max_size=4,
)
altered = st.builds(
    lambda row, without, changed: {
        **{name: value for name, value in row.items() if name not in without},
        **dict(changed),
    },
    st.sampled_from([REMOVAL, SWAP, ADDITION]),
    st.sets(st.sampled_from(sorted(COLUMNS)), max_size=2),
    changes,
)


def accepted(path, row):
    """
    Whether the reader takes this row.
    """
    write_jsonl(path, [row])
    try:
        read_manifest(path)
    except ManifestError:
        return False
    return True


@settings(modest, max_examples=300)
@given(row=altered)
def test_the_schema_says_what_the_reader_does(folder, row):
    """
    As far as a schema can: here nothing depends on hosts, files, other rows or what a prompt names.
    """
    assert VALIDATOR.is_valid(row) == accepted(folder / "rows.jsonl", row)


@pytest.mark.parametrize("name, value", [(name, value) for name, values in EACH.items() for value in values])
def test_the_schema_agrees_about_every_value(folder, name, value):
    """
    Each of them alone in a row of each mode.
    """
    for row in (REMOVAL, SWAP, ADDITION):
        changed = {**row, name: value}
        assert VALIDATOR.is_valid(changed) == accepted(folder / "rows.jsonl", changed)
        if any(value is odd for odd in ODD[name]) and name in FINE:
            assert not VALIDATOR.is_valid(changed)


@modest
@given(rows=manifests)
def test_the_schema_takes_every_row_that_is_read(rows):
    """
    Whatever its text holds.
    """
    for row in rows:
        VALIDATOR.validate(row)


def test_the_schema_is_a_schema_of_its_own():
    """
    Of the draft that it names; whoever changes it changes nobody else's.
    """
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(COLUMNS) == list(schema["properties"])
    schema["$defs"]["empty"]["enum"][2].append("x")
    schema["properties"]["points"]["anyOf"][0].clear()
    assert manifest_schema() != schema
    assert [None, "", [], {}] == manifest_schema()["$defs"]["empty"]["enum"]
    assert schema == orjson.loads(orjson.dumps(schema))


lines = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"key,edit_mode,what", b'{"key": "a"}', b'"', b",,", b"\0", b"\xef\xbb\xbf", b"a,swap,x\r"]),
    max_size=6,
).map(b"\n".join)


@settings(modest, max_examples=200)
@given(content=lines, suffix=st.sampled_from([".jsonl", ".csv"]))
def test_whatever_a_file_holds_its_faults_are_told(folder, content, suffix):
    """
    No other error comes out.
    """
    path = folder / f"any{suffix}"
    path.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert caught.value.faults


def test_the_samples_are_one_manifest_in_two_formats(tmp_path):
    """
    Twenty rows of removals, swaps and additions, as a user writes them.
    """
    jsonl, table = read_manifest(SAMPLES / "clips.jsonl"), read_manifest(SAMPLES / "clips.csv")
    assert [(row.job, row.output) for row in jsonl.rows] == [(row.job, row.output) for row in table.rows]
    assert {"removal": 7, "swap": 7, "addition": 6} == {
        mode: sum(row.job.edit.edit_mode == mode for row in jsonl.rows) for mode in ("removal", "swap", "addition")
    }
    assert list(range(1, 21)) == [row.number for row in jsonl.rows]
    assert list(range(2, 22)) == [row.number for row in table.rows]
    assert ["meadow without stones.mp4", "spring-02-ball.mp4"] == [row.output for row in jsonl.rows[:2]]
    for line in (SAMPLES / "clips.jsonl").read_text(encoding="utf-8").splitlines():
        VALIDATOR.validate(orjson.loads(line))


def test_the_faulty_sample_tells_its_three_rows():
    """
    Each fault by row and column, in the order of the file.
    """
    with pytest.raises(ManifestError) as caught:
        read_manifest(SAMPLES / "faulty.jsonl")
    places = [(4, "points"), (11, "edit_mode"), (11, "images"), (14, "durations"), (14, "key")]
    assert places == [(fault.row, fault.column) for fault in caught.value.faults]
    first, second, *_ = str(caught.value).splitlines()
    assert f"{SAMPLES / 'faulty.jsonl'}: 5 faults, and nothing was sent" == first
    assert second.startswith("  row 4, points: frame 40: x must lie from 0 to 1, not 1024.0: that looks like pixels")


def test_an_error_tells_ten_faults_and_keeps_all(tmp_path):
    """
    It is wrong input, and travels between processes.
    """
    write_csv(tmp_path / "a.csv", [{**REMOVAL, "key": str(n), "mode": "best"} for n in range(1, 2013)])
    with pytest.raises(InvalidInputError) as caught:
        read_manifest(tmp_path / "a.csv")
    told = str(caught.value).splitlines()
    assert (12, "  and 2,002 more") == (len(told), told[-1])
    assert "  row 2, mode: must be 'std' or 'pro', not 'best'" == told[1]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (2012, caught.value.faults) == (len(again.faults), again.faults)
    assert Fault(2013, "mode", "must be 'std' or 'pro', not 'best'") == again.faults[-1]


def test_one_fault_is_one_line(tmp_path):
    """
    With the file, and as much of the place as there is.
    """
    path = tmp_path / "a.txt"
    with pytest.raises(ManifestError, match=r"a\.txt: cannot be read: No such file or directory$") as caught:
        read_manifest(path)
    assert str(path) == caught.value.field
    assert ["row 3: a", "mode: a", "row 3, mode: a", "a"] == [
        str(Fault(row, column, "a")) for row, column in [(3, None), (None, "mode"), (3, "mode"), (None, None)]
    ]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_manifest_without_rows_is_a_fault(tmp_path, suffix):
    """
    Nobody means it.
    """
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, [REMOVAL])
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(path).slice(0, 0), path)
    else:
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] if suffix == ".csv" else b"")
    assert [(None, None, "holds no rows")] == faults_of(path)


def test_both_rows_of_a_key_are_named(tmp_path):
    """
    In lines of the file, which quoted ends of line and blank lines have a part in.
    """
    path = tmp_path / "a.csv"
    more = '{0},removal,v,it,"0:1,1"\n'.format
    path.write_text('key,edit_mode,video_id,what,points\na,removal,v,"the\nbird","0:1,1"\n\n' + more("b") + more("a"))
    assert [(6, "key", "'a' is the key of row 2 too, and a key names one paid run")] == faults_of(path)


def test_bytes_that_are_no_utf_8_are_a_fault_of_their_cell(tmp_path):
    """
    By row and column in a table, and in JSON wherever they stand in text.
    """
    path = tmp_path / "a.csv"
    path.write_bytes(b'key,edit_mode,video_id,what,points\na,removal,v,the \xff bird,"0:1,1"\n')
    said = "holds a NUL, a lone surrogate, or bytes that are not UTF-8"
    assert [(2, "what", said)] == faults_of(path)
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(REMOVAL).replace(b"the bird", b"the \xff bird"))
    assert [(1, "what", said)] == faults_of(tmp_path / "a.jsonl")
    assert [("what", said)] == row_faults(tmp_path, {**REMOVAL, "what": "the \0 bird"})


def test_a_header_s_faults_and_its_rows_are_told_together(tmp_path):
    """
    One look is enough to mend the file.
    """
    write_csv(tmp_path / "a.csv", [{**REMOVAL, "modes": "pro"}, {**REMOVAL, "key": "b", "duration": 7}])
    assert [(1, "modes"), (3, "duration")] == [place[:2] for place in faults_of(tmp_path / "a.csv")]


def test_what_is_no_manifest_at_all_is_not_read_to_its_end(tmp_path, monkeypatch):
    """
    Its faults would fill the memory.
    """
    monkeypatch.setattr(manifest, "FAULTS_MOST", 5)
    (tmp_path / "a.jsonl").write_text("?\n" * 100)
    *told, last = faults_of(tmp_path / "a.jsonl")
    assert list(range(1, 7)) == [row for row, _, _ in told]
    assert (None, None, "has so many faults that the rest of it was not read") == last


@pytest.mark.parametrize("suffix", WRITERS)
def test_lines_may_end_either_way(tmp_path, suffix):
    """
    And the path may be text.
    """
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, [REMOVAL, SWAP, ADDITION])
    plain = read_manifest(path).rows
    if suffix != ".parquet":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    again = read_manifest(str(path))
    assert (path, plain) == (again.path, again.rows)


def test_a_host_that_is_not_here_takes_no_addresses_of_this_machine(tmp_path):
    """
    They are refused beforehand, where the caller says so.
    """
    write_jsonl(tmp_path / "a.jsonl", [{**REMOVAL, "video_url": "http://127.0.0.1/a.mp4"}])
    assert 1 == len(read_manifest(tmp_path / "a.jsonl").rows)
    ((row, column, _),) = faults_of(tmp_path / "a.jsonl", local=False)
    assert (1, "video_url") == (row, column)


def priced(tmp_path, *changes):
    write_jsonl(tmp_path / "a.jsonl", [{**REMOVAL, "key": str(n), **more} for n, more in enumerate(changes)])
    return read_manifest(tmp_path / "a.jsonl")


def test_the_worst_case_takes_the_longest_clip(tmp_path):
    """
    Where a row leaves the duration to it.
    """
    assert Decimal(3) == priced(tmp_path, {"duration": 5}).worst_case
    assert Decimal(6) == priced(tmp_path, {}).worst_case
    read = priced(tmp_path, {}, {"mode": "pro"}, {"mode": "pro", "duration": 5}, {"duration": 10})
    assert (Decimal(6 + 10 + 5 + 6), 0) == (read.worst_case, read.unpriced)
    assert manifest._CLIP_MOST >= LONG


def test_a_row_without_a_price_makes_the_whole_unknown(tmp_path):
    """
    Unknown is never zero; how many there are is told.
    """
    read = priced(tmp_path, {}, {"extra": {"model_name": "kling-v9"}}, {"extra": {"seed": 1}})
    assert (None, 2) == (read.worst_case, read.unpriced)


def test_a_manifest_is_a_value(tmp_path):
    """
    Frozen, picklable, and shown without its rows.
    """
    read = priced(tmp_path, {}, {})
    assert read == pickle.loads(pickle.dumps(read))
    assert f"Manifest(path={tmp_path / 'a.jsonl'!r}, rows=2 rows)" == repr(read)
    assert isinstance(read, Manifest)
    for value in (read, read.rows[0]):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            value.path = None
    assert ManifestRow(1, read.rows[0].job, "0.mp4") == read.rows[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_hundred_thousand_rows_are_read(tmp_path, suffix):
    """
    In seconds, each picture held once.
    """
    (tmp_path / "hat.png").write_bytes(png(300, 300, padding=100_000))
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, [{**SWAP, "key": f"clip-{n}", "images": ["hat.png"]} for n in range(100_000)])
    read = read_manifest(path)
    assert 100_000 == len(read.rows)
    assert 1 == len({id(row.job.edit.image) for row in read.rows})
    assert Decimal(600_000) == read.worst_case
