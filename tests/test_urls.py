"""
Which URLs may be handed to the service.
"""

import warnings

import pytest

from kling_async import InvalidInputError, KlingWarning
from kling_async._urls import check_callback_url, check_url, warn_of_clip

LONG = "https://example.com/".ljust(2049, "a")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/clip.mp4",
        "https://example.com:8443/clip.mp4?sign=a%20b#t=1",
        "https://8.8.8.8/clip.mp4",
        "https://[2001:4860:4860::8888]/clip.mp4",
        "https://bücher.example/ü.mp4",
        "HTTPS://EXAMPLE.COM/clip.mp4",
        LONG[:2048],
    ],
)
def test_a_public_https_url_passes_as_it_is(url):
    """
    Not a letter of it is changed.
    """
    assert url == check_url("video_url", url)
    assert url == check_url("video_url", url, local=True)


@pytest.mark.parametrize(
    "url, reason",
    [
        pytest.param("file:///clip.mp4", "https", id="B28-file"),
        pytest.param("ftp://example.com/clip.mp4", "ftp", id="B28-ftp"),
        pytest.param("data:video/mp4;base64,AAAA", "Image.from_bytes", id="B28-data"),
        pytest.param("clip.mp4", "relative", id="B28-relative"),
        pytest.param("//example.com/clip.mp4", "relative", id="B28-no-scheme"),
        pytest.param("https:///clip.mp4", "https", id="B28-no-host"),
        pytest.param("https://[::1/clip.mp4", "no URL", id="B28-bracket"),
        pytest.param("https://example.com:99999/clip.mp4", "no URL", id="B28-port"),
        pytest.param("", "spaces", id="B28-empty"),
        pytest.param(" https://example.com/", "spaces", id="B28-space"),
        pytest.param("https://example.com/a b", "spaces", id="B28-inner-space"),
        pytest.param("https://example.com/\n", "spaces", id="B28-line"),
        pytest.param("https://example.com/\u202e4pm", "spaces", id="B28-direction"),
        pytest.param(None, "spaces", id="B28-none"),
        pytest.param(b"https://example.com/", "spaces", id="B28-bytes"),
        pytest.param("https://user:pass@example.com/clip.mp4", "logs", id="B29"),
        pytest.param("https://user@example.com/clip.mp4", "logs", id="B29-user"),
        pytest.param("https://@example.com/clip.mp4", "logs", id="B29-empty"),
        pytest.param(LONG, "2048", id="B52-long"),
    ],
)
def test_what_nobody_could_fetch_is_refused_everywhere(url, reason):
    """
    Whether the service is on this machine or not.
    """
    for local in (False, True):
        with pytest.raises(InvalidInputError, match=reason) as refused:
            check_url("video_url", url, local=local)
        assert "video_url" == refused.value.field


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://example.com/clip.mp4", id="B28-http"),
        pytest.param("https://localhost/clip.mp4", id="B30"),
        pytest.param("https://localhost./clip.mp4", id="B30-dot"),
        pytest.param("https://media.localhost/clip.mp4", id="B30-below"),
        pytest.param("https://nas.local/clip.mp4", id="B30-mdns"),
        pytest.param("https://metadata.google.internal/", id="B30-internal"),
        pytest.param("https://127.0.0.1/clip.mp4", id="B30-loopback"),
        pytest.param("https://10.0.0.8/clip.mp4", id="B30-private"),
        pytest.param("https://192.168.1.1/clip.mp4", id="B30-home"),
        pytest.param("https://169.254.169.254/latest", id="B30-metadata"),
        pytest.param("https://100.64.0.1/clip.mp4", id="B30-carrier"),
        pytest.param("https://[::1]/clip.mp4", id="B30-six"),
        pytest.param("https://[fe80::1]/clip.mp4", id="B30-link"),
        pytest.param("https://[fd00::1]/clip.mp4", id="B30-unique"),
        pytest.param("https://[::ffff:10.0.0.1]/clip.mp4", id="B30-mapped"),
    ],
)
def test_what_only_this_machine_reaches_is_for_a_local_service(url):
    """
    Refused for a service on the internet, fine for the simulator.
    """
    with pytest.raises(InvalidInputError):
        check_url("video_url", url)
    assert url == check_url("video_url", url, local=True)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://example.com/hook", id="B52-http"),
        pytest.param("https://10.0.0.8/hook", id="B52-private"),
        pytest.param("https://example.com/hook#part", id="B52-fragment"),
        pytest.param("https://me:pass@example.com/hook", id="B52-user"),
        pytest.param(LONG, id="B52-long"),
    ],
)
def test_a_callback_url_is_public_https_without_a_fragment(url):
    """
    The error names the parameter.
    """
    with pytest.raises(InvalidInputError) as refused:
        check_callback_url(url, local=False)
    assert "callback_url" == refused.value.field


def test_a_callback_may_stay_on_this_machine_with_the_service():
    """
    A loopback service may call a loopback server.
    """
    assert "https://example.com/hook?x=1" == check_callback_url("https://example.com/hook?x=1", local=False)
    assert "http://127.0.0.1:8000/hook" == check_callback_url("http://127.0.0.1:8000/hook", local=True)


@pytest.mark.parametrize("ending", [".avi", ".WEBM", ".mkv?sign=1"])
def test_a_clip_of_another_kind_is_only_warned_of(ending):
    """
    B31: a name is no type, so the service decides.
    """
    with pytest.warns(KlingWarning, match="MP4 and MOV"):
        warn_of_clip(f"https://example.com/clip{ending}")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.MOV", "clip", "clip.mp4?from=clip.avi"])
def test_a_clip_of_a_known_kind_is_not_warned_of(name):
    """
    Nor one whose name does not tell.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_clip(f"https://example.com/{name}")
