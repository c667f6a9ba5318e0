"""
Values to plain JSON types and back, and to the bodies that the API takes.
"""

import base64
import json
import types
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from attrs import evolve
from hypothesis import given

from kling_async import (
    Addition,
    ApiKey,
    DecodeError,
    Image,
    InvalidInputError,
    Job,
    KeyPair,
    KlingError,
    KlingWarning,
    Mask,
    Point,
    Preview,
    Removal,
    RetryPolicy,
    SelectionState,
    Swap,
    Task,
    Video,
    from_dict,
    to_dict,
)
from kling_async._codec import VALUES, converter, create_body, encode, init_body, points_body, session_body
from tests import strategies
from tests.strategies import modest

REQUESTS = Path(__file__).parent / "samples" / "requests"
SESSION = "847570360458960960"
HAT, CAP, CAT = (Image.from_url(f"https://example.com/{name}.png") for name in ("hat", "cap", "cat"))
MARKED = (Point(0.5, 0.5), Point(0.1 + 0.2, 5e-324))
REMOVAL = Removal.of("the bird")


def create(edit, number=1, callback_url=None):
    """
    The body of a create of order 1, 2 or 3.
    """
    return create_body(SESSION, edit, external_task_id=f"order-{number}", callback_url=callback_url)


BODIES = {
    "init-url": lambda: init_body("https://example.com/clip.mp4", None),
    "init-id": lambda: init_body(None, "784912347344945152"),
    "add": lambda: points_body(SESSION, 1, MARKED),
    "delete": lambda: points_body(SESSION, 1, MARKED),
    "clear": lambda: session_body(SESSION),
    "preview": lambda: session_body(SESSION),
    "create-removal": lambda: create(REMOVAL),
    "create-swap": lambda: create(
        Swap.of("the rabbit", "the cat", CAT, mode="pro", duration=10, negative_prompt="blur", watermark=True),
        2,
        "https://example.com/kling",
    ),
    "create-addition": lambda: create(
        Addition.of("the hats", HAT, CAP, watermark=False, extra={"model_name": "kling-v1-6"}), 3
    ),
}


def plain(value):
    """
    Whether there is nothing in it but what JSON has.
    """
    if type(value) in {dict, list}:
        return all(map(plain, value.values() if type(value) is dict else value))
    return value is None or type(value) in {str, int, float, bool}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_the_documented_one(name):
    """
    Field for field, as the samples have it, and nothing beside.
    """
    wanted = json.loads((REQUESTS / f"{name}.json").read_text("utf-8"))["body"]
    assert wanted == json.loads(encode(BODIES[name]()))


def test_every_sample_body_is_tried():
    """
    What is documented is compared.
    """
    with_body = {path.stem for path in REQUESTS.glob("*.json") if "body" in json.loads(path.read_text("utf-8"))}
    assert with_body == BODIES.keys()


@given(strategies.edits)
@modest
def test_a_create_holds_nothing_empty_and_nothing_of_another_kind(edit):
    """
    Text for the duration, objects for the pictures, neither for a removal, and no parent task.
    """
    body = create(edit)
    own = {name: value for name, value in body.items() if not name.startswith("x-")}
    assert not {None, ""} & {value for value in own.values() if not isinstance(value, list | dict)}
    assert {"5", "10"} >= {own["duration"]}
    assert "task_id" not in own
    assert {"image": str} == {"image": str} | {
        name: type(value) for picture in own.get("image_list", []) for name, value in picture.items()
    }
    assert len(edit.pictures) == len(own.get("image_list", []))
    assert isinstance(edit, Removal) == ("image_list" not in own)


def test_a_picture_is_sent_as_base64_without_a_prefix():
    """
    The service refuses data: URLs.
    """
    data = strategies.png(400, 300)
    (sent,) = create(Swap.of("a", "b", Image.from_bytes(data)))["image_list"]
    assert {"image": base64.b64encode(data).decode()} == sent


@given(strategies.groups)
@modest
def test_points_are_deleted_by_the_letters_that_added_them(points):
    """
    Through a stored value and back, both calls spell every float alike and exactly.
    """
    stored = [from_dict(Point, orjson.loads(orjson.dumps(to_dict(point)))) for point in points]
    added, deleted = (encode(points_body(SESSION, 0, tuple(given))) for given in (points, stored))
    assert added == deleted
    assert [(point.x, point.y) for point in points] == [
        (point["x"], point["y"]) for point in json.loads(added)["points"]
    ]


@pytest.mark.parametrize("x, said", [(0.1 + 0.2, "0.30000000000000004"), (5e-324, "5e-324"), (1, "1.0"), (-0.0, "0.0")])
def test_a_float_is_spelled_in_full(x, said):
    """
    B8 and B3: the shortest text that is the number, with its point.
    """
    assert f'"x":{said},' in encode(points_body(SESSION, 0, (Point(x, 0),))).decode()


@pytest.mark.parametrize(
    "video_url, video_id, field",
    [
        pytest.param("https://example.com/clip.mp4", "1", "video_url and video_id", id="B24"),
        pytest.param(None, None, "video_url and video_id", id="B25"),
        pytest.param("", "", "video_url and video_id", id="B25-empty"),
        pytest.param(None, " 1", "video_id", id="B19"),
        pytest.param(None, "<video_id>", "video_id", id="B21"),
        pytest.param(None, 784912347344945152, "video_id", id="B22"),
    ],
)
def test_a_selection_is_opened_on_one_source(video_url, video_id, field):
    """
    Exactly one, and an id of the service's.
    """
    with pytest.raises(InvalidInputError) as refused:
        init_body(video_url, video_id)
    assert field == refused.value.field


def test_an_empty_source_is_none():
    """
    The official samples send `"video_id": ""` beside a URL; here the empty one is left out.
    """
    assert {"video_url": "https://example.com/clip.mp4"} == init_body("https://example.com/clip.mp4", "")
    assert {"video_id": "1"} == init_body("", "1")


def test_a_parent_task_is_never_sent():
    """
    B26: there is no such parameter.
    """
    with pytest.raises(TypeError):
        init_body(None, "1", task_id="2")


def test_a_clip_of_another_kind_is_warned_of():
    """
    B31: and sent all the same.
    """
    with pytest.warns(KlingWarning, match="MP4 and MOV"):
        assert {"video_url": "https://example.com/clip.avi"} == init_body("https://example.com/clip.avi", None)


@pytest.mark.parametrize(
    "session_id, frame, points, field",
    [
        pytest.param("", 0, MARKED, "session_id", id="B19"),
        pytest.param(None, 0, MARKED, "session_id", id="B19-none"),
        pytest.param("84\r\n", 0, MARKED, "session_id", id="B20"),
        pytest.param("<session_id>", 0, MARKED, "session_id", id="B21"),
        pytest.param(int(SESSION), 0, MARKED, "session_id", id="B22"),
        pytest.param(SESSION, -1, MARKED, "frame_index", id="B16"),
        pytest.param(SESSION, True, MARKED, "frame_index", id="B17"),
        pytest.param(SESSION, 0, (), "points", id="B10"),
        pytest.param(SESSION, 0, tuple(Point(0, n / 20) for n in range(11)), "points", id="B11"),
        pytest.param(SESSION, 0, (Point(0, 0), Point(0, 0)), "points", id="B14"),
    ],
)
def test_points_go_to_a_session_and_a_frame(session_id, frame, points, field):
    """
    The calls without a ledger keep the limits of one call.
    """
    with pytest.raises(InvalidInputError) as refused:
        points_body(session_id, frame, points)
    assert field == refused.value.field


@pytest.mark.parametrize(
    "build, field",
    [
        pytest.param(lambda: session_body(""), "session_id", id="B19"),
        pytest.param(
            lambda: create_body("", REMOVAL, external_task_id="a", callback_url=None), "session_id", id="B19-create"
        ),
        pytest.param(
            lambda: create_body("1", REMOVAL, external_task_id="1", callback_url=None), "external_task_id", id="B55"
        ),
        pytest.param(
            lambda: create_body("1", "removal", external_task_id="a", callback_url=None), "edit", id="B33-text"
        ),
        pytest.param(lambda: create_body("1", None, external_task_id="a", callback_url=None), "edit", id="B33-none"),
    ],
)
def test_a_body_names_what_is_wrong_with_it(build, field):
    """
    Before a byte of it is sent.
    """
    with pytest.raises(InvalidInputError) as refused:
        build()
    assert field == refused.value.field


@pytest.mark.parametrize("said", [{1: 2}, {"a": {1}}, {"a": 10**400}, {"a": "\ud800"}, {"a": b"b"}])
def test_what_json_cannot_say_is_refused(said):
    """
    As wrong input, not as an encoder's error.
    """
    with pytest.raises(InvalidInputError) as refused:
        encode(said)
    assert "json" == refused.value.field


@given(strategies.values)
@modest
def test_a_value_survives_its_plain_form(value):
    """
    As plain types and as orjson's bytes, floats exact, for every kind of value.
    """
    kept = to_dict(value)
    assert plain(kept)
    assert value == from_dict(type(value), kept)
    assert value == from_dict(type(value), orjson.loads(orjson.dumps(kept)))
    assert kept == orjson.loads(orjson.dumps(kept))


@given(strategies.values)
@modest
def test_any_kind_may_come_first(value):
    """
    What reads and writes a kind is made when it is first met, whatever was met before.
    """
    kept = converter.__wrapped__().unstructure(value)
    assert to_dict(value) == kept
    assert value == converter.__wrapped__().structure(kept, type(value))


@given(strategies.values)
@modest
def test_unknown_keys_are_ignored(value):
    """
    What a later version wrote, an earlier one reads.
    """
    assert value == from_dict(type(value), {**to_dict(value), "born_later": {"a": 1}})


def test_every_kind_of_value_is_drawn():
    """
    The two properties above leave none out.
    """
    assert set(VALUES) == strategies.by_kind.keys()


def test_a_whole_reply_stays_behind():
    """
    `raw` is for looking at, not for storing.
    """
    task = Task(task_id="1", status="succeed", units=Decimal("0.10"), raw={"data": {"big": [1]}})
    assert "raw" not in to_dict(task)
    assert from_dict(Task, to_dict(task)).raw is None
    assert Decimal("0.10") == from_dict(Task, to_dict(task)).units


@pytest.mark.parametrize(
    "edit", [REMOVAL, Swap.of("a", "b", CAT), Addition.of("a", HAT)], ids=lambda edit: edit.edit_mode
)
def test_an_edit_says_its_kind(edit):
    """
    So that a job's edit is read as what it was; by its own type the kind may be left out.
    """
    job = Job("https://example.com/clip.mp4", marks={0: [(0.5, 0.5)]}, edit=edit)
    kept = to_dict(job)
    assert edit.edit_mode == kept["edit"]["edit_mode"] == to_dict(edit)["edit_mode"]
    assert edit == from_dict(Job, kept).edit
    assert edit == from_dict(type(edit), {name: value for name, value in to_dict(edit).items() if name != "edit_mode"})


@pytest.mark.parametrize(
    "edit", [{"prompt": "<<<video_1>>>"}, {"edit_mode": "replace"}, {"edit_mode": []}, None, "removal"]
)
def test_a_job_without_a_known_edit_is_refused(edit):
    """
    B33: the wire's three words, no others.
    """
    with pytest.raises(DecodeError, match=r"one of addition, swap, removal @ \$\.edit$"):
        from_dict(Job, {"video_id": "1", "marks": {}, "edit": edit})


def test_times_keep_their_zone_and_get_one():
    """
    Any zone is the same moment; without one it is UTC.
    """
    moment = datetime(2026, 11, 20, 14, tzinfo=timezone(timedelta(hours=2)))
    state = SelectionState(session_id="1", opened_at=moment)
    assert state == from_dict(SelectionState, to_dict(state))
    bare = evolve(state, opened_at=datetime(2026, 11, 20, 12))  # noqa: DTZ001 - the case
    assert datetime(2026, 11, 20, 12, tzinfo=UTC) == from_dict(SelectionState, to_dict(bare)).opened_at


def test_any_mapping_will_do():
    """
    A row of a database is as good as a dictionary.
    """
    assert Point(0.1, 0.2) == from_dict(Point, types.MappingProxyType({"x": 0.1, "y": 0.2}))


@pytest.mark.parametrize("secret", [ApiKey("sk-canary-4711"), KeyPair("canary-access", "canary-secret")])
def test_credentials_are_no_plain_data(secret):
    """
    Refused, without a word of them.
    """
    with pytest.raises(InvalidInputError, match="secret") as refused:
        to_dict(secret)
    assert "canary" not in str(refused.value)
    with pytest.raises(InvalidInputError):
        from_dict(type(secret), {"key": "sk-canary-4711"})


@pytest.mark.parametrize("stranger", [None, 7, {"x": 1}, RetryPolicy(), Point], ids=repr)
def test_strangers_are_refused_both_ways(stranger):
    """
    Only values of this package have a plain form here.
    """
    with pytest.raises(InvalidInputError, match="no value of kling_async"):
        to_dict(stranger)
    with pytest.raises(InvalidInputError, match="no value of kling_async"):
        from_dict(stranger if isinstance(stranger, type) and stranger not in VALUES else type(stranger), {})


@pytest.mark.parametrize(
    "kind, data, problem",
    [
        (Point, {"x": 0.1}, "required field missing @ $.y"),
        (Point, {"x": 2, "y": 0}, "x: must lie from 0 to 1, not 2.0: that looks like pixels"),
        (Task, {"task_id": "1", "status": "x", "videos": [{}, {"duration": []}]}, "@ $.videos[1].duration"),
        (Removal, {"prompt": "<<<video_1>>>", "mode": "best"}, "@ $.mode"),
        (Mask, {"object_id": 0, "height": 0, "width": 1, "counts": ""}, "mask: 0 x 1 pixels"),
        (Mask, {"object_id": True, "height": 1, "width": 1, "counts": "1"}, "expected a whole number, got True"),
        (Mask, {"object_id": 0.5, "height": 1, "width": 1, "counts": "1"}, "expected a whole number, got 0.5"),
        (Removal, {"prompt": "<<<video_1>>>", "watermark": 1}, "expected true or false, got 1 @ $.watermark"),
        (Video, {"duration": 10**400}, "expected a finite number"),
        (Task, {"task_id": 8.7e17, "status": "x"}, "expected text, got float @ $.task_id"),
        (SelectionState, {"session_id": True, "opened_at": 0}, "expected text, got bool @ $.session_id"),
        (SelectionState, {"session_id": "1", "opened_at": "noon"}, "@ $.opened_at"),
        (SelectionState, {"session_id": "1", "opened_at": 0, "marks": [1]}, "expected points by frame, got list"),
        (SelectionState, {"session_id": "1", "opened_at": 0, "marks": {"-1": []}}, "so -1 is no frame"),
        (SelectionState, {"session_id": "1", "opened_at": 0, "marks": {"0": [{"x": 0}]}}, "required field missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(kind, data, problem):
    """
    For each field, as `what @ $.path`.
    """
    with pytest.raises(DecodeError) as refused:
        from_dict(kind, data)
    assert problem in str(refused.value)
    assert any(problem in told for told in refused.value.problems)
    assert refused.value.__context__ is None


@pytest.mark.parametrize("data", [None, 5, "abc", []], ids=repr)
@pytest.mark.parametrize("kind", [Point, Preview, Video, Task], ids=lambda kind: kind.__name__)
def test_a_value_is_made_from_a_mapping(kind, data):
    """
    Also where every field may be left out.
    """
    with pytest.raises(DecodeError, match="made from a mapping"):
        from_dict(kind, data)


@given(strategies.values, strategies.values)
@modest
def test_any_plain_data_is_a_value_or_an_error_of_ours(value, other):
    """
    The plain form of one kind, read as another.
    """
    try:
        assert isinstance(from_dict(type(other), to_dict(value)), type(other))
    except KlingError:
        return
