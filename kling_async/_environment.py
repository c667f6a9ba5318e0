"""
Credentials from the environment.
"""

import os

from ._auth import ApiKey, Credentials, KeyPair
from ._endpoints import COMETAPI_URL, KLING_GLOBAL_URL
from .errors import InvalidInputError

BASE_URL = "KLING_BASE_URL"


def credentials_from_env() -> tuple[Credentials, str]:
    """
    The key that is set, and the base URL it belongs to unless `KLING_BASE_URL` names another.

    Raises:
        InvalidInputError: None is set; all of them are named.
    """
    comet, key = os.environ.get("COMETAPI_KEY"), os.environ.get("KLING_API_KEY")
    access, secret = os.environ.get("KLING_ACCESS_KEY"), os.environ.get("KLING_SECRET_KEY")
    base_url = os.environ.get(BASE_URL)
    if comet:
        return ApiKey(comet, source="COMETAPI_KEY"), base_url or COMETAPI_URL
    if key:
        return ApiKey(key, source="KLING_API_KEY"), base_url or KLING_GLOBAL_URL
    if access and secret:
        pair = KeyPair(access, secret, source="KLING_ACCESS_KEY and KLING_SECRET_KEY")
        return pair, base_url or KLING_GLOBAL_URL
    if access or secret:
        missing = "KLING_SECRET_KEY" if access else "KLING_ACCESS_KEY"
        others = "set both of KLING_ACCESS_KEY and KLING_SECRET_KEY, or COMETAPI_KEY, or KLING_API_KEY"
        raise InvalidInputError("environment", f"{missing} is missing: {others}")
    reason = "set COMETAPI_KEY, or KLING_API_KEY, or KLING_ACCESS_KEY with KLING_SECRET_KEY"
    raise InvalidInputError("environment", reason)
