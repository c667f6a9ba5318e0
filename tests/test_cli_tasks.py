"""
`tasks` on the command line: shown, listed, waited for and fetched, by either of their ids.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from kling_async.cli._service import Underway, result_name, state_folder
from kling_async.models import Task
from kling_async.simulator import Fault
from tests.answering import answering
from tests.commanding import (
    CLIP,
    REMOVAL,
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    given_simulator,  # noqa: F401 - a fixture
    intent,
    keep,
    serving,
)


@pytest.fixture
def done(run, served):
    """
    What was said of an edit that is done.
    """
    return run("edit", served.clip, *REMOVAL, "--key", "order-7", "--json").event("done")


def test_a_task_is_shown_to_people(run, done):
    """
    Its ids, state, times, cost and link, each whole on a line of its own.
    """
    ended = run("tasks", "show", done["task_id"])
    assert (0, "") == (ended.code, ended.err)
    for said in (done["task_id"], "succeed", "order-7", "3 units", done["video_id"], f"  {done['video_url']}\n"):
        assert said in ended.out


def test_a_task_is_shown_to_programs(run, done):
    """
    With --json the same is one object.
    """
    shown = run("tasks", "show", done["task_id"], "--json").event("task")
    assert (done["video_url"], done["created_at"]) == (shown["video_url"], shown["created_at"])


def test_a_task_is_shown_by_the_id_of_its_create(run, served, done, home):
    """
    --external finds it among the creates kept here, and else at the service.
    """
    kept = run("tasks", "show", "--external", "order-7", "--json").event("task")
    found = run("tasks", "show", "--external", "order-7", "--json", "--state", home / "other").event("task")
    assert done["task_id"] == kept["task_id"] == found["task_id"]


def test_a_running_task_has_no_cost_yet(run, served, monkeypatch):
    """
    Of a task that runs, what is not known is not said.
    """
    monkeypatch.setattr("kling_async.cli._edit.waited", stopped)
    with serving(task_seconds=600) as slow:
        run("edit", slow.clip, *REMOVAL, "--key", "order-7", "--base-url", slow.base_url)
        ended = run("tasks", "show", "--external", "order-7", "--base-url", slow.base_url)
        late = run("tasks", "download", "order-7", "--out", "a.mp4", "--base-url", slow.base_url)
    assert (0, False, False) == (ended.code, "cost" in ended.out, "video" in ended.out)
    assert (2, True, True) == (
        late.code,
        "is still submitted" in late.err,
        "Take it up:  kling-async tasks" in late.err,
    )


async def stopped(*_given, **_named):
    """
    In the place of waiting.
    """
    raise OSError(5, "enough", "disk")


def test_what_the_system_refuses_is_told_with_its_name(run, served, monkeypatch):
    """
    An error of the operating system is one line too, and what was paid for is named after it.
    """
    monkeypatch.setattr("kling_async.cli._edit.waited", stopped)
    ended = run("edit", served.clip, *REMOVAL)
    assert (1, "error: disk: enough") == (ended.code, ended.err.splitlines()[0])
    assert ("goes on at the service and is paid", "Take it up:  kling-async tasks wait ") == tuple(
        said
        for said in ("goes on at the service and is paid", "Take it up:  kling-async tasks wait ")
        if said in ended.err
    )


@pytest.mark.parametrize("words", [(), ("8781", "--external", "order-7")])
def test_exactly_one_id_is_given(run, words):
    """
    Neither id, or both, is wrong usage.
    """
    assert 2 == run("tasks", "show", *words).code


def test_a_task_that_is_not_there_is_an_error(run, served):
    """
    An id that the service does not know ends with 1.
    """
    ended = run("tasks", "show", "8781")
    assert (1, True) == (ended.code, ended.err.startswith("error: the service does not find it: "))


@pytest.mark.parametrize(
    "known, said",
    [
        ({"state": "unknown", "attempts": 1, "first_sent_at": datetime.now(UTC)}, "no answer came"),
        ({"state": "refused", "attempts": 1, "first_sent_at": datetime.now(UTC)}, "Nothing was created"),
        ({}, "Nothing was created"),
    ],
)
def test_a_create_that_is_not_found_is_explained(run, served, known, said):
    """
    Where the service does not find a create, what is kept of it here is said.
    """
    keep(intent("order-8", **known))
    ended = run("tasks", "show", "--external", "order-8")
    assert (1, True) == (ended.code, said in ended.err)
    assert ("state" in known and known["state"] == "unknown") == ("kling-async tasks reconcile\n" in ended.err)


def test_tasks_are_listed(run, served, done):
    """
    Newest first, with head, ids never cut; a page at a time.
    """
    run("edit", served.clip, *REMOVAL, "--key", "order-8-with-a-name-that-is-as-long-as-the-service-will-take-it")
    head, newest, oldest = run("tasks", "list").out.splitlines()
    columns = ["task", "status", "created", "units", "video", "id", "external", "id"]
    assert (columns, True, True) == (head.split(), done["task_id"] in oldest, f"  3      {done['video_id']}" in oldest)
    assert newest.endswith("order-8-with-a-name-that-is-as-long-as-the-service-will-take-it")
    page = run("tasks", "list", "--page", 2, "--page-size", 1, "--json")
    assert [done["task_id"]] == [event["task_id"] for event in page.events]


def test_an_empty_list_says_so(run, served):
    """
    Without tasks there is a word for people and nothing for programs.
    """
    assert ("none\n", "") == (run("tasks", "list").out, run("tasks", "list", "--json").out)


def test_a_list_has_limits(run, served):
    """
    Pages outside of the documented range are wrong input.
    """
    assert (2, 2) == (run("tasks", "list", "--page", 0).code, run("tasks", "list", "--page-size", 501).code)


def test_where_the_host_has_no_list_the_kept_creates_are_listed(run):
    """
    CometAPI documents no list: the creates kept here for it are listed, newest first, and it is said so.
    """
    now = datetime.now(UTC)
    keep(
        intent("order-1", created_at=now - timedelta(hours=1), task_id="8781", state="accepted"),
        intent("order-2", created_at=now),
        intent("elsewhere", base_url="https://other.example/kling"),
    )
    ended = run("tasks", "list")
    head, newest, oldest = ended.out.splitlines()
    assert (0, "task", "order-2", True) == (ended.code, head.split()[0], newest.split()[-1], "8781" in oldest)
    assert "documents no list of tasks" in ended.err
    assert "intents.sqlite" in ended.err
    paged = run("tasks", "list", "--page", 2, "--page-size", 1, "--json")
    assert [("intent", "order-1")] == [(event["event"], event["external_task_id"]) for event in paged.events]


@pytest.fixture
def three(run):
    """
    A simulator with three tasks, of which the second failed; their ids, newest first.
    """
    with serving(faults=[Fault("task", "failed", after=1)]) as served:
        service = ("--base-url", served.base_url)
        for name in ("order-1", "order-2", "order-3"):
            run("edit", served.clip, *REMOVAL, "--key", name, *service, "--force")
        yield service


@pytest.mark.parametrize(
    "words, named",
    [
        (("--all",), ["order-3", "order-2", "order-1"]),
        (("--status", "failed"), ["order-2"]),
        (("--status", "failed", "--status", "succeed"), ["order-3", "order-2", "order-1"]),
        (("--status", "processing"), []),
        (("--page-size", 2), ["order-3", "order-2"]),
    ],
)
def test_the_whole_account_can_be_listed(run, three, words, named):
    """
    --all goes through every page, --status keeps what has one of these, and without both there is one page.
    """
    ended = run("tasks", "list", *words, "--json", *three)
    assert (0, named) == (ended.code, [event["external_task_id"] for event in ended.events])


@pytest.mark.parametrize("words", [("--all",), ("--status", "failed")])
def test_what_is_not_paged_has_no_pages(run, served, words):
    """
    A page of all, or of what is looked for on all, is wrong usage.
    """
    ended = run("tasks", "list", "--page", 2, *words)
    assert (2, True, []) == (ended.code, "leave --page out" in ended.err, served.calls())


def test_a_status_is_not_known_without_a_list(run):
    """
    Where the host documents no list, the kept creates can all be listed, but not by their tasks' status.
    """
    keep(*(intent(f"order-{number}") for number in range(31)))
    assert (30, 31) == (
        len(run("tasks", "list", "--json").events),
        len(run("tasks", "list", "--all", "--json").events),
    )
    ended = run("tasks", "list", "--status", "failed")
    assert (2, True) == (ended.code, "--status is not known" in ended.err)


def test_every_video_of_a_task_is_shown(run):
    """
    A task may have several videos: each is shown with its id, length, link and watermarked copy.
    """
    videos = [{"id": f"v-{number}", "url": f"https://x.example/{number}.mp4", "duration": "5"} for number in (1, 2)]
    videos[1]["watermark_url"] = "https://x.example/2-marked.mp4"
    data = {"task_id": "8781", "task_status": "succeed", "task_result": {"videos": videos}}
    with answering(body=orjson.dumps({"code": 0, "data": data})) as host:
        ended = run("tasks", "show", "8781", "--base-url", host.base_url)
        task = run("tasks", "show", "8781", "--json", "--base-url", host.base_url).event("task")
    rows = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert ["v-1", "5 s", "https://x.example/1.mp4", "v-2", "5 s", "https://x.example/2.mp4"] == [
        value.removeprefix("id").strip() for name, value in rows if name in {"video", "length"}
    ]
    assert ["watermarked", "https://x.example/2-marked.mp4"] in rows
    assert (["v-1", "v-2"], "v-1") == ([video["video_id"] for video in task["videos"]], task["video_id"])


def test_waiting_ends_with_the_link(run, served, done):
    """
    Without a file to fetch it to, waiting ends with the link and how long it lives.
    """
    ended = run("tasks", "wait", done["task_id"])
    assert (0, True, True) == (ended.code, done["video_url"] in ended.out, "30 days" in ended.out)
    assert None is run("tasks", "wait", "order-7", "--json").event("done")["path"]


@pytest.mark.parametrize("command", ["wait", "download"])
@pytest.mark.parametrize("name", ["order-7", None])
def test_a_result_is_fetched_by_either_id(run, done, home, command, name):
    """
    Both commands leave the result in the file that they were given.
    """
    ended = run("tasks", command, name or done["task_id"], "--out", "a.mp4", "--json")
    assert (0, "a.mp4") == (ended.code, ended.event("done")["path"])
    assert CLIP.read_bytes() == (home / "a.mp4").read_bytes()


def test_a_result_without_a_name_goes_into_this_folder(run, done, home):
    """
    Without --out a result is fetched to a file named after its task, as an edit's is.
    """
    (home / f"kling-{done['task_id']}.mp4").unlink()
    assert f"kling-{done['task_id']}.mp4" == run("tasks", "download", "order-7", "--json").event("done")["path"]
    assert CLIP.read_bytes() == (home / f"kling-{done['task_id']}.mp4").read_bytes()


@pytest.mark.parametrize("command", ["wait", "download"])
def test_a_file_that_is_there_stays(run, served, done, home, command):
    """
    Nothing is replaced without --force.
    """
    (home / "a.mp4").write_bytes(b"old")
    assert (2, b"old") == (run("tasks", command, "order-7", "--out", "a.mp4").code, (home / "a.mp4").read_bytes())
    assert 0 == run("tasks", command, "order-7", "--out", "a.mp4", "--force").code
    assert CLIP.read_bytes() == (home / "a.mp4").read_bytes()


@pytest.mark.parametrize("command", ["wait", "download"])
def test_a_failed_task_ends_with_one(run, command):
    """
    A task that failed has nothing to wait for or to fetch, and its reason is said.
    """
    with serving(faults=[Fault("task", "failed", message="bad luck")]) as served:
        service = ("--base-url", served.base_url)
        run("edit", served.clip, *REMOVAL, "--key", "order-7", *service)
        ended = run("tasks", command, "order-7", "--out", "a.mp4", *service)
        shown = run("tasks", "show", "--external", "order-7", *service)
    assert (1, True, False) == (ended.code, "failed: bad luck" in ended.err, "Take it up" in ended.err)
    assert "failed: bad luck" in shown.out


def test_state_is_kept_where_programs_keep_it(monkeypatch, home):
    """
    XDG_STATE_HOME where it is absolute, else ~/.local/state; on Windows the local application data.
    """
    assert home / "state" / "kling-async" == state_folder()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert home / ".local" / "state" / "kling-async" == state_folder()
    monkeypatch.setattr("kling_async.cli._service.sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(home / "data"))
    assert home / "data" / "kling-async" == state_folder()
    monkeypatch.delenv("LOCALAPPDATA")
    assert home / "AppData" / "Local" / "kling-async" == state_folder()


def test_a_state_folder_that_cannot_be_used_is_an_error(run, home):
    """
    Where intents cannot be written nothing is sent at all.
    """
    (home / "file").write_bytes(b"")
    ended = run("tasks", "list", "--state", "file")
    assert (1, True) == (ended.code, "intents.sqlite cannot be used" in ended.err)


def test_a_result_without_a_name_is_named_after_its_task():
    """
    What a service puts into an id never leads to another folder.
    """
    assert Path("kling-___etc_passwd.mp4") == result_name(Task(task_id="../etc/passwd", status="succeed"))


@pytest.mark.parametrize("idle, said", [("", ()), ("Nothing is paid.", ("Nothing is paid.",))])
def test_nothing_underway_has_little_to_say(idle, said):
    """
    As long as nothing runs, only the command's own words are said.
    """
    assert (said, None) == (Underway(idle=idle).lines, Underway(idle=idle).take_up)
