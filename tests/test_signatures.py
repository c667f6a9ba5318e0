"""
Standard Webhooks signatures: the vendor's own example, and everything that is not quite one.
"""

import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidInputError, SignatureError
from kling_async._signatures import TOLERANCE, check_signature, keys
from tests.strategies import modest

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
BODY = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'
NOW = 1781080794
HEADERS = {
    "webhook-id": "9876543210",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
}
"""The vendor's: https://kling.ai/document-api/api/get-started/callback"""
OTHER = "whsec_" + b64encode(b"another secret of the same sender").decode()


def signed(body, *, secret=SECRET, now=NOW, delivery="msg-1"):
    """
    Headers as a sender makes them.
    """
    key = b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{delivery}.{int(now)}.".encode() + body, "sha256")
    signature = f"v1,{b64encode(mac).decode()}"
    return {"webhook-id": delivery, "webhook-timestamp": str(int(now)), "webhook-signature": signature}


def check(body=BODY, headers=HEADERS, *, secret=SECRET, now=NOW):
    check_signature(body, headers, keys(secret), now=now)


def test_the_vendors_example_verifies():
    """
    Secret, id, time, body and signature as the document prints them; our own signing agrees.
    """
    check()
    assert HEADERS == signed(BODY, delivery="9876543210")


def test_any_secret_and_any_signature_will_do_while_secrets_change():
    """
    The sender signs with both for seven days, and we may know one or both, with the prefix or without.
    """
    other = signed(BODY, secret=OTHER, delivery="9876543210")["webhook-signature"]
    both = {**HEADERS, "webhook-signature": f"v2,xyz {other} {HEADERS['webhook-signature']}"}
    check(headers=both)
    check(headers=both, secret=OTHER)
    check(secret=[OTHER, SECRET])
    check(secret=(SECRET.removeprefix("whsec_"),))


@pytest.mark.parametrize("missing", HEADERS)
def test_a_missing_or_empty_header_is_no_signature(missing):
    """
    What must be signed is refused without one: there is no way down.
    """
    with pytest.raises(SignatureError, match="not signed"):
        check(headers={name: value for name, value in HEADERS.items() if name != missing})
    with pytest.raises(SignatureError, match="not signed"):
        check(headers={**HEADERS, missing: ""})


@pytest.mark.parametrize("late", [TOLERANCE + 1, -TOLERANCE - 1, 1e9])
def test_a_time_too_far_from_ours_is_refused(late):
    """
    Five minutes either way are fine, a second more is not.
    """
    check(now=NOW + TOLERANCE)
    check(now=NOW - TOLERANCE)
    with pytest.raises(SignatureError, match="more than 300 s"):
        check(now=NOW + late)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "9876543211"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-signature": HEADERS["webhook-signature"].replace("v1", "v2")},
        {"webhook-signature": HEADERS["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": HEADERS["webhook-signature"][:-1]},
        {"webhook-signature": HEADERS["webhook-signature"].lower()},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,\udc80ü"},
    ],
)
def test_a_changed_header_does_not_verify(change):
    """
    Id and time are signed with the body, and a signature is compared whole.
    """
    with pytest.raises(SignatureError, match="no signature"):
        check(headers={**HEADERS, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "two words"},
        {"webhook-id": "ü"},
        {"webhook-id": "x" * 257},
        {"webhook-timestamp": "2026-11-20"},
        {"webhook-timestamp": f" {NOW}"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "9" * 5000},
    ],
)
def test_an_odd_id_or_time_is_refused_before_anything_is_computed(change):
    """
    Ids are printable ASCII, times are seconds in plain digits.
    """
    with pytest.raises(SignatureError, match="not what it should be"):
        check(headers={**HEADERS, **change})


@modest
@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_body_changed_in_one_byte_does_not_verify(place, by):
    """
    Whichever byte it is.
    """
    changed = bytearray(BODY)
    changed[place] ^= by
    with pytest.raises(SignatureError):
        check(bytes(changed))


def test_a_wrong_secret_does_not_verify():
    """
    Nor do several wrong ones.
    """
    with pytest.raises(SignatureError):
        check(secret=OTHER)
    with pytest.raises(SignatureError):
        check(secret=[OTHER, OTHER])


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_canary", "canary canary", "ü", [], [None], [OTHER, ""], [7]])
def test_what_is_no_secret_is_told_at_once_and_never_quoted(secret):
    """
    An empty environment variable must not turn signatures off.
    """
    with pytest.raises(InvalidInputError, match="secret: ") as caught:
        keys(secret)
    assert "canary" not in str(caught.value)
