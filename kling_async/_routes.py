"""
Where a request may go, and through what.

Decides which addresses a media link may lead to, and which proxy stands before an https host. Refuses to know who
connects, and looks nothing up itself.
"""

import ipaddress
from base64 import b64encode
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from attrs import field, frozen

from ._refusals import excerpt
from .errors import DownloadError, InvalidInputError

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def check_host(host: str, *, named: str) -> None:
    """
    Refuse a host that is not public by its own spelling; loopback is for callers who named it, never for a redirect.

    Args:
        host: A name or an address, as the URL has it.
        named: The host of the URL that the caller gave.

    Raises:
        DownloadError: Nothing may be fetched from there.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        # What ends in a number is an address in disguise (2130706433, 0x7f.1): resolvers read it as one.
        if last[:1].isdigit() or (last == "localhost" and host != named):
            raise DownloadError(f"the link leads to {excerpt(host)}, which is not a public host", final=True) from None
    else:
        check_address(host, host, loopback=host == named)


def check_address(host: str, address: str, *, loopback: bool) -> None:
    """
    Refuse an address that is not public. Who connects must connect to this very one, without a second look-up.

    Args:
        host: The name that led to it.
        address: What it resolved to.
        loopback: Whether this machine itself is fine.

    Raises:
        DownloadError: It is private, link-local, multicast or otherwise not for the public.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip in _NAT64:
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    unicast = isinstance(ip, ipaddress.IPv4Address) or (ip in _UNICAST and ip.sixtofour is None)
    public = unicast and ip.is_global and not ip.is_multicast
    if not public and not (loopback and ip.is_loopback):
        raise DownloadError(
            f"the link leads to {excerpt(host)} at {address}, which is not a public address", final=True
        )


@frozen
class Proxy:
    """
    Where https goes through. Plain http is for this machine alone and goes straight.
    """

    host: str
    """Its name or address."""
    url: str
    """Without credentials: in a URL they would show in other people's errors."""
    headers: dict[str, str] = field(repr=False)
    """With the credentials."""
    always: bool
    """It was given by hand, so NO_PROXY does not count."""

    def serves(self, scheme: str, host: str) -> bool:
        """
        Whether a host is reached through it.
        """
        return scheme == "https" and (self.always or not proxy_bypass(host))


def find_proxy(given: object) -> Proxy | None:
    """
    The proxy given, else the one that HTTPS_PROXY names.

    Raises:
        InvalidInputError: It is none that can be used; the value may hold a password and is not quoted.
    """
    text = getproxies().get("https") if given is None else given
    if text is None:
        return None
    parts = _usable(text)
    if parts is None:
        name = "HTTPS_PROXY" if given is None else "proxy"
        raise InvalidInputError(name, "must be http://host:port, with user:password@ where the proxy asks for them")
    headers = {}
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(secret.encode()).decode()}"
    netloc = parts.netloc.rpartition("@")[2]
    return Proxy(parts.hostname or "", f"{parts.scheme}://{netloc}", headers, always=given is not None)


def _usable(text: object) -> SplitResult | None:
    if not isinstance(text, str):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if whole else None
