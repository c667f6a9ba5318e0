"""
Requests and replies as values; the Protocol that carries them is for type checkers.
"""

import pickle

import pytest

from kling_async.transport import Request, Response

CANARY = "sk-canary-4711"


def test_a_request_shows_neither_key_nor_body():
    """
    Its repr may stand in any log.
    """
    request = Request("POST", "https://example.com/v1", {"Authorization": f"Bearer {CANARY}"}, CANARY.encode())
    assert "Request(method='POST', url='https://example.com/v1')" == repr(request)


def test_a_reply_shows_no_body():
    """
    Status and header fields are enough.
    """
    assert "Response(status=200, headers={'date': 'today'})" == repr(Response(200, {"date": "today"}, b"body"))


@pytest.mark.parametrize("value", [Request("GET", "https://example.com"), Response(404)])
def test_both_are_complete_without_headers_and_body(value):
    """
    And frozen, so that they may cross threads.
    """
    assert ({}, b"") == (value.headers, value.body)
    assert value == pickle.loads(pickle.dumps(value))
    with pytest.raises(AttributeError):
        value.body = b"other"
