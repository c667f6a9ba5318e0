"""
Ids: text that can stand in a path and a body.
"""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidInputError
from kling_async._ids import check_external_task_id, check_id, drawn_id, external_id
from tests.strategies import modest


@pytest.mark.parametrize("value", ["847570360458960960", "CjMT7WdSwWcAAAAAALvB3g", "a/b?c", "ü", "a b", "..."])
def test_an_id_of_the_service_is_taken_as_it_is(value):
    """
    It is opaque; what is odd in it is quoted in the path.
    """
    assert value == check_id("session_id", value)


@pytest.mark.parametrize(
    "value, reason",
    [
        pytest.param("", "service's id", id="B19-empty"),
        pytest.param("   ", "service's id", id="B19-spaces"),
        pytest.param(" 8475", "service's id", id="B19-space"),
        pytest.param(None, "must be text", id="B19-none"),
        pytest.param("84\r\nX: y", "control", id="B20-lines"),
        pytest.param("84\0", "control", id="B20-nul"),
        pytest.param("84\x7f", "control", id="B20-del"),
        pytest.param("84\u202e", "control", id="B20-direction"),
        pytest.param("84\ud800", "control", id="B20-surrogate"),
        pytest.param("<session_id>", "placeholder", id="B21"),
        pytest.param("{session_id}", "placeholder", id="B21-braces"),
        pytest.param(847570360458960960, "must be text", id="B22"),
        pytest.param(8.4e17, "must be text", id="B22-float"),
        pytest.param(".", "service's id", id="path-dot"),
        pytest.param("..", "service's id", id="path-dots"),
    ],
)
def test_what_the_service_cannot_have_given_is_refused(value, reason):
    """
    By the name of its field.
    """
    with pytest.raises(InvalidInputError, match=reason) as refused:
        check_id("session_id", value)
    assert "session_id" == refused.value.field


@pytest.mark.parametrize("value", ["order-1", "A.b_c-9", "x" * 64, "0x1", "..."])
def test_an_id_of_the_callers_is_taken_as_it_is(value):
    """
    Letters, digits, dot, underscore and hyphen, up to 64.
    """
    assert value == check_external_task_id(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="B53-empty"),
        pytest.param("x" * 65, id="B53-long"),
        pytest.param("a/b", id="B53-slash"),
        pytest.param(".", id="B53-dot"),
        pytest.param("..", id="B53-dots"),
        pytest.param("a b", id="B53-space"),
        pytest.param("ordér", id="B53-unicode"),
        pytest.param("order\n", id="B53-line"),
        pytest.param(None, id="B53-none"),
        pytest.param(7, id="B53-number"),
        pytest.param("878106242831892487", id="B55"),
    ],
)
def test_an_id_that_could_be_misread_is_refused(value):
    """
    In a path, in a log, or as an id of the service's own.
    """
    with pytest.raises(InvalidInputError) as refused:
        check_external_task_id(value)
    assert "external_task_id" == refused.value.field


@given(st.binary(min_size=20, max_size=64))
@modest
def test_a_made_id_is_short_and_plain(entropy):
    """
    36 characters that pass our own rule, the same for the same bytes.
    """
    made = external_id(entropy)
    assert re.fullmatch(r"ka1-[a-z2-7]{32}", made)
    assert made == check_external_task_id(made) == external_id(entropy)


def test_a_derived_id_is_the_documented_one():
    """
    Base32 of SHA-256, so that another process finds the same.
    """
    assert "ka1-box6eikw2juyyfb3qycairwtm3vnqy52" == external_id(hashlib.sha256(b"order-1").digest())


def test_a_drawn_id_is_another_each_time():
    """
    And of the same form as a derived one.
    """
    drawn = {drawn_id() for _ in range(100)}
    assert 100 == len(drawn)
    assert all(re.fullmatch(r"ka1-[a-z2-7]{32}", each) for each in drawn)
