"""
Credentials: kept to themselves, and signed anew in time.
"""

import copy
import importlib.util
import pickle
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import ApiKey, InvalidInputError, KeyPair, _auth, to_dict
from kling_async._auth import LIFE, RENEW_AT, Signer, check_signing, fingerprint
from kling_async.transport import Response
from tests.strategies import modest

CANARY = "sk-canary-4711"
SECRET = "canary-secret-of-thirty-two-chars"
PAIR = KeyPair("canary-access", SECRET)
NOW = 1_795_000_000.25


def claims(signer, now):
    """
    What the token of that moment says, its signature checked.
    """
    scheme, token = signer.authorization(now).split(" ")
    assert "Bearer" == scheme
    assert {"alg": "HS256", "typ": "JWT"} == jwt.get_unverified_header(token)
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})


def test_a_key_is_sent_as_it_is():
    """
    At any time, and a refused token is no reason to send it again.
    """
    signer = Signer(ApiKey(CANARY))
    assert f"Bearer {CANARY}" == signer.authorization(0) == signer.authorization(NOW)
    assert not signer.renew(1004)


def test_a_pair_signs_a_token_of_half_an_hour():
    """
    The access key issues it, it is valid from five seconds ago, and it says nothing else.
    """
    assert {"iss": "canary-access", "exp": int(NOW) + 1800, "nbf": int(NOW) - 5} == claims(Signer(PAIR), NOW)


def test_a_token_passes_for_a_stranger_with_the_secret():
    """
    PyJWT accepts it now, with every check on.
    """
    token = Signer(PAIR).authorization(time.time()).removeprefix("Bearer ")
    assert "canary-access" == jwt.decode(token, SECRET, algorithms=["HS256"])["iss"]


def test_a_token_is_renewed_at_four_fifths_of_its_life():
    """
    The same one until then, so that none is sent at its very end.
    """
    signer = Signer(PAIR)
    first = signer.authorization(NOW)
    assert first == signer.authorization(NOW + 1439)
    second = signer.authorization(NOW + 1440)
    assert first != second
    assert second == signer.authorization(NOW + 1441)


def test_the_first_token_is_signed_at_any_time():
    """
    Also by a clock that stands at nothing.
    """
    assert {"iss": "canary-access", "exp": 1800, "nbf": -5} == claims(Signer(PAIR), 0)


def test_a_clock_set_back_gets_a_token_of_its_own():
    """
    F41: a token from the future would not be valid yet.
    """
    signer = Signer(PAIR)
    signer.authorization(NOW)
    assert int(NOW) - 3605 == claims(signer, NOW - 3600)["nbf"]


@given(st.lists(st.floats(1.7e9, 1.9e9), min_size=1, max_size=6))
@modest
def test_a_token_is_always_valid_when_it_is_sent(moments):
    """
    Whatever the clock does between two calls, with a fifth of its life to spare.
    """
    signer = Signer(PAIR)
    for now in moments:
        said = claims(signer, now)
        assert said["nbf"] <= now
        assert now + LIFE * (1 - RENEW_AT) - 1 <= said["exp"] <= now + LIFE


@pytest.mark.parametrize("code, early", [(1003, 300), (1004, 5)])
def test_a_refused_token_is_signed_anew(code, early):
    """
    At once; after 1003, which says that this clock is ahead, valid from longer ago.
    """
    signer = Signer(PAIR)
    signer.authorization(NOW)
    assert signer.renew(code)
    assert {"iss": "canary-access", "exp": int(NOW + 1) + 1800, "nbf": int(NOW + 1) - early} == claims(signer, NOW + 1)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1005, "1003", None])
def test_other_refusals_are_no_matter_of_time(code):
    """
    Another token would be refused as well.
    """
    signer = Signer(PAIR)
    first = signer.authorization(NOW)
    assert not signer.renew(code)
    assert first == signer.authorization(NOW + 1)


BAD_KEYS = [
    pytest.param("", id="B56-empty"),
    pytest.param("  ", id="B56-space"),
    pytest.param(f"{CANARY}\n", id="B56-line"),
    pytest.param(f"{CANARY}\r\nX: y", id="B56-header"),
    pytest.param(f"canary {CANARY}", id="B56-inner-space"),
    pytest.param(f"Bearer {CANARY}", id="B56-bearer"),
    pytest.param(f"{CANARY}é", id="B56-latin"),
    pytest.param(f"{CANARY}\x7f", id="B56-control"),
    pytest.param(f"{CANARY}\u202e", id="B56-direction"),
    pytest.param(None, id="B56-none"),
    pytest.param(CANARY.encode(), id="B56-bytes"),
]


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize(
    "build, field",
    [
        (ApiKey, "api_key"),
        (lambda key: KeyPair(key, SECRET), "access_key"),
        (lambda key: KeyPair("canary-access", key), "secret_key"),
    ],
    ids=["key", "access", "secret"],
)
def test_what_cannot_be_a_key_is_refused_unquoted(key, build, field):
    """
    A key with a slip in it is still a secret.
    """
    with pytest.raises(InvalidInputError) as refused:
        build(key)
    assert field == refused.value.field
    assert "canary" not in str(refused.value)


SECRETS = [ApiKey(CANARY, source="COMETAPI_KEY"), PAIR, Signer(ApiKey(CANARY)), Signer(PAIR)]


@pytest.mark.parametrize("holder", SECRETS, ids=["key", "pair", "signer", "pair-signer"])
def test_a_secret_shows_nowhere(holder):
    """
    F54: not in repr, str or format, before and after it signed.
    """
    if isinstance(holder, Signer):
        holder.authorization(NOW)
    for shown in (repr(holder), str(holder), f"{holder}", repr([holder])):
        assert "canary" not in shown
        assert "eyJ" not in shown


@pytest.mark.parametrize("holder", SECRETS, ids=["key", "pair", "signer", "pair-signer"])
@pytest.mark.parametrize("stored", [pickle.dumps, copy.deepcopy])
def test_a_secret_is_not_stored(holder, stored):
    """
    No pickle of it ends in an engine's database.
    """
    with pytest.raises(TypeError, match="read the key again") as refused:
        stored(holder)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("credentials", SECRETS[:2], ids=["key", "pair"])
def test_a_secret_is_no_plain_data(credentials):
    """
    `to_dict` refuses it and says what to store instead.
    """
    with pytest.raises(InvalidInputError, match="environment variable") as refused:
        to_dict(credentials)
    assert "canary" not in str(refused.value)


def test_credentials_are_equal_by_their_keys():
    """
    Where they came from is no part of them.
    """
    assert ApiKey(CANARY) == ApiKey(CANARY, source="COMETAPI_KEY")
    assert ApiKey(CANARY) != ApiKey("another")
    assert {PAIR} == {KeyPair("canary-access", SECRET, source="environment")}


def test_signing_needs_pyjwt_and_says_so(monkeypatch):
    """
    When the client is made, not at its first call; a plain key needs nothing.
    """
    check_signing(PAIR)
    monkeypatch.setattr(_auth, "find_spec", lambda name: None)
    check_signing(ApiKey(CANARY))
    with pytest.raises(InvalidInputError, match=r"kling-async\[kling\]"):
        check_signing(PAIR)
    assert importlib.util.find_spec("jwt")


def test_a_key_too_short_to_be_one_is_not_struck_out():
    """
    A simulator takes any key: "any" stands in many words.
    """
    reply = Response(200, {"x-key": "sk-many-many", "date": "today"}, b"too sk-many-many")
    assert reply == Signer(ApiKey("sk-many")).struck(reply)
    struck = Response(200, {"x-key": "***", "date": "today"}, b"too ***")
    assert struck == Signer(ApiKey("sk-many-many")).struck(reply)


def test_a_fingerprint_tells_credentials_apart_and_nothing_else():
    """
    The same for the same key, another for another, and no part of any secret.
    """
    marks = [fingerprint(ApiKey(CANARY)), fingerprint(ApiKey("sk-other-key")), fingerprint(KeyPair("a-name", "secret"))]
    assert 3 == len(set(marks))
    assert fingerprint(ApiKey(CANARY)) == fingerprint(ApiKey(CANARY, source="COMETAPI_KEY"))
    assert fingerprint(KeyPair("a-name", "renewed")) == fingerprint(KeyPair("a-name", "secret"))
    assert all(len(mark) == 16 and mark not in CANARY for mark in marks)
