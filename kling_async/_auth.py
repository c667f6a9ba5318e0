"""
Credentials, and the bearer header made from them.

API keys are sent as they are. A pair of access and secret key becomes a JWT (HS256, 30 minutes, valid from
five seconds ago): https://kling.ai/document-api/api/get-started/authentication
"""

import hmac
from base64 import urlsafe_b64encode
from importlib.util import find_spec
from typing import NoReturn

from attrs import define, evolve, field, frozen

from .errors import InvalidInputError
from .transport import Response

__all__ = ("ApiKey", "KeyPair")

LIFE = 1800.0
EARLY = 5.0
WIDER = 300.0
"""Seconds before now from which a token is valid once the service called one too early."""
TELLING = 8
"""Characters from which a key is one; a shorter one is a simulator's, and may be a part of any word."""
RENEW_AT = 0.8
"""Share of a token's life after which the next is signed."""
LABEL = b"kling_async webhook token 1"
"""What keeps the key of webhook tokens apart from any other use of the credentials."""
TOKEN_BYTES = 24
"""Bytes kept of a webhook token: 32 characters in a path."""
ACCOUNT = b"kling_async account 1"
"""The same for telling one account's credentials from another's."""


def _check_key(name: str, value: object) -> None:
    """Never quotes the value: it is a secret even where it is wrong."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(name, "is empty")
    if value.lower().startswith("bearer"):
        raise InvalidInputError(name, "must be the key alone, without 'Bearer'")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidInputError(name, "holds a space, a line break or a character that no key has")


def _refuse_pickle(kind: str) -> NoReturn:
    msg = f"{kind} holds a secret and is not pickled: read the key again where it is needed"
    raise TypeError(msg)


@frozen
class ApiKey:
    """
    A bearer key, of CometAPI (`sk-...`) or of Kling.

    Example:
        >>> ApiKey("sk-made-up")
        ApiKey(***)

    Raises:
        InvalidInputError: It cannot be a key; the value is never quoted.
    """

    key: str = field(repr=False)
    """The key."""
    source: str | None = field(default=None, kw_only=True, eq=False)
    """The environment variable that it came from."""

    def __attrs_post_init__(self) -> None:
        _check_key("api_key", self.key)

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def __reduce__(self) -> NoReturn:
        _refuse_pickle(type(self).__name__)


@frozen
class KeyPair:
    """
    Access key and secret key of Kling itself; needs the extra `kling` for signing.

    Example:
        >>> KeyPair("made-up", "made-up-too")
        KeyPair(***)

    Raises:
        InvalidInputError: One of them cannot be a key; the values are never quoted.
    """

    access_key: str = field(repr=False)
    """The access key, the token's `iss`."""
    secret_key: str = field(repr=False)
    """The secret key, which signs."""
    source: str | None = field(default=None, kw_only=True, eq=False)
    """The environment variables that it came from."""

    def __attrs_post_init__(self) -> None:
        _check_key("access_key", self.access_key)
        _check_key("secret_key", self.secret_key)

    def __repr__(self) -> str:
        return "KeyPair(***)"

    def __reduce__(self) -> NoReturn:
        _refuse_pickle(type(self).__name__)


Credentials = ApiKey | KeyPair


@define(eq=False)
class Signer:
    """
    The header's value for now: the key itself, or a token that is signed anew before it ends.
    """

    credentials: Credentials = field(repr=False)
    _token: str = field(default="", init=False, repr=False)
    _renew_at: float = field(default=0.0, init=False)
    _early: float = field(default=EARLY, init=False)
    _telling: tuple[tuple[str, bytes], ...] = field(default=(), init=False, repr=False)
    fixed: str = field(default="", init=False, repr=False)
    """The value that never changes, an ApiKey's; empty for a pair."""

    def __attrs_post_init__(self) -> None:
        self._tell()
        if isinstance(self.credentials, ApiKey):
            self.fixed = f"Bearer {self.credentials.key}"

    def _tell(self) -> None:
        pair = self.credentials
        secrets = (pair.key,) if isinstance(pair, ApiKey) else (pair.access_key, pair.secret_key, self._token)
        self._telling = tuple((secret, secret.encode()) for secret in secrets if len(secret) >= TELLING)

    def authorization(self, now: float) -> str:
        """
        The value of the Authorization header.

        Args:
            now: Unix time in seconds.
        """
        if isinstance(self.credentials, ApiKey):
            return self.fixed
        # A clock set back would otherwise keep a token that is not valid yet.
        if not self._renew_at - LIFE * RENEW_AT <= now < self._renew_at:
            self._token = _sign(self.credentials, now, self._early)
            self._renew_at = now + LIFE * RENEW_AT
            self._tell()
        return f"Bearer {self._token}"

    def struck(self, response: Response) -> Response:
        """
        A reply without our secrets: gateways echo keys in their refusals, some of these behind a 200.
        """
        fields = "\n".join(response.headers.values())
        for secret, wire in self._telling:
            if wire in response.body:
                response = evolve(response, body=response.body.replace(wire, b"***"))
            if secret in fields:
                headers = {name.lower(): text.replace(secret, "***") for name, text in response.headers.items()}
                response = evolve(response, headers=headers)
        return response

    def renew(self, code: int | str | None) -> bool:
        """
        After 1003 (not valid yet) or 1004 (expired): whether a new token may cure it.

        Args:
            code: The service's code.
        """
        if isinstance(self.credentials, ApiKey) or code not in {1003, 1004}:
            return False
        self._renew_at = 0.0
        if code == 1003:
            self._early = WIDER
        return True


def _sign(pair: KeyPair, now: float, early: float) -> str:
    import jwt

    claims = {"iss": pair.access_key, "exp": int(now + LIFE), "nbf": int(now - early)}
    return jwt.encode(claims, pair.secret_key, algorithm="HS256")


def check_signing(credentials: Credentials) -> None:
    """
    Whether these credentials can be used here, told when the client is made rather than at its first call.

    Raises:
        InvalidInputError: A key pair needs PyJWT, and it is not installed.
    """
    if isinstance(credentials, KeyPair) and find_spec("jwt") is None:
        reason = "signing with a key pair needs PyJWT: pip install 'kling-async[kling]'"
        raise InvalidInputError("credentials", reason)


def webhook_token(credentials: Credentials, external_task_id: str) -> str:
    """
    What proves that we ourselves named a path to the service for this task.

    An HMAC under a key derived from the credentials, so that every worker can check it and none must store it.
    """
    secret = credentials.key if isinstance(credentials, ApiKey) else credentials.secret_key
    key = hmac.digest(secret.encode(), LABEL, "sha256")
    return urlsafe_b64encode(hmac.digest(key, external_task_id.encode(), "sha256")[:TOKEN_BYTES]).decode()


def fingerprint(credentials: Credentials) -> str:
    """
    What tells these credentials from others without telling what they are: 16 hexadecimal digits, one way.

    A pair is known by its access key, since its secret may be renewed.
    """
    name = credentials.key if isinstance(credentials, ApiKey) else credentials.access_key
    return hmac.digest(name.encode(), ACCOUNT, "sha256")[:8].hex()
