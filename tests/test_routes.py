"""
Where a request may go and through what: hosts, addresses and proxies as text, nothing looked up.
"""

import pytest

from kling_async._routes import check_address, check_host, find_proxy
from kling_async.errors import DownloadError, InvalidInputError


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """
    The environment of the machine says nothing about proxies.
    """
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


PUBLIC = ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822"]
PRIVATE = [
    "127.0.0.1",
    "10.0.0.8",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::7f00:1",
    "2002:7f00:1::",
    "64:ff9b::a9fe:a9fe",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_fine(address):
    """
    An address of the public internet may be connected to, also one that stands for IPv4 behind NAT64.
    """
    check_address("cdn.example", address, loopback=False)
    check_host(address, named="cdn.example")


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses_are_refused(address):
    """
    Private, link-local, shared, multicast, mapped and tunnelled addresses are refused, by name and as they are.
    """
    with pytest.raises(DownloadError, match=r"cdn\.example"):
        check_address("cdn.example", address, loopback=False)
    with pytest.raises(DownloadError):
        check_host(address, named="cdn.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_for_those_who_named_it(host):
    """
    The host that the caller gave may be this machine; a redirect to another spelling of it may not.
    """
    check_host(host, named=host)
    with pytest.raises(DownloadError):
        check_host(host, named="127.0.0.2")


def test_loopback_by_name_stays_loopback():
    """
    A loopback name may lead to loopback, and even then to nothing else that is private.
    """
    check_address("localhost", "127.0.0.1", loopback=True)
    with pytest.raises(DownloadError):
        check_address("localhost", "10.0.0.1", loopback=True)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "me.localhost", "localhost."]
)
def test_disguised_addresses_are_refused(host):
    """
    Hosts that a resolver would read as an address of this machine do not pass as names.
    """
    with pytest.raises(DownloadError, match="not a public host"):
        check_host(host, named="cdn.example")


@pytest.mark.parametrize("host", ["cdn.example", "v15-kling.klingai.com", "xn--p1ai.example", "3com.example."])
def test_names_pass(host):
    """
    A name is judged by what it resolves to.
    """
    check_host(host, named="cdn.example")


def test_without_proxy_https_goes_straight():
    """
    Nothing given and nothing in the environment is no proxy.
    """
    assert find_proxy(None) is None


def test_proxy_of_the_environment_heeds_no_proxy(monkeypatch):
    """
    HTTPS_PROXY, with or without a scheme, serves https to all hosts but those of NO_PROXY; plain http goes straight.
    """
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    proxy = find_proxy(None)
    assert ("proxy.example", "http://proxy.example:3128", {}) == (proxy.host, proxy.url, proxy.headers)
    assert proxy.serves("https", "api.example")
    assert not proxy.serves("https", "inside.example")
    assert not proxy.serves("http", "api.example")


def test_proxy_given_by_hand_serves_all(monkeypatch):
    """
    A proxy that was given goes before the environment and its exceptions.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://other.example:1")
    monkeypatch.setenv("NO_PROXY", "*")
    proxy = find_proxy("https://[::1]")
    assert ("::1", "https://[::1]") == (proxy.host, proxy.url)
    assert proxy.serves("https", "api.example")


def test_credentials_become_a_header_and_show_nowhere():
    """
    The password leaves the URL for a header, unquoted, and is not in the repr.
    """
    proxy = find_proxy("http://me:p%40ss@proxy.example:3128")
    assert "http://proxy.example:3128" == proxy.url
    assert {"Proxy-Authorization": "Basic bWU6cEBzcw=="} == proxy.headers
    assert "bWU6" not in repr(proxy)
    assert {"Proxy-Authorization": "Basic bWU6"} == find_proxy("http://me@proxy.example").headers


@pytest.mark.parametrize("text", ["socks5://p:1", "http://p:port", "http://[p", "http://:3128", "http://me:hidden@"])
@pytest.mark.parametrize("source", ["proxy", "HTTPS_PROXY"])
def test_unusable_proxy_is_named_but_not_quoted(monkeypatch, text, source):
    """
    A proxy that cannot be used is an error that says where it came from and keeps its password.
    """
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(InvalidInputError) as caught:
        find_proxy(text if source == "proxy" else None)
    assert source == caught.value.field
    assert "hidden" not in str(caught.value)
