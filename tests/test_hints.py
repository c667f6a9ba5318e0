"""
Hints out of bytes from anywhere.
"""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import WebhookError
from kling_async._hints import BODY_MOST, Hint, read_hint
from tests.strategies import modest

LEGACY = {
    "task_id": "878106242831892487",
    "task_status": "processing",
    "task_status_msg": "",
    "created_at": 1722769557708,
    "updated_at": 1722769557708,
    "final_unit_deduction": "0",
    "task_info": {"external_task_id": "order-17"},
    "task_result": {"videos": [{"id": "1", "url": "https://evil.example/out.mp4", "duration": "5"}]},
}
NEW = {"id": "1234567890", "status": "succeeded", "message": "", "external_id": "order-17", "outputs": []}


def hint(body):
    return read_hint(body if isinstance(body, bytes) else orjson.dumps(body), {}, (), now=0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (LEGACY, Hint("878106242831892487", "order-17", "processing")),
        (NEW, Hint("1234567890", "order-17", "succeed")),
        ({"code": 0, "request_id": "r-1", "data": LEGACY}, Hint("878106242831892487", "order-17", "processing")),
        ({"task_id": 878106242831892487, "task_status": "failed"}, Hint("878106242831892487", None, "failed")),
        ({"task_id": "1", "task_status": "submitted", "task_info": None}, Hint("1", None, "submitted")),
        (
            {"task_id": "1", "task_status": "pondering", "task_info": {"external_task_id": ""}},
            Hint("1", None, "pondering"),
        ),
        ({"id": "1", "status": "submitted", "outputs": []}, Hint("1", None, "submitted")),
    ],
)
def test_both_payloads_become_the_same_hint(body, expected):
    """
    The payload of multi-elements, that of newer models, the console's test, and either in an envelope.
    """
    assert expected == hint(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"8781"',
        b"null",
        b"{}",
        b'\xef\xbb\xbf{"task_id":"1","task_status":"failed"}',
        b'{"task_id":"\xff","task_status":"failed"}',
        b'{"task_id":"1","task_status":"failed","x":NaN}',
        b'{"task_id":"1","task_status":"failed","x":-Infinity}',
        b'{"task_id":"1","task_id":"2","task_status":"failed"}',
        b'{"task_id":"1","task_status":"failed","task_info":{"a":1,"a":1}}',
        b'{"task_id":' + b"9" * 5000 + b',"task_status":"failed"}',
        b'{"task_id":"1"}',
        b'{"task_status":"failed"}',
        b'{"task_id":"1","task_status":true}',
        b'{"task_id":1.5,"task_status":"failed"}',
        b'{"task_id":"..","task_status":"failed"}',
        b'{"task_id":"a\\nb","task_status":"failed"}',
        b'{"task_id":"' + b"9" * 257 + b'","task_status":"failed"}',
        b'{"task_id":"1","task_status":"failed","task_info":{"external_task_id":["x"]}}',
        b"[" * 100_000,
        b'{"a":' * 21 + b"1" + b"}" * 21,
    ],
)
def test_what_is_no_delivery_is_refused(body):
    """
    Not strict JSON, not an object, too deep, or without a task.
    """
    with pytest.raises(WebhookError):
        hint(body)


def test_twenty_levels_are_fine_and_one_more_is_not():
    """
    Depth is that of objects and arrays.
    """
    nested = [1]
    for _ in range(18):
        nested = [nested]
    body = {"task_id": "1", "task_status": "failed", "x": nested}
    assert hint(body)
    with pytest.raises(WebhookError, match="deeper than 20"):
        hint({**body, "x": [nested]})


def test_a_quarter_of_a_mebibyte_is_fine_and_a_byte_more_is_not():
    """
    Size is looked at before the signature, and the signature before anything else.
    """
    body = b'{"task_id":"1","task_status":"failed"}'
    assert hint(body.ljust(BODY_MOST))
    with pytest.raises(WebhookError, match="262145 bytes"):
        read_hint(body.ljust(BODY_MOST + 1), {}, (b"key",), now=0)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*LEGACY, *NEW, "data"]) | st.text(), inner),
)


@modest
@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_only_hints_and_webhook_errors_go_out(body):
    """
    And a hint is three short texts.
    """
    try:
        found = hint(body)
    except WebhookError:
        return
    assert all(len(text) <= 256 for text in (found.task_id, found.external_task_id or "", found.status))
