"""
Standard Webhooks signatures: whether a body was signed with one of our secrets, a moment ago.

Functions over values: the time comes in as an argument. Which deliveries must be signed is `webhooks.py`'s.
Sources: https://kling.ai/document-api/api/get-started/callback and https://www.standardwebhooks.com
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from .errors import InvalidInputError, SignatureError

TOLERANCE = 300.0
"""Seconds that the sender's clock may differ from ours, either way."""
PREFIX = "whsec_"
ID = "webhook-id"
TIMESTAMP = "webhook-timestamp"
SIGNATURE = "webhook-signature"
_ID = re.compile(r"[!-~]{1,256}")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Keys(tuple[bytes, ...]):
    """
    Keys that do not show themselves: they are locals of frames, and some print these where something fails.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Keys(***)"


def keys(secret: str | Sequence[str]) -> Keys:
    """
    The keys in one secret, or in several while the sender changes from one to another.

    Raises:
        InvalidInputError: There is none, or one is no base64; it is never quoted.
    """
    try:
        found = Keys(map(_key, [secret] if isinstance(secret, str) else secret))
    except InvalidInputError as error:
        # Without the frames that it came through, and below without what was given.
        raise error.with_traceback(None) from None
    finally:
        del secret
    if not found:
        raise InvalidInputError("secret", "holds none: give None where deliveries are not signed")
    return found


def _key(secret: object) -> bytes:
    if not isinstance(secret, str):
        raise InvalidInputError("secret", f"must be text, not {type(secret).__name__}")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        raise InvalidInputError("secret", "is no base64 after 'whsec_'") from None
    if not key:
        raise InvalidInputError("secret", "is empty: give None where deliveries are not signed")
    return key


def check_signature(body: bytes, headers: Mapping[str, str], valid: Sequence[bytes], *, now: float) -> None:
    """
    Whether one of the signatures was made with one of the keys; a missing header is no signature.

    Args:
        body: The bytes as they came.
        headers: With names in lower case.
        valid: The keys; any of them will do.
        now: Unix time in seconds.

    Raises:
        SignatureError: It was not, or too long ago or ahead.
    """
    delivery, moment, given = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not (delivery and moment and given):
        raise SignatureError(f"the delivery is not signed: {ID}, {TIMESTAMP} and {SIGNATURE} must all be there")
    if not _ID.fullmatch(delivery) or not _SECONDS.fullmatch(moment):
        raise SignatureError(f"{ID} or {TIMESTAMP} is not what it should be")
    if abs(now - int(moment)) > TOLERANCE:
        raise SignatureError(
            f"the signature's time is more than {TOLERANCE:g} s from ours: an old one, or a wrong clock"
        )
    signed = f"{delivery}.{moment}.".encode() + body
    if not _made(signed, [each.encode(errors="replace") for each in given.split(" ")], valid):
        raise SignatureError("no signature of the delivery was made with a secret of ours")


def _made(signed: bytes, offered: Sequence[bytes], valid: Sequence[bytes]) -> bool:
    # Apart from the check, so that no frame of a refusal has the right signature among its locals.
    wanted = [b"v1," + b64encode(hmac.digest(key, signed, "sha256")) for key in valid]
    return any([hmac.compare_digest(one, other) for one in wanted for other in offered])  # noqa: C419 - all are tried
