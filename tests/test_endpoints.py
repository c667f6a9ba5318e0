"""
Hosts and endpoints as data.
"""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import COMETAPI_URL, KLING_CHINA_URL, KLING_GLOBAL_URL, InvalidInputError
from kling_async._endpoints import ADD, CLEAR, CREATE, DELETE, ENDPOINTS, GET, INIT, LIST, PREVIEW, Replay, host
from tests.strategies import modest

REQUESTS = Path(__file__).parent / "samples" / "requests"
NAMES = {"init": INIT, "add": ADD, "delete": DELETE, "clear": CLEAR, "preview": PREVIEW, "create": CREATE, "get": GET}
NAMES["list"] = LIST


@pytest.mark.parametrize("sample", sorted(REQUESTS.glob("*.json")), ids=lambda sample: sample.stem)
def test_an_endpoint_has_the_documented_method_and_path(sample):
    """
    As the sample requests have them, without a slash at the end.
    """
    wanted = json.loads(sample.read_text("utf-8"))
    endpoint = NAMES[sample.stem.partition("-")[0]]
    assert wanted["method"] == endpoint.method
    assert wanted["path"] == endpoint.at("878106242831892487")


def test_every_endpoint_has_a_sample_request():
    """
    All eight, and each of them once in the table.
    """
    assert set(ENDPOINTS) == set(NAMES.values())
    assert 8 == len(ENDPOINTS)
    assert NAMES.keys() == {sample.stem.partition("-")[0] for sample in REQUESTS.glob("*.json")}


def test_only_reads_and_idempotent_calls_are_safe():
    """
    Adding twice may count twice, and creating twice costs twice.
    """
    assert {INIT, CLEAR, GET, LIST} == {endpoint for endpoint in ENDPOINTS if endpoint.replay is Replay.SAFE}
    assert {PREVIEW} == {endpoint for endpoint in ENDPOINTS if endpoint.replay is Replay.TWICE}
    assert {ADD, DELETE} == {endpoint for endpoint in ENDPOINTS if endpoint.replay is Replay.REFUSED}
    assert {CREATE} == {endpoint for endpoint in ENDPOINTS if endpoint.replay is Replay.KEYED}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@modest
def test_an_id_cannot_leave_its_place_in_the_path(task_id):
    """
    Whatever a service gives for an id, the path keeps its four segments and no query begins.
    """
    path = GET.at(task_id)
    assert 4 == path.count("/")
    assert not set("?#\\ \r\n") & set(path)
    assert path.isascii()


def test_reserved_characters_are_quoted():
    """
    A slash is no separator.
    """
    assert "/v1/videos/multi-elements/a%2F..%3Fb%20%C3%BC" == GET.at("a/..?b ü")


@pytest.mark.parametrize(
    "url, name, known, local",
    [
        (COMETAPI_URL, "api.cometapi.com", False, False),
        ("https://API.CometAPI.com/kling", "API.CometAPI.com", False, False),
        ("https://cometapi.com/kling", "cometapi.com", False, False),
        ("https://notcometapi.com/kling", "notcometapi.com", True, False),
        (KLING_GLOBAL_URL, "api-singapore.klingai.com", True, False),
        (KLING_CHINA_URL, "api-beijing.klingai.com", True, False),
        ("http://127.0.0.1:8080/kling", "127.0.0.1:8080", True, True),
        ("http://[::1]:8080", "[::1]:8080", True, True),
        ("http://localhost:8080", "localhost:8080", True, True),
        ("https://localhost:8080", "localhost:8080", True, True),
    ],
)
def test_a_host_tells_what_it_offers(url, name, known, local):
    """
    CometAPI documents neither list nor external ids; what is on this machine may be spoken to plainly.
    """
    made = host(url)
    assert (url, name, local) == (made.base_url, made.name, made.local)
    assert known == made.lists == made.finds_external_ids
    assert made == pickle.loads(pickle.dumps(made))


def test_a_slash_at_the_end_is_dropped():
    """
    Paths begin with one.
    """
    assert COMETAPI_URL == host(f"{COMETAPI_URL}/").base_url == host(f"{COMETAPI_URL}//").base_url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("api.cometapi.com/kling", id="B57"),
        pytest.param("//api.cometapi.com/kling", id="B57-slashes"),
        pytest.param("ftp://api.cometapi.com", id="B57-ftp"),
        pytest.param("https://", id="B57-no-host"),
        pytest.param("", id="B57-empty"),
        pytest.param(None, id="B57-none"),
        pytest.param("https://api.cometapi.com/kling?x=1", id="B57-query"),
        pytest.param("https://api.cometapi.com/kling?", id="B57-empty-query"),
        pytest.param("https://api.cometapi.com/kling#x", id="B57-fragment"),
        pytest.param("https://api.cometapi.com/kling#", id="B57-empty-fragment"),
        pytest.param("https://user:pass@api.cometapi.com", id="B57-user"),
        pytest.param("https://@api.cometapi.com", id="B57-empty-user"),
        pytest.param("http://api.cometapi.com/kling", id="B57-http"),
        pytest.param("http://127.0.0.1.example.com", id="B57-disguised"),
        pytest.param("http://192.168.1.1", id="B57-neighbour"),
        pytest.param("https://api.cometapi.com:99999", id="B57-port"),
        pytest.param("https://[::1", id="B57-bracket"),
        pytest.param(" https://api.cometapi.com", id="B57-space"),
        pytest.param("https://api.comet\napi.com", id="B57-line"),
    ],
)
def test_a_base_url_that_could_leak_the_key_or_break_a_path_is_refused(url):
    """
    Scheme, host and prefix only, and TLS unless it stays on this machine.
    """
    with pytest.raises(InvalidInputError) as refused:
        host(url)
    assert "base_url" == refused.value.field
