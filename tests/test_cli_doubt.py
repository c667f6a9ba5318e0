"""
Creates in doubt on the command line: looked for while people watch, told of, and settled with `tasks reconcile`.
"""

import signal
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from kling_async import KlingClient
from kling_async.cli._show import Show
from kling_async.simulator import Fault, Shape
from tests.commanding import (
    REMOVAL,
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    given_simulator,  # noqa: F401 - a fixture
    intent,
    keep,
    serving,
)

SOON = ("--doubt", "0.2")
"""Looks three times in that, with nobody to wait for."""
BLIND = Shape(finds_external_ids=False, lists=False)
"""A host on which nothing is found again."""
LATE = Shape(lists=False)
"""A host that finds external ids, but for a while not these: `unfound` says for how many looks."""


def unfound(times):
    """
    Looks at tasks that find none.
    """
    return Fault("get", "missing", times=times)


@pytest.fixture
def interrupt(monkeypatch):
    """
    Makes Ctrl-C arrive as soon as a create is said to be in doubt.
    """
    said = Show.event

    def event(self, name, facts):
        said(self, name, facts)
        if name == "doubt":
            signal.raise_signal(signal.SIGINT)

    return lambda: monkeypatch.setattr(Show, "event", event)


def lost(run, served, *words):
    """
    An edit whose create is answered, but not to us.
    """
    served.simulator.script(Fault("create", "lost"))
    return run("edit", served.clip, *REMOVAL, *SOON, "--base-url", served.base_url, *words)


# While an edit is made


def test_a_lost_create_is_looked_for_and_found(run, served):
    """
    When the answer to the paid call is lost, people and programs are told that its task is looked for, and it is found.
    """
    ended = lost(run, served, "--key", "order-7", "--json")
    assert (0, {"order-7": 1}) == (ended.code, served.simulator.charges)
    assert ["session", "mask", "preview", "create", "doubt", "task", "done"] == ended.names
    assert {"external_task_id": "order-7", "seconds": 0.2}.items() <= ended.event("doubt").items()
    looking = "no usable answer came to the paid create order-7: looking for its task for 0.2 s at most"
    assert [f"warning: {looking}"] == [line for line in ended.err.splitlines() if "warning" in line]


def test_a_terminal_shows_for_how_long_it_looks(run, served, monkeypatch):
    """
    On a terminal the live line of the paid call says so too.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = lost(run, served)
    assert (0, True) == (ended.code, "\x1b[0m looking for its task for 0.2 s at most " in ended.out)


def test_by_default_it_looks_for_a_minute_and_a_half(run, served, interrupt):
    """
    As the library does.
    """
    interrupt()
    served.simulator.script(Fault("create", "lost"))
    ended = run("edit", served.clip, *REMOVAL, "--json")
    assert (130, 90.0) == (ended.code, ended.event("doubt")["seconds"])


def test_a_create_that_is_not_found_is_told_with_what_settles_it(run, home):
    """
    After the warning one line says what happened and one what to do, with the options that the command had.
    """
    with serving(shape=BLIND) as served:
        ended = lost(run, served, "--key", "order-7", "--state", home / "my state")
    _, what, advice = ended.err.splitlines()
    assert 1 == ended.code
    assert what.startswith("error: no usable answer came to the paid create order-7, sent 20")
    assert what.endswith(": its task was not found, and may exist and be charged all the same")
    command = f"kling-async tasks reconcile --base-url {served.base_url} --state '{home}/my state'"
    assert f"Before you pay again, look for it once more:  {command}" == advice


def test_a_create_that_is_not_found_is_told_to_programs(run):
    """
    Its external id, what is known, and the command stand in the error.
    """
    with serving(shape=BLIND) as served:
        error = lost(run, served, "--key", "order-7", "--json").event("error")
    known = ("UnknownOutcomeError", "order-7", False, f"kling-async tasks reconcile --base-url {served.base_url}")
    assert known == tuple(error[name] for name in ("error", "external_task_id", "absent", "take_up"))


def test_a_create_that_is_proven_absent_has_words_of_its_own(run, served):
    """
    On a host that finds the ids of others, that it shows no such task most likely means that nothing was paid.
    """
    run("edit", served.clip, *REMOVAL, "--key", "order-6")
    served.simulator.script(Fault("create", "code", code=5000))
    ended = run("edit", served.clip, *REMOVAL, *SOON, "--key", "order-7")
    _, what, advice = ended.err.splitlines()
    assert (1, {"order-6": 1}) == (ended.code, served.simulator.charges)
    assert what.endswith(": the service finds tasks by such ids and shows none, so most likely nothing was paid")
    assert "Before you pay again, under another --key, make sure:  kling-async tasks reconcile" == advice


def test_a_key_in_doubt_is_not_paid_again(run, served):
    """
    A key whose create was never answered and that is not found is looked for once more, and is no other create.
    """
    served.simulator.script(Fault("create", "cut"))
    words = ("edit", served.clip, *REMOVAL, "--key", "order-7", *SOON)
    assert 1 == run(*words).code
    again = run(*words, "--json")
    assert (1, ["doubt", "error"], "UnknownOutcomeError") == (again.code, again.names, again.event("error")["error"])
    assert ({}, 1) == (served.simulator.charges, served.calls().count("create"))


def test_a_key_in_doubt_that_is_found_goes_on(run):
    """
    The same command again finds the task by then, opens no selection, and ends with the file.
    """
    with serving(shape=LATE) as served:
        # One look before the create, three after it.
        served.simulator.script(unfound(4))
        assert 1 == lost(run, served, "--key", "order-7").code
        calls = len(served.calls())
        again = run("edit", served.clip, *REMOVAL, "--key", "order-7", *SOON, "--base-url", served.base_url)
        assert (0, {"order-7": 1}, {"get"}) == (again.code, served.simulator.charges, set(served.calls()[calls:]))
    assert "nothing is paid again" in again.out


def test_interrupted_while_it_looks_it_does_not_say_that_nothing_is_paid(run, interrupt):
    """
    A key that is in doubt from an earlier run may stand for a task, whatever this run has sent.
    """
    with serving(shape=BLIND) as served:
        assert 1 == lost(run, served, "--key", "order-7").code
        interrupt()
        ended = run("edit", served.clip, *REMOVAL, "--key", "order-7", *SOON, "--base-url", served.base_url)
    assert 130 == ended.code
    assert "The paid create order-7 was on its way: a task may exist and be charged.\n" in ended.err
    assert ended.err.endswith(f"Look for it:  kling-async tasks reconcile --base-url {served.base_url}\n")


@pytest.mark.parametrize("words", [("edit", "https://x.example/a.mp4", *REMOVAL), ("tasks", "reconcile")])
@pytest.mark.parametrize("seconds, said", [("0", "--doubt: must be more than 0"), ("soon", "--doubt")])
def test_what_is_no_number_of_seconds_is_wrong_usage(run, home, words, seconds, said):
    """
    It is said before anything is opened.
    """
    ended = run(*words, "--doubt", seconds)
    assert (2, "", True) == (ended.code, ended.out, said in ended.err)
    assert not (home / "state").exists()


# Later


def rows(ended):
    """
    The rows of the table: ids and verdicts, without the times between them.
    """
    head, *rest = [line.split() for line in ended.out.splitlines() if line.startswith("  ")]
    assert ["external", "id", "sent", "verdict"] == head
    return [(name, " ".join(said)) for name, _day, _time, *said in rest]


@pytest.mark.parametrize("count", [1, 2])
def test_what_exists_is_found_later(run, count):
    """
    The task of each is named with the command that waits for it, and none is in doubt any more.
    """
    with serving(shape=LATE) as served:
        for _ in range(count):
            served.simulator.script(unfound(3))
            assert 1 == lost(run, served).code
        service = ("--base-url", served.base_url)
        ended = run("tasks", "reconcile", *SOON, *service)
        tasks = {name: shown(run, name, *service) for name in served.simulator.charges}
        again = run("tasks", "reconcile", *SOON, *service)
        assert count == len(tasks) == served.calls().count("create")
    assert (0, "") == (ended.code, ended.err)
    assert {(name, f"found: task {task}, succeed") for name, task in tasks.items()} == set(rows(ended))
    assert ("1 paid create looked for" if count == 1 else "2 paid creates looked for") in ended.out
    word, _, command = ended.out.splitlines()[-1].partition(":  ")
    assert word == ("Wait for it" if count == 1 else "Wait for each, such as")
    assert command in {f"kling-async tasks wait {task} {' '.join(service)}" for task in tasks.values()}
    assert (0, f"no paid create at {served.base_url[7:-6]} is in doubt\n") == (again.code, again.out)


def shown(run, name, *service):
    """
    The id of the task of a create.
    """
    return run("tasks", "show", "--external", name, "--json", *service).event("task")["task_id"]


@pytest.mark.parametrize(
    "age, said",
    [(120, "not there: nothing was paid"), (5, "not there so far: most likely nothing was paid")],
)
def test_what_is_proven_absent_was_not_paid(run, served, age, said):
    """
    That settles it: 0, and how to pay for it after all. Of one that was sent just now it is not said so firmly.
    """
    run("edit", served.clip, *REMOVAL, "--key", "order-6")
    sent = datetime.now(UTC) - timedelta(seconds=age)
    keep(intent("order-7", state="unknown", first_sent_at=sent, base_url=served.base_url))
    ended = run("tasks", "reconcile", *SOON)
    assert (0, [("order-7", said)]) == (ended.code, rows(ended))
    assert ended.out.endswith("To pay for what is not there, run its edit again under another --key.\n")


def test_what_stays_unknown_ends_with_one(run):
    """
    Where the host finds nothing again, the provider's console is left to look at.
    """
    with serving(shape=BLIND) as served:
        lost(run, served, "--key", "order-7")
        ended = run("tasks", "reconcile", *SOON, "--base-url", served.base_url)
    assert (1, [("order-7", "still unknown")]) == (ended.code, rows(ended))
    assert ended.err.startswith("What is still unknown may be charged: before you pay again, look in")


def test_what_another_command_is_at_is_left_to_it(run, served):
    """
    A create that is underway is no leftover: it is named, and no reason to fail.
    """
    keep(intent("order-7", state="sending", base_url=served.base_url), owned=True)
    ended = run("tasks", "reconcile", *SOON)
    assert (0, True, []) == (ended.code, "  another command is at it\n" in ended.out, served.calls())


def test_creates_of_other_hosts_are_left_alone(run, served):
    """
    The key here is not for them.
    """
    keep(intent("order-7", state="unknown", base_url="https://other.example/kling"))
    ended = run("tasks", "reconcile", "--json")
    counts = {"event": "done", "found": 0, "absent": 0, "unknown": 0, "underway": 0, "exit_code": 0}
    assert (0, [counts], []) == (ended.code, ended.events, served.calls())


def test_all_verdicts_are_told_to_programs(run, served, home):
    """
    One object for each create, the task with it where there is one, and one that counts them.
    """
    run("edit", served.clip, *REMOVAL, "--key", "order-6", "--state", home / "another")
    keep(
        intent("order-6", state="sending", base_url=served.base_url),
        intent("order-7", state="unknown", base_url=served.base_url),
        intent("order-8", state="unknown", base_url=served.base_url, account="another"),
    )
    keep(intent("order-9", state="sending", base_url=served.base_url), owned=True)
    ended = run("tasks", "reconcile", *SOON, "--json")
    told = {event["external_task_id"]: event for event in ended.events if event["event"] == "reconciled"}
    assert {"order-6": "found", "order-7": "absent", "order-8": "unknown", "order-9": "underway"} == {
        name: event["verdict"] for name, event in told.items()
    }
    assert "succeed" == told["order-6"]["status"]
    assert {None} == {told[name]["task_id"] for name in ("order-7", "order-8", "order-9")}
    done = {"event": "done", "found": 1, "absent": 1, "unknown": 1, "underway": 1, "exit_code": 1}
    assert (1, done) == (ended.code, ended.events[-1])


def test_one_that_comes_to_be_in_doubt_meanwhile_is_told_too(run, served, monkeypatch):
    """
    Another command may be killed just then; when its create was sent is not known here.
    """
    reconcile = KlingClient.reconcile

    async def later(client):
        await client.creates.store.put(intent("order-8", state="unknown", base_url=client.base_url))
        await client.creates.store.release(intent("order-8"))
        return await reconcile(client)

    keep(intent("order-7", state="unknown", base_url=served.base_url))
    monkeypatch.setattr(KlingClient, "reconcile", later)
    ended = run("tasks", "reconcile", *SOON)
    assert (1, 2) == (ended.code, ended.out.count("still unknown"))


def test_looking_can_be_interrupted(run, served, monkeypatch):
    """
    Ctrl-C ends it with 130, and what was not found yet stays in doubt.
    """

    async def endless(_client):
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    keep(intent("order-7", state="unknown", base_url=served.base_url))
    monkeypatch.setattr(KlingClient, "reconcile", endless)
    ended = run("tasks", "reconcile")
    assert (130, "interrupted\nWhat was not found yet stays in doubt.\n") == (ended.code, ended.err)


def test_a_terminal_shows_what_is_looked_for(run, served, monkeypatch):
    """
    On a terminal a live line says how many, and for how long.
    """
    keep(intent("order-7", state="unknown", base_url=served.base_url))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = run("tasks", "reconcile", *SOON)
    assert "looking for 1 paid create, for 0.2 s at most each" in ended.out
