"""
`doctor`: each check as it comes out well and badly, over real sockets, without a call that could be paid.
"""

import json
import signal
import ssl
import sys
import time
import tomllib
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from kling_async import COMETAPI_URL, KLING_CHINA_URL, KLING_GLOBAL_URL, ApiKey, KeyPair, open_transport
from kling_async.cli import _doctor, _inquiry, _inventory
from kling_async.cli._findings import Verdict
from kling_async.cli._inquiry import Inquiry, balance_of, place
from kling_async.cli._inventory import EXTRAS
from kling_async.cli._listening import Heard, Listening
from kling_async.cli._service import Service
from kling_async.cli._show import Show
from kling_async.simulator import Fault, Simulator
from kling_async.transport import Response
from tests.answering import answering
from tests.commanding import (
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    intent,
    keep,
    serving,
)
from tests.test_aiohttp import CERTIFICATE

SECRET = "sk-canary-4711"
NO_TASK = json.dumps({"code": 1203, "message": "no such task", "request_id": "r-1"}).encode()
CHECKS = [
    *("python", "packages", "extra cli", "extra demo", "extra kling", "extra masks", "extra trio"),
    *("environment", "credentials", "host", "proxy", "name", "connection", "TLS", "service", "key", "region"),
    *("clock", "balance", "state"),
]


@pytest.fixture(autouse=True)
def secret(home, monkeypatch):
    """
    A key that must be said nowhere.
    """
    monkeypatch.setenv("COMETAPI_KEY", SECRET)


@pytest.fixture
def examined(run):
    """
    Runs doctor: its exit code, and what was found by the names of the checks.
    """

    def examine(*words):
        ended = run("doctor", "--json", *words)
        assert SECRET not in ended.out + ended.err
        return ended.code, {event["check"]: event for event in ended.events if event["event"] == "check"}

    return examine


def verdicts(found, *names):
    """
    How checks came out.
    """
    return tuple(found[name]["verdict"] for name in names)


# All of it


def test_all_is_well_with_people(run):
    """
    Each check is a line, the last one says what stays open, and the exit code is 0.
    """
    with serving(api_key=SECRET) as served:
        ended = run("doctor", "--base-url", served.base_url)
        assert ["get"] == served.calls()
    *lines, empty, last = ended.out.splitlines()
    assert (0, "", "") == (ended.code, ended.err, empty)
    assert CHECKS == [line[13:].split("  ")[0] for line in lines]
    assert {"ok", "not checked"} == {line[:13].strip() for line in lines}
    assert last.startswith("Not checked: balance (only Kling's own hosts tell it, others have it in their console); ")
    assert last.endswith("whether the account may create edits and how many at once, which only a paid call tells.")
    assert SECRET not in ended.out


def test_all_is_well_with_programs(run):
    """
    With --json each check is an object, and the last one sums up.
    """
    with serving(api_key=SECRET) as served:
        ended = run("doctor", "--json", "--base-url", served.base_url)
    *checks, done = ended.events
    assert CHECKS == [event["check"] for event in checks]
    assert ("done", 0, [], [], ["balance"]) == tuple(
        done[name] for name in ("event", "exit_code", "failed", "warnings", "not_checked")
    )
    assert {"verdict": "ok", "status": 404}.items() <= next(e for e in checks if e["check"] == "service").items()


def test_it_can_be_interrupted(run, monkeypatch):
    """
    Ctrl-C while the service does not answer ends it with 130.
    """
    said = Show.event

    def event(self, name, facts):
        said(self, name, facts)
        if facts.get("check") == "proxy":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Show, "event", event)
    with serving(faults=[Fault("get", "hang")]) as served:
        ended = run("doctor", "--base-url", served.base_url)
    assert (130, "interrupted\n") == (ended.code, ended.err)


# This machine


def test_versions_are_told(examined, monkeypatch):
    """
    Python, and every package with its version; one that is missing is no reason to fail.
    """

    def known(name):
        if name == "trio":
            raise PackageNotFoundError
        return version(name)

    monkeypatch.setattr(_inventory, "version", known)
    monkeypatch.delenv("COMETAPI_KEY")
    _, found = examined()
    assert sys.version.split()[0] == found["python"]["version"]
    assert version("aiohttp") == found["packages"]["versions"]["aiohttp"]
    assert (None, True) == (found["packages"]["versions"]["trio"], "trio is not in" in found["packages"]["message"])


def test_an_extra_that_is_missing_is_told_with_its_command(examined, monkeypatch):
    """
    It is said what it is for and how to get it.
    """
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delenv("COMETAPI_KEY")
    _, found = examined()
    assert (False, True) == (found["extra demo"]["installed"], found["extra masks"]["installed"])
    assert "pip install 'kling-async[demo]'" in found["extra demo"]["message"]


def test_the_extras_are_those_of_the_package():
    """
    No extra is told of that the package does not have.
    """
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    "variables, verdict, said",
    [
        ({"COMETAPI_KEY": "x"}, "ok", "COMETAPI_KEY"),
        (
            {"COMETAPI_KEY": "x", "KLING_API_KEY": "y"},
            "ok",
            "COMETAPI_KEY, KLING_API_KEY (not used); COMETAPI_KEY wins",
        ),
        ({"KLING_API_KEY": "y", "COMETAPI_KEY": ""}, "warning", "KLING_API_KEY"),
        ({"KLING_ACCESS_KEY": "a"}, "warning", "KLING_ACCESS_KEY (not used)"),
        ({}, "ok", "nothing that counts here"),
    ],
)
def test_variables_are_told_by_name(examined, monkeypatch, variables, verdict, said):
    """
    Which are set, which of them count, and what is odd about them; never what they hold.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, found = examined("--base-url", "http://127.0.0.1:1/kling")
    told = found["environment"]
    assert (verdict, said, verdict == "warning") == (told["verdict"], told["message"], bool(told["advice"]))


def test_without_a_key_nothing_is_asked_of_anybody(examined, monkeypatch):
    """
    No key and no host: 3, and every check that needs an answer says why it was not made.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    code, found = examined()
    assert (3, "failed") == (code, found["credentials"]["verdict"])
    assert "set COMETAPI_KEY, or KLING_API_KEY, or" in found["credentials"]["message"]
    after = CHECKS[CHECKS.index("host") : CHECKS.index("state")]
    assert {"not checked"} == set(verdicts(found, *after))


def test_a_pair_of_keys_needs_what_signs(examined, monkeypatch):
    """
    Without PyJWT a key pair is no usable key, and the extra is named.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    monkeypatch.setenv("KLING_ACCESS_KEY", "a")
    monkeypatch.setenv("KLING_SECRET_KEY", SECRET)
    monkeypatch.setitem(sys.modules, "jwt", None)
    code, found = examined("--base-url", "http://127.0.0.1:1/kling")
    assert (3, True) == (code, "pip install 'kling-async[kling]'" in found["credentials"]["message"])


@pytest.mark.parametrize(
    "url, credentials, verdict, said",
    [
        (COMETAPI_URL, ApiKey("x", source="COMETAPI_KEY"), Verdict.OK, ""),
        (COMETAPI_URL, ApiKey("x", source="KLING_API_KEY"), Verdict.WARNING, "is for Kling itself: set COMETAPI_KEY"),
        (COMETAPI_URL, KeyPair("x", "y", source="KLING_ACCESS_KEY"), Verdict.FAILED, ""),
        ("https://api.cometapi.com", ApiKey("x", source="COMETAPI_KEY"), Verdict.WARNING, "ends in /kling"),
        (KLING_GLOBAL_URL, ApiKey("x", source="COMETAPI_KEY"), Verdict.WARNING, "COMETAPI_KEY is not for Kling"),
        (KLING_CHINA_URL, ApiKey("x", source="KLING_API_KEY"), Verdict.OK, ""),
        ("https://gateway.example/kling", ApiKey("x", source="COMETAPI_KEY"), Verdict.OK, ""),
        ("https://gateway.example/kling", None, Verdict.OK, ""),
        ("http://gateway.example/kling", None, Verdict.FAILED, ""),
    ],
)
def test_a_key_at_the_wrong_host_is_odd(url, credentials, verdict, said):
    """
    What is known of a host and of a variable is compared before anything is sent.
    """
    found = place(Service(base_url=url), credentials)
    assert (verdict, said in found.advice, bool(said)) == (found.verdict, True, bool(found.advice))


@pytest.mark.parametrize("origin", ["KLING_BASE_URL", "COMETAPI_KEY"])
def test_the_host_is_told_with_its_origin(monkeypatch, origin):
    """
    Without an option it comes from the variable for it, or from the key.
    """
    if origin == "KLING_BASE_URL":
        monkeypatch.setenv("KLING_BASE_URL", COMETAPI_URL)
    found = place(Service(), ApiKey("x", source="COMETAPI_KEY"))
    assert (COMETAPI_URL, origin) == (found.facts["base_url"], found.facts["origin"])


@pytest.mark.parametrize("origin", ["--base-url", "KLING_BASE_URL"])
def test_an_address_that_cannot_be_one_ends_with_two(examined, monkeypatch, origin):
    """
    It is wrong input, wherever it comes from, and nothing is asked.
    """
    monkeypatch.setenv("KLING_BASE_URL", "ftp://x")
    code, found = examined(*(("--base-url", "ftp://x") if origin == "--base-url" else ()))
    assert (2, "failed", True) == (code, found["host"]["verdict"], found["host"]["message"].startswith(f"{origin}: "))


# The state folder


def test_a_state_that_is_not_there_yet_is_fine(examined, home):
    """
    It is said where it will be, and not made.
    """
    code, found = examined("--base-url", "http://127.0.0.1:1/kling")
    assert (4, "ok", 0) == (code, found["state"]["verdict"], found["state"]["intents"])
    assert not (home / "state").exists()


def test_creates_in_doubt_are_counted(examined):
    """
    What was sent and never answered is a warning, with the command for each host that it was sent to.
    """
    sent = datetime.now(UTC)
    keep(
        intent("order-1", state="accepted", task_id="1"),
        intent("order-2", state="unknown", first_sent_at=sent, base_url="https://other.example/kling"),
        intent("order-3", state="sending", first_sent_at=sent, base_url="https://third.example/kling"),
        intent("order-4", state="unknown", first_sent_at=sent, base_url="https://third.example/kling"),
    )
    _, found = examined("--base-url", "http://127.0.0.1:1/kling")
    assert ("warning", 4, 3) == tuple(found["state"][name] for name in ("verdict", "intents", "in_doubt"))
    settle = "kling-async tasks reconcile --base-url https://"
    both = f"{settle}third.example/kling; {settle}other.example/kling"
    assert f"Look for them:  {both}" == found["state"]["advice"]


def test_creates_without_doubt_are_counted(examined):
    """
    All known is all well.
    """
    keep(intent("order-1", state="accepted", task_id="1"))
    _, found = examined("--base-url", "http://127.0.0.1:1/kling")
    assert ("ok", 1, 0) == tuple(found["state"][name] for name in ("verdict", "intents", "in_doubt"))


@pytest.mark.parametrize("broken", ["folder", "file"])
def test_a_state_that_cannot_be_used_fails(examined, home, broken):
    """
    A folder that cannot be made, and a file that holds something else, end with 1 and name --state.
    """
    if broken == "folder":
        (home / "kept").write_bytes(b"")
    else:
        (home / "kept").mkdir()
        (home / "kept" / "intents.sqlite").write_bytes(b"something else " * 99)
    with serving() as served:
        code, found = examined("--base-url", served.base_url, "--state", "kept")
    assert (1, "failed", True) == (code, found["state"]["verdict"], "--state" in found["state"]["advice"])


# The way


@pytest.mark.parametrize(
    "base_url, stage",
    [
        ("https://nowhere.invalid/kling", "name"),
        (f"https://{'a' * 64}.example/kling", "connection"),
        ("http://127.0.0.1:1/kling", "connection"),
    ],
)
def test_a_host_that_is_not_there_ends_with_four(examined, base_url, stage):
    """
    What failed is said, what comes before it is fine, and what comes after it is not checked.
    """
    code, found = examined("--base-url", base_url)
    way = ["name", "connection", "TLS", "service"]
    at = way.index(stage)
    assert 4 == code
    assert ("ok",) * at + ("failed",) + ("not checked",) * (3 - at) == verdicts(found, *way)
    assert ("not checked", "not checked") == verdicts(found, "key", "clock")


def test_a_certificate_that_fails_ends_with_four(examined, home):
    """
    The connection is fine, its TLS is not.
    """
    with answering(certificate=home) as host:
        code, found = examined("--base-url", host.base_url)
    assert (4, ("ok", "failed", "not checked")) == (code, verdicts(found, "connection", "TLS", "service"))
    assert "SSL_CERT_FILE" in found["TLS"]["advice"]


def test_a_certificate_that_verifies_is_fine(examined, home, monkeypatch):
    """
    Over https it is said that the certificate verifies.
    """
    trusting = partial(open_transport, ssl_context=ssl.create_default_context(cadata=CERTIFICATE))
    monkeypatch.setattr(_doctor, "open_transport", trusting)
    with answering(404, NO_TASK, certificate=home) as host:
        code, found = examined("--base-url", host.base_url)
    assert (0, "the certificate verifies") == (code, found["TLS"]["message"])


def test_a_reply_that_is_lost_ends_with_four(examined):
    """
    A host that hangs up was reached, and is no service.
    """
    with answering(0) as host:
        code, found = examined("--base-url", host.base_url)
    assert (4, ("ok", "ok", "failed")) == (code, verdicts(found, "connection", "TLS", "service"))


def test_without_a_key_the_way_is_looked_at_all_the_same(examined, monkeypatch):
    """
    A host that was named is asked without any key: 3, but the way is known.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    with serving() as served:
        code, found = examined("--base-url", served.base_url)
        assert [False] == [seen.with_key for seen in served.simulator.log]
    assert (3, ("ok", "ok", "not checked", "ok")) == (code, verdicts(found, "service", "connection", "key", "clock"))


@pytest.mark.parametrize(
    "status, body, said",
    [
        (200, b"<html><body>welcome</body></html>", "but not as this service does: HTTP 200"),
        (301, b"", "redirects of API calls are refused"),
        (404, b'{"error": {"message": "Invalid URL", "type": "invalid_request_error", "code": ""}}', "this path"),
        (404, b'{"code": 1202, "message": "method invalid"}', "does not know this path"),
        (503, b'{"code": 5001, "message": "maintenance"}', "maintenance (5001, HTTP 503)"),
        (200, b"{" + b" " * 9_000_000, "larger than"),
    ],
)
def test_what_is_no_service_fails(examined, status, body, said):
    """
    What answers otherwise than the service does says nothing of the key, and ends with 1.
    """
    with answering(status, body) as host:
        code, found = examined("--base-url", host.base_url)
    assert (1, "failed", "not checked") == (code, *verdicts(found, "service", "key"))
    assert said in found["service"]["message"]


# The proxy


def test_a_proxy_is_told_without_its_password(examined, monkeypatch):
    """
    It looks names up itself; its credentials are nowhere.
    """
    with answering() as through:
        proxy = through.base_url.removesuffix("/kling")
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("//", f"//me:{SECRET}@"))
        code, found = examined("--base-url", "https://nowhere.invalid/kling")
        assert [("CONNECT", "nowhere.invalid:443")] == [seen[:2] for seen in through.seen]
    assert (4, f"{proxy}, with user and password", True) == (code, found["proxy"]["message"], found["proxy"]["used"])
    assert ("not checked", "ok", "failed") == verdicts(found, "name", "connection", "TLS")
    assert f"through {proxy}" in found["connection"]["message"]


@pytest.mark.parametrize("variables", [{}, {"NO_PROXY": "*"}])
def test_a_proxy_may_not_count(examined, monkeypatch, variables):
    """
    Plain http goes straight, and so does what NO_PROXY names.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serving() as served:
        code, found = examined("--base-url", served.base_url)
    assert (0, False) == (code, found["proxy"]["used"])
    assert "not used for this host" in found["proxy"]["message"]


def test_a_proxy_that_cannot_be_one_ends_with_two(examined, monkeypatch):
    """
    The variable is named, its value is not, and nothing is asked.
    """
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://me:{SECRET}@x")
    code, found = examined("--base-url", "https://nowhere.invalid/kling")
    assert (2, "failed", "not checked") == (code, *verdicts(found, "proxy", "name"))


# The key


@pytest.mark.parametrize(
    "status, body",
    [
        (404, NO_TASK),
        (400, b'{"code": "task_not_exist", "message": "task_not_exist", "data": null}'),
        (400, b'{"code": 1201, "message": "id invalid"}'),
        (200, b'{"code": "success", "message": "", "data": null}'),
        (200, b'{"code": 0, "data": ["odd"]}'),
        (200, b'{"code": 0, "data": {"task_id": "1", "task_status": "succeed"}}'),
        (429, b'{"code": 1303, "message": "parallel task over resource pack limit"}'),
    ],
)
def test_answers_that_prove_a_key(examined, status, body):
    """
    Whatever comes after the look at the key proves that it was accepted.
    """
    with answering(status, body) as host:
        code, found = examined("--base-url", host.base_url)
        [(method, path, headers)] = host.seen
    assert (0, "ok") == (code, found["key"]["verdict"])
    assert ("GET", "/kling/v1/videos/multi-elements/kling-async-doctor") == (method, path)
    assert f"Bearer {SECRET}" == headers["Authorization"]


@pytest.mark.parametrize(
    "status, body, ends, said",
    [
        (401, b'{"code": 1002, "message": "Authorization is invalid"}', (3, "failed"), "the key was refused: "),
        (401, b'{"error": {"message": "invalid token", "code": ""}}', (3, "failed"), "the key was refused: invalid"),
        (429, b'{"code": 1102, "message": "balance"}', (1, "failed"), "COMETAPI_KEY is accepted, but the account was"),
        (429, b'{"code": 1304, "message": "IP"}', (1, "failed"), "COMETAPI_KEY is accepted, but the account was "),
        (429, b"", (0, "not checked"), "the answer does not say: "),
        (400, b'{"error": {"message": "odd", "code": "teapot"}}', (0, "not checked"), "the answer does not say: "),
        (418, b'{"code": 1999, "message": "odd"}', (0, "not checked"), "the answer does not say: "),
    ],
)
def test_answers_that_prove_no_key(examined, status, body, ends, said):
    """
    A refusal of key or account fails; what does not say is told as it was seen.
    """
    with answering(status, body) as host:
        code, found = examined("--base-url", host.base_url)
    assert ends == (code, found["key"]["verdict"])
    assert found["key"]["message"].startswith(said)


# The region


@pytest.fixture
def regions(monkeypatch):
    """
    Two simulators in place of Kling's regions, the environment pointing at the first; the key is known to the second.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    monkeypatch.setenv("KLING_API_KEY", SECRET)
    with serving(api_key="another") as here, serving(api_key=SECRET) as there:
        names = {here.base_url: "Kling's global region", there.base_url: "Kling's region China"}
        monkeypatch.setattr(_inquiry, "REGIONS", names)
        monkeypatch.setenv("KLING_BASE_URL", here.base_url)
        yield here, there


def test_a_refused_key_goes_to_no_other_host_unasked(examined, regions):
    """
    The other region is named with the option that asks it, and hears nothing.
    """
    _, there = regions
    code, found = examined()
    assert (3, "not checked", []) == (code, found["region"]["verdict"], there.calls())
    assert found["region"]["advice"] == (
        f"Set KLING_BASE_URL={there.base_url}, or have it asked:  kling-async doctor --try-regions"
    )


def test_a_key_of_the_other_region_is_found_there(examined, regions):
    """
    With --try-regions the other region gets one look too; it accepts the key, and what to set is said.
    """
    here, there = regions
    code, found = examined("--try-regions")
    assert (3, "failed", ["get"], ["get"]) == (code, found["region"]["verdict"], here.calls(), there.calls())
    assert f"Set KLING_BASE_URL={there.base_url}." == found["region"]["advice"]
    assert "ok" == found["clock"]["verdict"]


def test_a_key_of_no_region_is_just_wrong(examined, regions, monkeypatch):
    """
    Refused by both, it is no question of the region.
    """
    monkeypatch.setenv("KLING_API_KEY", "a-third")
    code, found = examined("--try-regions")
    assert (3, "failed", "ok") == (code, *verdicts(found, "key", "region"))
    assert "refuses the key as well" in found["region"]["message"]


def test_a_region_that_does_not_answer_leaves_it_open(examined, regions, monkeypatch):
    """
    Where the other region cannot be asked, nothing is known.
    """
    here, _ = regions
    monkeypatch.setattr(_inquiry, "REGIONS", {here.base_url: "here", "http://127.0.0.1:1": "there"})
    _, found = examined("--try-regions")
    assert ("not checked", True) == (found["region"]["verdict"], "did not answer" in found["region"]["message"])


def test_the_region_of_an_accepted_key_is_known(examined, regions, monkeypatch):
    """
    A key that is accepted belongs where it was sent.
    """
    monkeypatch.setenv("KLING_API_KEY", "another")
    _, found = examined()
    assert ("ok", "Kling's global region") == (found["region"]["verdict"], found["region"]["message"])


def test_a_key_that_nobody_looked_at_has_no_region_yet(examined, regions):
    """
    Where the host does not answer, another region is not asked either.
    """
    here, there = regions
    _inquiry.REGIONS["http://127.0.0.1:1"] = "a region that is closed"
    code, found = examined("--try-regions", "--base-url", "http://127.0.0.1:1")
    assert (4, "not checked", []) == (code, found["region"]["verdict"], here.calls() + there.calls())


async def test_of_klings_hosts_two_are_documented():
    """
    Nothing is known of the region of an older host.
    """
    inquiry = Inquiry(Service(base_url="https://api.klingai.com"), ApiKey("x"), Listening(Simulator().transport()))
    found = await inquiry.region(others=True)
    assert (Verdict.UNCHECKED, True) == (found.verdict, f"{KLING_GLOBAL_URL} and {KLING_CHINA_URL}" in found.said)


def test_an_account_that_was_refused_has_its_region(examined, monkeypatch):
    """
    Whatever is wrong with the account, its key is known there.
    """
    with serving(faults=[Fault("get", "code", code=1102)]) as served:
        monkeypatch.setattr(_inquiry, "REGIONS", {served.base_url: "here", "http://127.0.0.1:1": "there"})
        code, found = examined("--base-url", served.base_url)
    assert (1, "ok", "not checked") == (code, *verdicts(found, "region", "balance"))


@pytest.mark.parametrize("variable", ["COMETAPI_KEY", None])
def test_other_keys_have_no_region(examined, regions, monkeypatch, variable):
    """
    CometAPI's key is never sent to another region, and without a key there is nothing to ask.
    """
    monkeypatch.delenv("KLING_API_KEY")
    if variable:
        monkeypatch.setenv(variable, SECRET)
    _, there = regions
    code, found = examined("--try-regions")
    assert (3, "not checked", []) == (code, found["region"]["verdict"], there.calls())


# The clock


@pytest.mark.parametrize(
    "offset, verdict, said",
    [
        (0, "ok", "as the service's"),
        (-30, "ok", "s ahead of the service's"),
        (-90, "warning", "s ahead of the service's"),
        (90, "warning", "s behind the service's"),
    ],
)
def test_the_clock_is_compared_with_the_replys_date(examined, offset, verdict, said):
    """
    More than a minute is a warning.
    """
    with answering(404, NO_TASK, Date=dated(offset)) as host:
        code, found = examined("--base-url", host.base_url)
    assert (0, verdict, True) == (code, found["clock"]["verdict"], said in found["clock"]["message"])


def dated(offset):
    """
    The date of a clock that is so many seconds ahead.
    """
    return format_datetime(datetime.fromtimestamp(time.time() + offset, UTC), usegmt=True)


@pytest.mark.parametrize("offset, verdict", [(-30, "warning"), (3, "ok")])
def test_a_key_pair_wants_an_exact_clock(examined, monkeypatch, offset, verdict):
    """
    Its tokens hold the time, so that five seconds are enough for a warning, which says so.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    monkeypatch.setenv("KLING_ACCESS_KEY", "access")
    monkeypatch.setenv("KLING_SECRET_KEY", "s" * 32)
    with answering(404, NO_TASK, Date=dated(offset)) as host:
        code, found = examined("--base-url", host.base_url)
    clock = found["clock"]
    assert (0, verdict, verdict == "warning") == (code, clock["verdict"], "key pair" in clock["advice"])


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_without_a_date_the_clock_is_not_checked(examined, date):
    """
    A reply that does not tell the time proves nothing.
    """
    with answering(404, NO_TASK, Date=date) as host:
        _, found = examined("--base-url", host.base_url)
    assert "not checked" == found["clock"]["verdict"]


@pytest.mark.parametrize(
    "sent, came, ahead",
    [(100.0, 100.5, 0.0), (101.5, 102.0, 0.5), (98.0, 99.0, -1.0), (99.5, 102.0, 0.0), (100.9, 101.9, 0.0)],
)
def test_only_what_is_certain_counts(sent, came, ahead):
    """
    A date is cut to the second, and the way takes its time: the clock is off by what remains.
    """
    reply = Response(200, {"date": "Thu, 01 Jan 1970 00:01:40 -0000"})
    assert ahead == Heard(reply, sent, came).ahead


async def test_listening_passes_everything_on(tmp_path):
    """
    What listens carries exchanges and downloads alike, and keeps the last reply alone.
    """
    simulator = Simulator()
    url = simulator.publish(b"notes", name="notes.txt")
    listening = Listening(simulator.transport())
    assert 5 == (await listening.download(url, tmp_path / "notes.txt")).size
    assert None is listening.heard
    await listening.aclose()


# The balance


def packs(*listed):
    """
    An answer about packs.
    """
    names = ("status", "remaining_quantity")
    return {"code": 0, "resource_pack_subscribe_infos": [dict(zip(names, pack, strict=True)) for pack in listed]}


@pytest.mark.parametrize(
    "data, verdict, said",
    [
        (packs(("online", 118.0), ("online", "2"), ("expired", 50.0)), "ok", "120 units left in 2 packs"),
        (packs(("online", 1)), "ok", "1 units left in 1 pack,"),
        (packs(("runOut", 0.0)), "warning", "0 units left in 0 packs"),
        ({"code": 0}, "not checked", "lists no packs"),
        (None, "not checked", "lists no packs"),
        ({"resource_pack_subscribe_infos": ["odd"]}, "warning", "0 units"),
    ],
)
def test_what_is_left_is_added_up(data, verdict, said):
    """
    The packs that can be used count, as numbers or as text.
    """
    found = balance_of(data)
    assert (verdict, True) == (found.verdict, said in found.said)


def test_kling_is_asked_for_the_balance(examined, monkeypatch):
    """
    At Kling itself one more free call tells what is left, over the last year.
    """
    # One answer to both calls: a task for the first, packs for the second.
    data = {"task_id": "1", "task_status": "succeed", **packs(("online", 3))}
    with answering(200, json.dumps({"code": 0, "data": data}).encode()) as host:
        monkeypatch.setattr(_inquiry, "REGIONS", {host.base_url: "here", "http://127.0.0.1:1": "there"})
        code, found = examined("--base-url", host.base_url)
        path, _, query = host.seen[1][1].partition("?")
    assert (0, "ok", 3) == (code, found["balance"]["verdict"], found["balance"]["remaining"])
    assert "/kling/account/costs" == path
    assert {"start_time", "end_time"} == {part.partition("=")[0] for part in query.split("&")}


def test_a_balance_that_is_refused_is_not_checked(examined, monkeypatch):
    """
    Where the route is not there, what was seen is told, and nothing fails.
    """
    with serving(api_key=SECRET) as served:
        monkeypatch.setattr(_inquiry, "REGIONS", {served.base_url: "here", "http://127.0.0.1:1": "there"})
        code, found = examined("--base-url", served.base_url)
    assert (0, "not checked", True) == (code, found["balance"]["verdict"], "1202" in found["balance"]["message"])


def test_without_an_accepted_key_there_is_no_balance(examined, regions):
    """
    A key that was refused is not tried on another route.
    """
    here, _ = regions
    _, found = examined()
    assert ("not checked", ["get"]) == (found["balance"]["verdict"], here.calls())


def test_a_fault_that_passes_is_told_as_it_is(examined):
    """
    It asks once: a service that is not well at that moment fails.
    """
    with serving(faults=[Fault("get", "code", code=5000)]) as served:
        code, found = examined("--base-url", served.base_url)
        assert (1, "failed", ["get"]) == (code, found["service"]["verdict"], served.calls())
