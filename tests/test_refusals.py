"""
From codes, words and HTTP statuses to classes, and what a refusal says.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import (
    AccountError,
    APIError,
    AuthenticationError,
    ContentRejectedError,
    InvalidRequestError,
    NotFoundError,
    QuotaFullError,
    ServerError,
    ThrottledError,
)
from kling_async._refusals import CODES, QUOTED, _table, error_class, excerpt
from tests.strategies import modest

CANARY = "sk-canary-4711"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "status, code, expected",
    [
        (401, 1000, AuthenticationError),
        (401, 1001, AuthenticationError),
        (401, 1002, AuthenticationError),
        (401, 1003, AuthenticationError),
        (401, 1004, AuthenticationError),
        (429, 1100, AccountError),
        (429, 1101, AccountError),
        (429, 1102, AccountError),
        (403, 1103, AccountError),
        (400, 1200, InvalidRequestError),
        (400, 1201, InvalidRequestError),
        (404, 1202, InvalidRequestError),
        (404, 1203, NotFoundError),
        (400, 1300, ContentRejectedError),
        (400, 1301, ContentRejectedError),
        (429, 1302, ThrottledError),
        (429, 1303, QuotaFullError),
        (429, 1304, AccountError),
        (500, 5000, ServerError),
        (503, 5001, ServerError),
        (504, 5002, ServerError),
    ],
)
def test_the_documented_codes_have_their_classes(status, code, expected):
    """
    Every row of the provider's table, and 200 with that code says the same.
    """
    assert expected is error_class(code, status)
    assert expected is error_class(code, 200)
    assert expected is CODES[code]


@pytest.mark.parametrize(
    "code, status, expected",
    [
        (1099, 429, AuthenticationError),
        (1199, 429, AccountError),
        (1299, 200, InvalidRequestError),
        (5999, 400, ServerError),
        (1399, 429, ThrottledError),
        (1399, 400, InvalidRequestError),
        (1399, 200, APIError),
        (999, 200, APIError),
        (6000, 200, APIError),
        (-1, 200, APIError),
    ],
)
def test_an_unlisted_code_falls_to_its_range_and_then_to_the_status(code, status, expected):
    """
    A code that nobody documented still lands near its neighbours.
    """
    assert expected is error_class(code, status)


@pytest.mark.parametrize(
    "word, status, expected",
    [
        ("invalid_request", 500, InvalidRequestError),
        ("model_not_found", 503, NotFoundError),
        ("task_not_exist", 400, NotFoundError),
        ("insufficient_user_quota", 403, AccountError),
        ("pre_consume_token_quota_failed", 403, AccountError),
        ("get_channel_failed", 400, ServerError),
        ("do_request_failed", 400, ServerError),
        ("task_failed", 400, ServerError),
        ("never_heard_of_it", 401, AuthenticationError),
    ],
)
def test_a_gateways_word_outweighs_its_status(word, status, expected):
    """
    Gateways answer 500 to a missing field and 503 to a wrong name: the word is right where it is known.
    """
    assert expected is error_class(word, status)


@pytest.mark.parametrize(
    "status, expected",
    [
        (200, APIError),
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, AccountError),
        (403, AccountError),
        (404, NotFoundError),
        (408, ServerError),
        (413, InvalidRequestError),
        (429, ThrottledError),
        (499, ServerError),
        (500, ServerError),
        (524, ServerError),
    ],
)
def test_without_a_code_the_status_decides(status, expected):
    """
    HTTP status is the last word.
    """
    assert expected is error_class(None, status)


def test_a_code_stands_in_the_table_once():
    """
    Two rows for one code are an error at import, not a matter of order.
    """
    with pytest.raises(ValueError, match="twice"):
        _table((1303, QuotaFullError), (1303, ThrottledError))


def test_a_refusal_says_code_words_place_and_what_to_do():
    """
    The text has all that support asks for, and the attributes have it apart.
    """
    error = QuotaFullError(
        "parallel task over resource pack limit", code=1303, status=429, request_id="r-1", retry_after=2
    )
    assert str(error) == (
        "1303: parallel task over resource pack limit (HTTP 429, request r-1)."
        " Wait until a task ends and create again; nothing was created and nothing is paid."
    )
    assert (1303, 429, "r-1", 2) == (error.code, error.status, error.request_id, error.retry_after)
    assert "parallel task over resource pack limit" == error.message


def test_a_refusal_leaves_out_what_is_not_known():
    """
    No code, no status, no request: none of them is made up.
    """
    assert "gone. Check the id, and that it was made with this account and this host." == str(NotFoundError("gone"))


def test_a_hint_takes_the_place_of_the_general_advice():
    """
    Who knows host and variable says more than the class can.
    """
    error = AuthenticationError("no", code=1002, about="Check COMETAPI_KEY for api.cometapi.com.")
    assert "1002: no. Check COMETAPI_KEY for api.cometapi.com." == str(error)


@pytest.mark.parametrize("kind", sorted(set(CODES.values()), key=lambda kind: kind.__name__))
def test_each_refusal_has_advice_of_its_own(kind):
    """
    What to do after a full quota is not what to do after a wrong key.
    """
    assert "advice" in vars(kind)
    assert kind.advice.endswith(".")


@pytest.mark.parametrize(
    "text, quoted",
    [
        (f"key {CANARY} is unknown", "key *** is unknown"),
        ("key sk-can***4711 is unknown", "key *** is unknown"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: ***"),
        ("bearer\nabc123", "***"),
        (f"token {TOKEN} expired", "token *** expired"),
        ("the task-81 of disk-2: risk-control", "the task-81 of disk-2: risk-control"),
        ("two\nlines\tand  spaces", "two lines and spaces"),
        ("\x1b[31mred\x00 \u202eder", "[31mred der"),
        ({"why": 1}, "{'why': 1}"),
    ],
)
def test_a_quote_is_one_clean_line_without_keys(text, quoted):
    """
    Foreign text reaches logs and terminals: no key, no line break, no control character comes along.
    """
    assert quoted == excerpt(text)


@given(st.text(max_size=2000), st.integers(1, QUOTED))
@modest
def test_a_quote_never_exceeds_its_length(text, most):
    """
    However long the text is, 200 characters of it are quoted at most, or fewer where fewer are asked for.
    """
    assert QUOTED >= len(excerpt(text))
    assert most >= len(excerpt(text, most))


def test_a_cut_quote_ends_in_an_ellipsis():
    """
    A reader sees that there was more.
    """
    assert "x" * 199 + "…" == excerpt("x" * 201)
    assert "x" * 200 == excerpt("x" * 200)
