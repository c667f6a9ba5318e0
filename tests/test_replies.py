"""
Replies of every known shape, and of none.
"""

import json
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kling_async import (
    APIError,
    AuthenticationError,
    DecodeError,
    InvalidRequestError,
    KlingError,
    Marked,
    SelectionRejectedError,
    ServerError,
    _replies,
    errors,
    to_dict,
)
from kling_async._codec import structured
from kling_async._endpoints import ADD, CLEAR, CREATE, DELETE, ENDPOINTS, GET, INIT, LIST, PREVIEW
from kling_async._refusals import QUOTED
from kling_async._replies import PARTS_MOST, TASKS_MOST, read, unwrap
from kling_async.transport import Response
from tests import strategies
from tests.strategies import modest

REPLIES = Path(__file__).parent / "samples" / "replies"
SAMPLES = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text("utf-8")) for path in sorted(REPLIES.glob("*/*.json"))
}
NAMES = {"init": INIT, "add": ADD, "delete": DELETE, "clear": CLEAR, "preview": PREVIEW, "create": CREATE, "get": GET}
NAMES["list"] = LIST
CANARY = "sk-canary-4711"


def response(sample):
    """
    The reply that a sample holds.
    """
    body = sample["text"].encode() if "text" in sample else orjson.dumps(sample["body"])
    return Response(sample["status"], sample.get("headers", {}), body)


def said(result):
    """
    What was read, as plain types and without what is not known.
    """
    if isinstance(result, tuple):
        return [said(one) for one in result]
    return None if result is None else {name: value for name, value in to_dict(result).items() if value is not None}


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if "value" in sample["expected"]])
def test_a_sample_is_read_as_its_model(name):
    """
    Every shape that is known to come, and nothing is read into it that it does not say.
    """
    sample = SAMPLES[name]
    result = read(NAMES[sample["endpoint"]], response(sample))
    assert sample["expected"]["type"] == type(result).__name__.replace("NoneType", "None")
    assert sample["expected"]["value"] == said(result)
    for one in result if isinstance(result, tuple) else [result]:
        assert one is None or sample["body"] == one.raw


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if "attributes" in sample["expected"]])
def test_a_sample_is_raised_as_its_error(name):
    """
    The class by code, word or status, with all that the reply says about it.
    """
    sample = SAMPLES[name]
    with pytest.raises(getattr(errors, sample["expected"]["type"])) as refused:
        read(NAMES[sample["endpoint"]], response(sample))
    assert sample["expected"]["type"] == type(refused.value).__name__
    for attribute, value in sample["expected"]["attributes"].items():
        found = getattr(refused.value, attribute)
        assert value == (list(found) if isinstance(found, tuple) else found)


def test_every_endpoint_and_every_kind_of_outcome_has_samples():
    """
    Eight endpoints, each with a success, and a source under every fact.
    """
    read_well = {sample["endpoint"] for sample in SAMPLES.values() if "value" in sample["expected"]}
    assert NAMES.keys() == read_well
    assert set(NAMES.values()) == set(ENDPOINTS)
    assert all(sample["source"] for sample in SAMPLES.values())


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_a_sample_of_one_endpoint_breaks_no_other(endpoint):
    """
    A gateway that answers with the wrong thing is met with a model or an error of ours.
    """
    for sample in SAMPLES.values():
        try:
            result = read(endpoint, response(sample))
        except KlingError as error:
            result = error
        assert isinstance(result, endpoint.result | KlingError)


def longest_quote(text, body):
    """
    The length of the longest stretch of a text that stands in a body.
    """
    best = 0
    for start in range(len(text)):
        while start + best < len(text) and text[start : start + best + 1] in body:
            best += 1
    return best


@given(strategies.replies, st.sampled_from(ENDPOINTS))
@settings(modest, max_examples=200)
def test_whatever_comes_is_a_model_or_an_error_of_ours(reply, endpoint):
    """
    Any bytes under any status, for any endpoint; the error quotes at most 200 characters of them at a stretch.
    """
    try:
        result = read(endpoint, reply)
    except KlingError as error:
        text = str(error)
    else:
        assert isinstance(result, endpoint.result)
        return
    assert len(text) < 5 * QUOTED
    assert longest_quote(text, reply.body.decode(errors="replace")) <= QUOTED
    assert text.isprintable()


NESTED = [opened * 1020 + "0" + closed * 1020 for opened, closed in (("[", "]"), ('{"data":', "}"))]


@pytest.mark.parametrize("nested", NESTED, ids=["arrays", "objects"])
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
@pytest.mark.parametrize(
    "body",
    [
        '{"code":1201,"message":%s}',
        '{"code":1201,"message":"x","request_id":%s}',
        '{"error":{"type":%s}}',
        '{"code":0,"data":{"status":%s}}',
        '{"code":0,"data":{"session_id":"1","width":%s}}',
        '{"code":0,"data":{"task_id":"1","task_status":"x","final_unit_deduction":%s}}',
        '{"code":0,"data":{"res":{"frame_index":%s}}}',
        "%s",
    ],
)
def test_what_is_nested_too_deep_is_refused(body, endpoint, nested):
    """
    Python can neither show nor pickle such a value, so none is let in: as an answer, or as a refusal's reason.
    """
    for text, status in ((body % nested, 200), (body % nested, 500)):
        with pytest.raises(DecodeError if status == 200 else APIError) as refused:
            read(endpoint, Response(status, {}, text.encode()))
        assert text.startswith("[") or status == 500 or "nested deeper than 100" in str(refused.value)
        assert status == refused.value.status


@pytest.mark.parametrize("nested", NESTED, ids=["arrays", "objects"])
def test_what_is_nested_too_deep_inside_a_message_stays_text(nested):
    """
    A gateway's message may hold a body as text, which is read only where that can be shown.
    """
    message = f'{{"code":1002,"message":{nested}}}'
    with pytest.raises(ServerError) as refused:
        unwrap(Response(500, {}, orjson.dumps({"code": "do_request_failed", "message": message})))
    assert message[:100] == refused.value.message[:100]


def test_a_reply_may_be_a_hundred_deep():
    """
    Objects and arrays count alike; one more is too many, and brackets within text are none.
    """
    for levels, text in ((97, "1"), (0, f'"{"[" * 500}"'), (50, "[" + "[1]," * 200 + "1]")):
        body = f'{{"code":0,"data":{{"task_id":"1","task_status":"x","more":{"[" * levels}{text}{"]" * levels}}}}}'
        assert "1" == read(GET, Response(200, {}, body.encode())).task_id
    body = f'{{"code":0,"data":{{"task_id":"1","task_status":"x","more":{"[" * 99}{"]" * 99}}}}}'
    with pytest.raises(DecodeError, match="HTTP 200 with a reply nested deeper than 100"):
        read(GET, Response(200, {}, body.encode()))


@pytest.mark.parametrize(
    ("endpoint", "data", "most", "what"),
    [
        (ADD, {"res": {"rle_mask_list": [{}]}}, PARTS_MOST, "masks"),
        (GET, {"task_id": "1", "task_status": "x", "task_result": {"videos": [{}]}}, PARTS_MOST, "videos"),
        (LIST, [{"task_id": "1", "task_status": "x"}], TASKS_MOST, "tasks"),
    ],
)
def test_lists_without_end_are_refused_by_their_length(endpoint, data, most, what):
    """
    What takes megabytes to send would take gigabytes and minutes to find wrong item by item.
    """

    def grown(value, count):
        if isinstance(value, list):
            return value * count
        return {name: grown(inner, count) for name, inner in value.items()} if isinstance(value, dict) else value

    many, enough = (Response(200, {}, orjson.dumps({"data": grown(data, count)})) for count in (most + 1, most))
    with pytest.raises(DecodeError, match=f"lists {most + 1} {what}, more than {most}"):
        read(endpoint, many)
    assert what == "masks" or read(endpoint, enough)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 1201, "message": "x" * 999},
        {"code": "y" * 999, "message": "x" * 999, "request_id": "z" * 999},
        {"error": {"type": "y" * 999, "message": "x" * 999}},
        {"code": 0, "data": {"task_id": [], "task_status": "x", "created_at": "x" * 999, "updated_at": "y" * 999}},
        {"code": 0, "data": {"status": "x" * 999}},
        "x" * 999,
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("endpoint", [INIT, GET], ids=["init", "get"])
def test_a_long_reply_makes_a_short_error(body, status, endpoint):
    """
    F10: a page of HTML is no message.
    """
    with pytest.raises(KlingError) as refused:
        read(endpoint, Response(status, {}, orjson.dumps(body)))
    assert len(str(refused.value)) < 4 * QUOTED
    assert not re.search(r"(.)\1{200}", str(refused.value))


@pytest.mark.parametrize(
    "body",
    [
        {"code": 1002, "message": f"key {CANARY} is invalid"},
        {"code": f"bad {CANARY}", "message": "no", "request_id": CANARY},
        {"error": {"message": f"Bearer {CANARY}", "type": CANARY, "code": None}},
        {"error": CANARY},
        CANARY,
    ],
)
def test_a_key_that_is_echoed_is_not_repeated(body):
    """
    F54: gateways put keys into their 401 texts.
    """
    with pytest.raises(AuthenticationError) as refused:
        unwrap(Response(401, {}, orjson.dumps(body)))
    assert "canary" not in str(refused.value)
    assert "canary" not in repr(vars(refused.value))


def test_an_authentication_error_says_which_key_and_host():
    """
    And no other error does.
    """
    about = "Check COMETAPI_KEY for api.cometapi.com."
    with pytest.raises(AuthenticationError, match="Check COMETAPI_KEY"):
        read(GET, Response(401, {}, b""), about=about)
    with pytest.raises(InvalidRequestError) as refused:
        read(GET, Response(400, {}, b""), about=about)
    assert "COMETAPI_KEY" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (ADD, "the service recognised no object there: mark other points (data.status 3)"),
        (INIT, "the service cannot use this clip: check its length, size and frame rate (data.status 3)"),
        (CLEAR, "the service did not clear the selection: try again, or open another (data.status 3)"),
    ],
)
def test_a_refused_selection_says_what_to_do(endpoint, text):
    """
    With the status that is documented nowhere, to quote it to support.
    """
    with pytest.raises(SelectionRejectedError) as refused:
        read(endpoint, Response(200, {}, orjson.dumps({"code": 0, "data": {"status": 3}})))
    assert text == str(refused.value)


@pytest.mark.parametrize(
    "body, data",
    [
        ({"code": 0, "message": "SUCCEED", "data": {"a": 1}}, {"a": 1}),
        ({"code": 0, "data": None}, None),
        ({"code": 0}, None),
        ({"data": [1]}, [1]),
        ({"code": "success", "data": 7}, 7),
        ({"id": "1", "object": "video"}, {"id": "1", "object": "video"}),
        ({"code": True, "data": 1}, 1),
        ({"success": True, "data": 1}, 1),
        ({"error": None, "data": 1}, 1),
        ({"error": "", "data": 1}, 1),
        ({"error": {"message": "of the task"}, "data": 1}, 1),
    ],
)
def test_any_routes_data_can_be_had(body, data):
    """
    The whole reply beside it; without an envelope the whole is the data.
    """
    assert (body, data) == unwrap(Response(200, {}, orjson.dumps(body)))


MARK = {
    "object_id": 0,
    "rle_mask": {"size": [3, 4], "counts": "42102"},
    "png_mask": {"size": [3, 4], "base64": "cG5n"},
}
ODD = st.none() | st.booleans() | st.integers(-1, 9000) | st.text(max_size=3) | st.just([]) | st.just({}) | st.floats()
RLE = st.fixed_dictionaries({}, optional={"size": st.lists(ODD, max_size=3) | ODD, "counts": ODD | st.just("42102")})
PNG = st.fixed_dictionaries({}, optional={"base64": ODD | st.just("data:image/png;base64,cG5n")})
ITEM = st.fixed_dictionaries({}, optional={"object_id": ODD, "rle_mask": RLE | ODD, "png_mask": PNG | ODD})
RES = st.fixed_dictionaries({}, optional={"frame_index": ODD, "rle_mask_list": st.lists(ITEM | ODD, max_size=2) | ODD})


@given(res=RES, changes=ITEM)
@example(res={"frame_index": 40}, changes={})
@example(res={}, changes={"png_mask": {"base64": []}})
def test_masks_as_documented_are_read_as_all_others(res, changes):
    """
    The short way to masks leaves what it does not know to the long one, or makes the very same of it.
    """
    data = {"res": {"frame_index": 40, "rle_mask_list": [{**MARK, **changes}], **res}}
    short = _replies._plain_marked(data, {"data": data})
    if short is not None:
        fields, at = _replies._marked(data)
        assert short == structured(Marked, fields, what="it", at=at)
        assert {"data": data} == short.raw


def test_a_mark_as_documented_is_read_the_short_way():
    """
    Its picture is kept as it came and read when it is asked for.
    """
    data = {"res": {"frame_index": 40, "rle_mask_list": [MARK]}}
    short = _replies._plain_marked(data, {})
    assert (40, b"png", (3, 4)) == (short.frame_index, short.masks[0].png, short.masks[0].size)
    assert _replies._plain_marked({"res": {"frame_index": 40, "rle_mask_list": [MARK, None]}}, {}) is None
