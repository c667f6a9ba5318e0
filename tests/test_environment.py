"""
Credentials from the environment, in a fixed order.
"""

import pytest

from kling_async import COMETAPI_URL, KLING_GLOBAL_URL, ApiKey, InvalidInputError, KeyPair
from kling_async._environment import credentials_from_env

COMET = {"COMETAPI_KEY": "sk-canary-1"}
KLING = {"KLING_API_KEY": "canary-2"}
PAIR = {"KLING_ACCESS_KEY": "canary-3", "KLING_SECRET_KEY": "canary-4"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """
    An environment without any of our variables, and a way to set some.
    """
    for name in (*COMET, *KLING, *PAIR, "KLING_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return lambda names: [monkeypatch.setenv(name, value) for name, value in names.items()]


@pytest.mark.parametrize(
    "names, credentials, source, base_url",
    [
        ({**COMET, **KLING, **PAIR}, ApiKey("sk-canary-1"), "COMETAPI_KEY", COMETAPI_URL),
        ({**KLING, **PAIR}, ApiKey("canary-2"), "KLING_API_KEY", KLING_GLOBAL_URL),
        (PAIR, KeyPair("canary-3", "canary-4"), "KLING_ACCESS_KEY and KLING_SECRET_KEY", KLING_GLOBAL_URL),
        (
            {**PAIR, "COMETAPI_KEY": ""},
            KeyPair("canary-3", "canary-4"),
            "KLING_ACCESS_KEY and KLING_SECRET_KEY",
            KLING_GLOBAL_URL,
        ),
    ],
    ids=["comet", "kling", "pair", "empty-is-unset"],
)
def test_the_first_key_that_is_set_is_taken(environment, names, credentials, source, base_url):
    """
    With the host that it belongs to, and the name of its variable.
    """
    environment(names)
    found, url = credentials_from_env()
    assert (credentials, base_url) == (found, url)
    assert source == found.source


@pytest.mark.parametrize("names", [COMET, KLING, PAIR], ids=["comet", "kling", "pair"])
def test_another_host_may_be_named(environment, names):
    """
    Whichever key it is; an empty name is none.
    """
    environment({**names, "KLING_BASE_URL": "https://kling.example.com"})
    assert "https://kling.example.com" == credentials_from_env()[1]
    environment({"KLING_BASE_URL": ""})
    assert credentials_from_env()[1] in {COMETAPI_URL, KLING_GLOBAL_URL}


@pytest.mark.parametrize(
    "names",
    [{}, {"KLING_ACCESS_KEY": "canary-3"}, {"KLING_SECRET_KEY": "canary-4"}, {"KLING_BASE_URL": "https://a.example"}],
    ids=["none", "access-alone", "secret-alone", "host-alone"],
)
def test_without_a_key_all_of_them_are_named(environment, names):
    """
    Half a pair is none.
    """
    environment(names)
    with pytest.raises(InvalidInputError) as refused:
        credentials_from_env()
    for name in (*COMET, *KLING, *PAIR):
        assert name in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_key_with_a_slip_is_refused_unquoted(environment):
    """
    B56: the environment is no way around the rules.
    """
    environment({"COMETAPI_KEY": "Bearer sk-canary-1"})
    with pytest.raises(InvalidInputError) as refused:
        credentials_from_env()
    assert "canary" not in str(refused.value)
