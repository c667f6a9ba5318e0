"""
Delays: numbers in, seconds out.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidInputError, PollPolicy, RetryPolicy
from kling_async.policy import RETRY_AFTER_MOST, check_count, check_seconds
from tests.strategies import modest

seconds = st.floats(1e-6, 1e6)
chances = st.floats(0, 1)
retries = st.builds(RetryPolicy, attempts=st.integers(1, 10**6), base=seconds, ceiling=seconds)
polls = st.builds(
    PollPolicy,
    first=seconds,
    factor=st.floats(1, 1e300) | st.integers(1, 10**9),
    ceiling=seconds,
    jitter=st.floats(0, 0.99),
)


@given(retries, st.integers(1, 10**6), chances, st.none() | st.floats(0, RETRY_AFTER_MOST))
@modest
def test_a_retry_waits_within_its_bounds(retry, attempt, chance, asked):
    """
    From 0, or what the server asked for, to the ceiling, and never after the last attempt.
    """
    delay = retry.delay(attempt, chance=chance, retry_after=asked)
    if attempt >= retry.attempts:
        assert delay is None
        return
    assert (asked or 0) <= delay <= max(retry.ceiling, asked or 0)
    if asked is None:
        assert delay <= retry.base * 2.0 ** min(attempt - 1, 900)


@given(polls, st.integers(0, 10**30), chances)
@modest
def test_a_look_waits_within_its_bounds(poll, looks, chance):
    """
    However many looks there were and however fast they grow rare: no overflow, no wait above the ceiling.
    """
    delay = poll.delay(looks, chance=chance)
    least = min(poll.first, poll.ceiling) * (1 - poll.jitter)
    assert least * (1 - 1e-9) <= delay <= poll.ceiling


@given(polls, st.integers(0, 1000))
@modest
def test_waits_never_grow_shorter(poll, looks):
    """
    Without chance, the next look is never sooner than the last.
    """
    assert poll.delay(looks, chance=0) <= poll.delay(looks + 1, chance=0)


def test_a_slow_growth_reaches_its_ceiling():
    """
    A factor near 1 takes many looks, not for ever.
    """
    poll = PollPolicy(factor=1.01, jitter=0)
    assert 10 == poll.delay(1000, chance=0)
    assert 1.01**100 == poll.delay(100, chance=0)


def test_full_jitter_doubles_its_range():
    """
    0.5, 1, 2, ... seconds, cut at 20.
    """
    retry = RetryPolicy(attempts=10)
    assert [0.5, 1, 2, 4, 8, 16, 20, 20, 20, None] == [retry.delay(attempt, chance=1) for attempt in range(1, 11)]
    assert 0 == retry.delay(1, chance=0)


@pytest.mark.parametrize(
    "asked, delay",
    [(None, 0.25), (0.0, 0.25), (2.0, 2.0), (RETRY_AFTER_MOST, 60.0), (60.5, None), (math.inf, None)],
)
def test_a_server_may_ask_for_a_minute(asked, delay):
    """
    F12: at least what it asked for is waited; more than 60 seconds is given up.
    """
    assert delay == RetryPolicy().delay(1, chance=0.5, retry_after=asked)


def test_the_defaults_are_the_promised_ones():
    """
    As the documentation has them.
    """
    retry, poll = RetryPolicy(), PollPolicy()
    assert (3, 0.5, 20.0, 90.0, "raise") == (retry.attempts, retry.base, retry.ceiling, retry.doubt, retry.on_unknown)
    assert (1.0, 1.5, 10.0, 0.1) == (poll.first, poll.factor, poll.ceiling, poll.jitter)
    assert RetryPolicy(on_unknown="resend") != retry


NO_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None, 10**400, -(10**400), [1], Fraction(1, 2)]
NO_TIMES = [0, 0.0, -1, -1e-9, *NO_NUMBERS]


@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: f"B58-{str(value)[:9]}")
@pytest.mark.parametrize(
    "kind, field",
    [
        (RetryPolicy, "base"),
        (RetryPolicy, "ceiling"),
        (RetryPolicy, "doubt"),
        (PollPolicy, "first"),
        (PollPolicy, "ceiling"),
    ],
)
def test_a_time_is_positive_and_finite(kind, field, value):
    """
    No wait of nothing, of less, or without end.
    """
    with pytest.raises(InvalidInputError) as refused:
        kind(**{field: value})
    assert field == refused.value.field


@pytest.mark.parametrize(
    "fields, field",
    [
        *(({"factor": value}, "factor") for value in (0.99, 0, -1, *NO_NUMBERS)),
        *(({"jitter": value}, "jitter") for value in (-0.1, 1, 1.5, *NO_NUMBERS)),
    ],
    ids=lambda value: f"B58-{str(value)[:24]}",
)
def test_growth_and_jitter_keep_to_their_ranges(fields, field):
    """
    A factor from 1, a jitter from 0 to below 1.
    """
    with pytest.raises(InvalidInputError) as refused:
        PollPolicy(**fields)
    assert field == refused.value.field


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", None], ids=lambda value: f"B59-{value}")
def test_a_count_is_a_whole_number_from_one(value):
    """
    Attempts, connections and slots.
    """
    with pytest.raises(InvalidInputError) as refused:
        check_count("connections", value)
    assert "connections" == refused.value.field
    with pytest.raises(InvalidInputError):
        RetryPolicy(attempts=value)
    assert 1 == check_count("connections", 1)


@pytest.mark.parametrize("value", ["Raise", "", None, True, []])
def test_an_unknown_outcome_is_raised_or_sent_again(value):
    """
    There is no third way.
    """
    with pytest.raises(InvalidInputError) as refused:
        RetryPolicy(on_unknown=value)
    assert "on_unknown" == refused.value.field


def test_a_number_of_seconds_comes_back_as_a_float():
    """
    With a least value that is allowed or not.
    """
    assert 5.0 == check_seconds("total", 5)
    assert float is type(check_seconds("total", 5))
    assert 0.0 == check_seconds("total", 0, above=False)
    with pytest.raises(InvalidInputError, match="more than 0"):
        check_seconds("total", 0)
    with pytest.raises(InvalidInputError, match="at least 1"):
        check_seconds("total", 0.5, least=1.0, above=False)


def test_a_misspelt_field_is_a_type_error():
    """
    B60: as for any Python call.
    """
    with pytest.raises(TypeError):
        RetryPolicy(attemps=3)
