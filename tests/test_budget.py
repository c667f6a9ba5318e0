"""
The budget of replays: paid, earned, never below nothing and never above full.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import DownloadError, LostReplyError, NotSentError, ServerError, ThrottledError
from kling_async._budget import CAPACITY, FIRST, REPLAY, TIMEOUT, Budget, price
from tests.strategies import modest


def timed_out():
    error = NotSentError("no connection")
    error.__cause__ = TimeoutError()
    return error


@pytest.mark.parametrize(
    "error, expected",
    [
        (NotSentError("refused"), 5),
        (ThrottledError("slower", code=1302), 5),
        (ServerError("later", code=5002), 5),
        (LostReplyError("cut"), 10),
        (timed_out(), 10),
        (DownloadError("cut"), 0),
    ],
    ids=["unsent", "1302", "5002", "lost", "timeout", "download"],
)
def test_a_timeout_or_a_lost_reply_costs_twice_as_much(error, expected):
    """
    What held a connection for long is dearer; a download is another host's matter.
    """
    assert expected == price(error)


def test_the_numbers_are_those_of_the_aws_sdks():
    """
    500 tokens, 5 for a replay, 10 after a timeout, 1 back for a first attempt.
    """
    assert (500, 5, 10, 1) == (CAPACITY, REPLAY, TIMEOUT, FIRST)
    assert 500 == Budget().left


def test_a_budget_pays_for_a_hundred_replays_in_a_row():
    """
    Then no more, and what is left stays.
    """
    budget = Budget()
    assert [True] * 100 == [budget.pay(REPLAY) for _ in range(100)]
    assert not budget.pay(REPLAY)
    assert 0 == budget.left


def test_what_is_too_dear_takes_nothing():
    """
    A price is paid whole or not at all.
    """
    budget = Budget(left=9)
    assert not budget.pay(TIMEOUT)
    assert 9 == budget.left
    assert budget.pay(REPLAY)
    assert 4 == budget.left


@pytest.mark.parametrize(
    "left, paid, expected",
    [(0, 0, 1), (0, 5, 5), (3, 10, 13), (499, 0, 500), (500, 0, 500), (496, 5, 500), (500, 10, 500)],
)
def test_a_success_brings_back_what_was_paid_or_one(left, paid, expected):
    """
    A replay gets back its price, a first attempt brings one, and full is full.
    """
    budget = Budget(left=left)
    budget.earn(paid)
    assert expected == budget.left


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, REPLAY, TIMEOUT]))))
@modest
def test_it_stays_between_empty_and_full(moves):
    """
    Whatever is paid and earned, and in whichever order.
    """
    budget = Budget()
    for paying, amount in moves:
        before = budget.left
        if paying:
            assert budget.pay(amount) == (amount <= before)
        else:
            budget.earn(amount)
        assert 0 <= budget.left <= CAPACITY
