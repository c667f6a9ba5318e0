"""
Which URLs may be handed to the service.
"""

import ipaddress
import warnings
from urllib.parse import SplitResult, urlsplit

from .errors import InvalidInputError, KlingWarning

URL_LIMIT = 2048
NONSENSE = "is no URL: its host or port makes no sense"


def shown_url(url: str | None) -> str:
    """
    A URL as a repr shows it: the query of a signed link is a secret for as long as the link lives.
    """
    return repr(url if url is None else url.partition("?")[0])


OTHER_CLIPS = (".avi", ".flv", ".gif", ".mkv", ".webm", ".wmv")
"""Endings of clips that are neither MP4 nor MOV."""


def split(url: str) -> SplitResult | None:
    """
    The parts of a URL; None where its host or port makes no sense.

    The parser's own error is dropped with whatever it quotes: what stands where a port should may be a key.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return None
    return parts


def check_url(name: str, url: object, *, local: bool = False) -> str:
    """
    A public http(s) URL.

    Args:
        name: The field, for the error.
        url: What was given.
        local: Whether plain http and addresses of this machine are fine.

    Raises:
        InvalidInputError: The service could not or should not fetch it.
    """
    if not isinstance(url, str) or not url or " " in url or not url.isprintable():
        raise InvalidInputError(name, "must be an https URL without spaces")
    parts = split(url)
    if parts is None:
        raise InvalidInputError(name, NONSENSE)
    if parts.scheme == "data":
        raise InvalidInputError(name, "is a data: URL; give the bytes to Image.from_bytes")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        kind = f"a URL of {parts.scheme!r}" if parts.scheme else "a relative path"
        raise InvalidInputError(name, f"must be a public https URL, not {kind}: the service reads no local files")
    if "@" in parts.netloc:
        raise InvalidInputError(name, "must not hold a user name or password: they would end in logs")
    if len(url) > URL_LIMIT:
        raise InvalidInputError(name, f"has {len(url)} characters, more than {URL_LIMIT}")
    if not local:
        _check_public(name, parts.scheme, parts.hostname)
    return url


def _check_public(name: str, scheme: str, hostname: str) -> None:
    try:
        private = not ipaddress.ip_address(hostname).is_global
    except ValueError:
        hostname = hostname.rstrip(".")
        private = hostname == "localhost" or hostname.endswith((".localhost", ".local", ".internal"))
    if private:
        raise InvalidInputError(name, f"points at {hostname}, which the service cannot reach: give a public URL")
    if scheme != "https":
        raise InvalidInputError(name, "must be https")


def warn_of_clip(url: str) -> None:
    """
    Warn of a clip that by its name is neither MP4 nor MOV; a name is no type, so it may be fine.
    """
    if url.partition("?")[0].lower().endswith(OTHER_CLIPS):
        text = "the service takes MP4 and MOV alone, and the clip's name says otherwise"
        warnings.warn(text, KlingWarning, stacklevel=4)


def check_callback_url(url: object, *, local: bool) -> str:
    """
    Where the service may post changes of a task.

    Raises:
        InvalidInputError: It is not public https, or has a fragment.
    """
    checked = check_url("callback_url", url, local=local)
    if "#" in checked:
        raise InvalidInputError("callback_url", "must not have a fragment: it never reaches the server")
    return checked
