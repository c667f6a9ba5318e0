"""
Errors as people read them: what happened and what to do, in two lines at most and in the command line's own words.
"""

import errno
from datetime import UTC, datetime

import pytest

from kling_async import (
    DecodeError,
    DownloadError,
    NotSentError,
    SelectionDirtyError,
    SqliteStore,
    StoreError,
    UnknownOutcomeError,
)
from kling_async.cli._reach import Stage, reach
from kling_async.cli._service import Service
from kling_async.cli._words import words
from kling_async.simulator import Fault
from tests.answering import answering
from tests.commanding import (
    REMOVAL,
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    picture,
    serving,
)

STRANGE = ("Traceback", "get_task", "Error(", "open_transport", "ssl_context", "Point.", "rebuild(", "<html", "{")
"""What speaks to those who program, or is a foreign page."""


def read(ended):
    """
    What is said: the first line without its head, and the second.
    """
    lines = ended.err.splitlines()
    assert [line for line in lines if any(word in line for word in STRANGE)] == []
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: "), lines[1] if len(lines) == 2 else ""


@pytest.mark.parametrize(
    "faults, code, what, advice",
    [
        ([Fault("init", "code", code=1201, message="bad clip")], 1, "refused: bad clip (1201, HTTP 400", "its doc"),
        ([Fault("init", "code", code=5001, times=3)], 1, "temporarily unavailable (5001, HTTP 503", "Try again later"),
        ([Fault("init", "rejected")], 2, "cannot use this clip (data.status 1)", ""),
        ([Fault("init", "cut", times=3)], 4, "the connection broke before the whole answer", "Try again. Look closer:"),
        ([Fault("init", "html", times=3)], 1, "a web page in place of an answer (HTTP 502)", "Try again later"),
        ([Fault("init", "wrong_path")], 1, "does not know this path", "Check --base-url: CometAPI's address ends in"),
        ([Fault("init", "redirect")], 1, "but not as this service does: HTTP 307", "Check --base-url"),
        ([Fault("init", "html", status=200)], 1, "but not as this service does: HTTP 200", "Check --base-url"),
        ([Fault("add", "rejected")], 1, "recognised nothing at these points", "Mark other points"),
        ([Fault("create", "code", code=1301)], 1, "content security policy", "Change the prompt or the pictures"),
        ([Fault("create", "code", code=1303)], 1, "as many tasks run as", "nothing is paid. See them:  kling-async"),
        (
            [Fault("create", "code", code=1302, times=3)],
            1,
            "over the platform rate limit",
            "try again; nothing was done",
        ),
        ([Fault("create", "code", code=1102)], 1, "the account was refused: Account balance not", "Top up, or buy"),
        ([Fault("create", "code", code=1103)], 1, "the account was refused: no permission", "ask for the right"),
        ([Fault("create", "code", code=1304)], 1, "the account was refused: IP whitelist", "this machine's address"),
        ([Fault("create", "gateway", status=503, word="model_not_found")], 1, "(model_not_found, HTTP 503", "Try "),
        ([Fault("task", "failed")], 1, "Failure to pass the risk control", "Change the prompt or the pictures"),
        ([Fault("task", "failed", message="bad luck")], 1, "failed: bad luck", "A failed task is not charged."),
        ([Fault("media", "status", status=403)], 1, "the link has expired", "Fetch it:  kling-async tasks download"),
        ([Fault("media", "truncated", times=3)], 1, "the file broke off", "Fetch it:  kling-async tasks download"),
        ([Fault("media", "status", status=418)], 1, "HTTP 418", "Fetch it:  kling-async tasks download"),
    ],
)
def test_what_a_service_does_is_told_in_two_lines(run, faults, code, what, advice):
    """
    Each refusal, failure and fault says what happened and what to do about it.
    """
    with serving(faults=faults) as served:
        ended = run("edit", served.clip, *REMOVAL, "--base-url", served.base_url)
    said = read(ended)
    assert (code, True, True) == (ended.code, what in said[0], advice in said[1]), said


def test_a_wrong_key_names_its_variable(run, monkeypatch):
    """
    A key that is refused ends with 3; its variable is named, its value is not, and doctor is offered.
    """
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-4711")
    with serving(api_key="right") as served:
        ended = run("tasks", "list", "--base-url", served.base_url)
    what, advice = read(ended)
    assert (3, True) == (ended.code, what.startswith("the key was refused: Authorization is invalid (1002, HTTP 401"))
    assert advice.startswith("Check COMETAPI_KEY: a key of another service or region is refused just so.")
    assert advice.endswith(f" Look closer:  kling-async doctor --base-url {served.base_url}")
    assert "4711" not in ended.err


@pytest.mark.parametrize("code, advice", [(1003, "Set this machine's clock"), (1002, "Check KLING_ACCESS_KEY and")])
def test_a_token_refused_for_its_time_is_a_matter_of_the_clock(run, monkeypatch, code, advice):
    """
    A key pair signs with the time, so that these refusals speak of the clock.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    monkeypatch.setenv("KLING_ACCESS_KEY", "access")
    monkeypatch.setenv("KLING_SECRET_KEY", "s" * 32)
    with serving(faults=[Fault("list", "code", code=code, times=2)]) as served:
        ended = run("tasks", "list", "--base-url", served.base_url)
    assert (3, True) == (ended.code, read(ended)[1].startswith(advice))


@pytest.mark.parametrize(
    "variables, said",
    [
        ({}, "no usable key: set COMETAPI_KEY, or KLING_API_KEY, or KLING_ACCESS_KEY with KLING_SECRET_KEY"),
        ({"COMETAPI_KEY": "a b"}, "COMETAPI_KEY holds a space"),
        ({"KLING_API_KEY": "Bearer x"}, "KLING_API_KEY must be the key alone"),
        ({"KLING_ACCESS_KEY": "a b", "KLING_SECRET_KEY": "x"}, "KLING_ACCESS_KEY holds a space"),
    ],
)
def test_a_key_that_cannot_be_one_names_its_variable(run, monkeypatch, variables, said):
    """
    Without a usable key nothing is opened, and one line says which variable is meant.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = run("tasks", "list")
    assert (3, True) == (ended.code, read(ended)[0].startswith(said))


@pytest.mark.parametrize("origin", ["--base-url", "KLING_BASE_URL"])
def test_an_address_that_cannot_be_one_names_where_it_comes_from(run, monkeypatch, origin):
    """
    The option is named where it was given, else the variable.
    """
    monkeypatch.setenv("KLING_BASE_URL", "http://example.com")
    words = ("--base-url", "http://example.com") if origin == "--base-url" else ()
    ended = run("tasks", "list", *words)
    assert (2, True) == (ended.code, read(ended)[0].startswith(f"{origin}: must be https; plain http is for"))


@pytest.mark.parametrize(
    "base_url, what, advice",
    [
        ("http://127.0.0.1:1/kling", "127.0.0.1:1 cannot be reached: nobody listens there", "Check the network and"),
        ("https://nowhere.invalid/kling", "nowhere.invalid cannot be reached: its name is not known here", "Check the"),
    ],
)
def test_a_host_that_is_not_there(run, base_url, what, advice):
    """
    A closed port and an unknown name end with 4, and doctor is offered for the same host.
    """
    ended = run("tasks", "show", "8781", "--base-url", base_url)
    said = read(ended)
    assert (4, what, True) == (ended.code, said[0], said[1].startswith(advice))
    assert said[1].endswith(f"Look closer:  kling-async doctor --base-url {base_url}")


def test_a_proxy_that_is_not_there_is_named_without_its_password(run, monkeypatch):
    """
    What stands in between is said, and its credentials are not.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:1")
    ended = run("tasks", "show", "8781")
    what = "api.cometapi.com through the proxy http://127.0.0.1:1 cannot be reached: nobody listens there"
    assert (4, what) == (ended.code, read(ended)[0])


def test_a_certificate_that_fails_is_told(run, home):
    """
    An unknown authority ends with 4, and how to trust one is said.
    """
    with answering(certificate=home) as host:
        ended = run("tasks", "show", "8781", "--base-url", host.base_url)
    what, advice = read(ended)
    assert (4, True) == (ended.code, "cannot be trusted: its certificate does not verify (self-signed" in what)
    assert "SSL_CERT_FILE" in advice


def test_a_host_without_tls_is_told(run):
    """
    Speaking https to a host that speaks http is a failure of TLS.
    """
    with answering() as host:
        ended = run("tasks", "show", "8781", "--base-url", host.base_url.replace("http:", "https:"))
    assert (4, True) == (ended.code, "it does not speak TLS" in read(ended)[0])


@pytest.mark.parametrize(
    "cause, stage, reason",
    [
        (ConnectionResetError(), Stage.TLS, "the connection was cut at its beginning"),
        (TimeoutError(), Stage.CONNECTION, "it does not answer"),
        (OSError(errno.ENETUNREACH, "unreachable"), Stage.CONNECTION, "there is no way to its network"),
        (OSError(errno.EMFILE, "too many files"), Stage.CONNECTION, "too many files"),
        (None, Stage.CONNECTION, "too many files"),
    ],
)
def test_how_far_a_request_came_is_read_from_the_systems_error(cause, stage, reason):
    """
    What the system said decides, wherever it stands in the chain; else the library's own words.
    """
    error = NotSentError("x.example: no connection: too many files")
    error.__cause__ = RuntimeError("wrapped")
    error.__cause__.__cause__ = cause
    assert (stage, reason) == (reach(error).stage, reach(error).reason)


def test_an_unknown_task_is_told(run):
    """
    An id that the service does not know ends with 1, and says whose ids are known.
    """
    with serving() as served:
        ended = run("tasks", "wait", "8781", "--base-url", served.base_url)
    what, advice = read(ended)
    assert (1, True) == (ended.code, what.startswith("the service does not find it: task '8781' does not exist (1203,"))
    assert "the account and the host that gave it" in advice


def test_an_error_is_told_to_programs_with_its_parts(run):
    """
    With --json the object holds both lines, and code, status and request id of a refusal.
    """
    with serving(faults=[Fault("get", "code", code=1103)]) as served:
        error = run("tasks", "show", "8781", "--json", "--base-url", served.base_url).event("error")
    assert ("AccountError", 1103, 403, 1) == (error["error"], error["code"], error["status"], error["exit_code"])
    assert error["request_id"] in error["message"]
    assert "ask for the right" in error["advice"]


@pytest.mark.parametrize(
    "given, said",
    [
        (("--image", "small.png"), "--image: small.png is 10 x 10; both sides must have 300 pixels or more"),
        (("--image", "none.png"), "--image: none.png cannot be read: No such file or directory"),
        (("--image", "small.png", "--point", "40:640,360"), "--point: 40:640,360: x must lie from 0 to 1, so divide"),
        (("--image", "good.png", "--point", "400:0.5,0.5"), "--point: 400 lies beyond the clip's 96 frames"),
        (("--image", "good.png", "--key", "a b"), "--key: must be made of"),
        (("--image", "good.png", "--prompt", " "), "--prompt: must say what to do"),
        (("--image", "good.png", "--out", "none/a.mp4"), "--out: none/a.mp4: there is no folder none, make it first"),
        (("--image", "good.png", "--out", "good.png"), "--out: good.png exists: give another name, or --force"),
    ],
)
def test_wrong_input_names_the_option(run, home, given, said):
    """
    One line that begins with the option to change.
    """
    (home / "small.png").write_bytes(picture(10))
    (home / "good.png").write_bytes(picture())
    with serving() as served:
        ended = run("edit", served.clip, "--add", "a hat", *given, "--yes", "--base-url", served.base_url)
    what, advice = read(ended)
    assert (2, True, "") == (ended.code, what.startswith(said), advice)


def test_a_state_folder_that_cannot_be_used_is_told(run, home):
    """
    Where creates cannot be remembered nothing is sent, and the option for another folder is named.
    """
    (home / "file").write_bytes(b"")
    ended = run("tasks", "list", "--state", "file")
    assert (1, True) == (ended.code, read(ended)[1].startswith("Nothing was sent. Make that file usable, or name"))


@pytest.mark.parametrize("state, code", [("sending", 1), ("accepted", 0)])
def test_a_store_that_fails_hides_no_task(run, monkeypatch, state, code):
    """
    Before the create nothing was sent, and that is said; after it the paid task is gone on with.
    """
    put = SqliteStore.put

    async def full(self, intent):
        if intent.state == state:
            raise StoreError("intents.sqlite cannot be used: disk full")
        return await put(self, intent)

    monkeypatch.setattr(SqliteStore, "put", full)
    with serving() as served:
        ended = run("edit", served.clip, *REMOVAL, "--base-url", served.base_url)
        assert (code, code == 0) == (ended.code, bool(served.simulator.charges))
    if code:
        what, advice = read(ended)
        assert "intents.sqlite cannot be used: disk full" == what
        assert advice.startswith("Nothing was sent.")


def test_wrong_usage_points_at_the_help_of_its_command(run):
    """
    The line names the help that lists the options.
    """
    assert read(run("tasks", "wait", "--nonsense"))[0].endswith("See kling-async tasks wait --help.")
    assert read(run("nonsense"))[0].endswith("See kling-async --help.")


@pytest.mark.parametrize(
    "error, what, advice",
    [
        (DecodeError("the mask makes no sense"), "the mask makes no sense", ""),
        (SelectionDirtyError([3]), "what the service holds for frame 3 is not known", "Run the command again"),
        (DownloadError("x.example: HTTP 404 instead of the file; look", status=404), "x.example: HTTP 404", "30 days"),
        (DownloadError("x.example: broke off (3 of 7"), "x.example: the file broke off", "Try again"),
        (DownloadError("x.example: more than 3 redirects"), "x.example: more than 3 redirects", ""),
        (FileNotFoundError(2, "No such file", "a.mp4"), "a.mp4: No such file", ""),
        (OSError("odd"), "odd", ""),
        (
            UnknownOutcomeError(external_task_id="k", attempts=1, first_sent_at=datetime(2026, 1, 1, tzinfo=UTC)),
            "no usable answer came to the paid create k, sent 202",
            "Before you pay again, look for it once more:  kling-async tasks reconcile",
        ),
    ],
)
def test_errors_without_a_service_have_words_too(error, what, advice):
    """
    What no request can be blamed for is said as it is; notes of the library take the place of the advice.
    """
    told = words(error, Service())
    assert (True, advice in told.advice) == (told.what.startswith(what), True)
    error.add_note("noted")
    assert "noted" == words(error, Service()).advice


def test_what_answers_in_place_of_the_default_host_is_told(monkeypatch):
    """
    Where nobody named the host there is no option to check: something else may answer for it.
    """
    assert "in its place" in words(DecodeError("HTTP 200", status=200), Service()).advice
    monkeypatch.delenv("COMETAPI_KEY")
    assert "Check KLING_BASE_URL" in words(DecodeError("HTTP 200", status=200), Service()).advice
