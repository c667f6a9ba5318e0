"""
`batch` on the command line: from a manifest to results, stopped and gone on with, asked about and cancelled.
"""

import signal
import sqlite3
import sys
from contextlib import closing
from decimal import Decimal
from io import StringIO
from pathlib import Path

import anyio
import orjson
import pytest
from rich.console import Console

from kling_async import PollPolicy, SqliteStore
from kling_async.cli import _batch_end, _batch_home, _batch_watch
from kling_async.cli._batch_end import advice, reason
from kling_async.cli._batch_home import Home
from kling_async.cli._batch_watch import BatchStage, BatchUnderway, figures, units, why
from kling_async.cli._codes import UsageError
from kling_async.cli._service import Service
from kling_async.cli._show import Show
from kling_async.dbos import BatchResult, BatchStatus, DbosRunner, _work
from kling_async.manifest import read_manifest
from kling_async.simulator import Fault
from tests.answering import answering
from tests.commanding import (
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    given_simulator,  # noqa: F401 - a fixture
    picture,
    serving,
)

pytestmark = pytest.mark.real_clock

FOLDER = ("--out", "out")
EMPTY = "1102: Account balance not enough"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """
    Looks follow each other closely, and no sheet is drawn.
    """
    monkeypatch.setattr(_batch_watch, "LOOK", 0.02)
    monkeypatch.setattr(_batch_home, "POLLING", 0.05)
    monkeypatch.setattr(_work, "LOOK", 0.02)
    monkeypatch.setattr(PollPolicy, "delay", lambda _policy, _looks, *, chance: 0.02)
    monkeypatch.setattr(_batch_end, "can_draw", lambda: False)


@pytest.fixture
def heard(monkeypatch):
    """
    Calls a function with whatever is said to programs, as soon as it is.
    """
    said = Show.event

    def by(listener):
        def event(self, told, facts):
            said(self, told, facts)
            listener(told, facts)

        monkeypatch.setattr(Show, "event", event)

    return by


@pytest.fixture
def interrupt(heard):
    """
    Makes Ctrl-C arrive once, as soon as a thing is said of which something holds.
    """

    def at(name, holds=lambda _facts: True):
        left = [name]

        def listener(told, facts):
            if told in left and holds(facts):
                left.remove(told)
                signal.raise_signal(signal.SIGINT)

        heard(listener)

    return at


def row(clip, key, **more):
    """
    A removal as a row of a manifest.
    """
    plain = {
        "key": key,
        "edit_mode": "removal",
        "video_url": clip,
        "what": "the stones",
        "points": {"40": [[0.8, 0.5]]},
    }
    return {name: value for name, value in {**plain, **more}.items() if value is not None}


def manifest(*rows, name="clips.jsonl"):
    """
    A manifest in the folder that is the current one.
    """
    Path(name).write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
    return name


def keep(path, *, batch="clips", **given):
    """
    Keep a manifest's jobs where nobody works on them.
    """

    async def work():
        async with DbosRunner("sqlite:///out/batch.sqlite", **given) as runner:
            rows = read_manifest(path).rows
            await runner.submit_many([(each.job, each.output) for each in rows], batch=batch)

    anyio.run(work)


def change(statement, *values):
    """
    Change the database behind the back of all.
    """
    with closing(sqlite3.connect("out/batch.sqlite", timeout=10)) as connection, connection:
        connection.execute(statement, values)


def index():
    """
    The lines of the index.
    """
    return [orjson.loads(line) for line in Path("out/index.jsonl").read_bytes().splitlines()]


# From a manifest to results


def test_a_manifest_becomes_a_folder_of_results(run, served, home):
    """
    Each row is paid once and lies in the folder with its record and its line in the index; again, nothing is sent.
    """
    (home / "hat.png").write_bytes(picture())
    hat = {"images": ["hat.png"]}
    path = manifest(
        row(served.clip, "a"),
        row(served.clip, "b", edit_mode="swap", what=None, old="the rabbit", new="the hat", **hat),
        row(served.clip, "c", edit_mode="addition", what="a hat", points=None, output="with hat.mp4", **hat),
    )
    ended = run("batch", "run", path, *FOLDER, "--slots", "learned", "--budget", "100.5")
    assert (0, "", [1, 1, 1]) == (ended.code, ended.err, list(served.simulator.charges.values()))
    files = {"a.mp4", "b.mp4", "with hat.mp4"}
    assert files <= {each.name for each in (home / "out").iterdir()} >= {f"{name}.json" for name in files}
    assert [("a", "done"), ("b", "done"), ("c", "done")] == [(line["key"], line["state"]) for line in index()]
    for said in (
        "clips: 3 new jobs, in sqlite:///out/batch.sqlite",
        "3 of 3 done; 9 of 100.5 units",
        "out/index.jsonl",
    ):
        assert said in ended.out
    calls = len(served.calls())
    again = run("batch", "run", path, *FOLDER)
    assert (0, "", calls) == (again.code, again.err, len(served.calls()))
    assert "clips: 0 new jobs, 3 kept already" in again.out


def test_programs_hear_what_comes_of_each_job(run, served):
    """
    With --json the plan, the beginning, the way, each job's end and the end of all are objects; jobs that had ended
    before are not told again.
    """
    keys = [f"k{number}" for number in range(3)]
    path = manifest(*(row(served.clip, key) for key in keys[:1]))
    assert 0 == run("batch", "run", path, *FOLDER).code
    path = manifest(*(row(served.clip, key) for key in keys))
    ended = run("batch", "run", path, *FOLDER, "--json")
    assert (0, {"plan", "batch", "progress", "job", "end"}) == (ended.code, set(ended.names))
    assert {"rows": 3, "new": 2, "there": {"done": 1}, "edits": {"removal std": 3}}.items() <= ended.events[0].items()
    assert {"name": "clips", "new": 2, "known": 1, "database": "sqlite:///out/batch.sqlite"}.items() <= ended.event(
        "batch"
    ).items()
    jobs = {event["key"]: event for event in ended.events if event["event"] == "job"}
    assert {"k1", "k2"} == set(jobs)
    assert {"state": "done", "output": "k1.mp4", "units": "3", "error": None}.items() <= jobs["k1"].items()
    assert {"done": 3, "failed": 0, "spent": "9", "index": "out/index.jsonl", "exit_code": 0}.items() <= ended.event(
        "end"
    ).items()


def test_a_line_now_and_then_tells_a_pipe(run, served, monkeypatch):
    """
    Where nothing can be drawn, half a minute lies between two lines; the first comes at once.
    """
    path = manifest(*(row(served.clip, key) for key in "abc"))
    lines = [line for line in run("batch", "run", path, *FOLDER).out.splitlines() if "of 3 done" in line]
    assert ["0 of 3 done", "✓ edits     3 of 3 done; 9 units"] == [
        lines[0].partition(",")[0],
        lines[1].rpartition("  ")[0],
    ]


def test_a_terminal_is_drawn_on(run, served, monkeypatch):
    """
    There no lines are printed, and the contact sheet follows where it can be drawn, once.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(_batch_end, "can_draw", lambda: True)
    drawn = []
    monkeypatch.setattr(_batch_end, "sheet_jpg", lambda results: drawn.append(results) or b"sheet")
    path = manifest(row(served.clip, "a"))
    ended = run("batch", "run", path, *FOLDER)
    assert (0, [[("a", Path("out/a.mp4"))]], b"sheet") == (
        ended.code,
        drawn,
        Path("out/contact-sheet.jpg").read_bytes(),
    )
    assert "\n0 of 1 done" not in ended.out
    assert "contact-sheet.jpg" not in run("batch", "run", path, *FOLDER).out
    Path("out/contact-sheet.jpg").unlink()
    assert "contact-sheet.jpg" in run("batch", "run", path, *FOLDER).out
    assert 2 == len(drawn)


def test_a_batch_is_drawn_with_its_figures():
    """
    Before the first look as any other step, then with a bar and what is counted.
    """

    def shown():
        file = StringIO()
        Console(file=file, width=100, force_terminal=True, color_system=None).print(stage)
        return file.getvalue()

    stage = BatchStage("edits", "beginning")
    assert "beginning" in shown()
    stage.status = status(done=1, running=2, waiting=3, budget=40, seconds_left=75.0)
    assert "1 of 6 done, 2 running, 3 waiting; 12 of 40 units; about 1 min 15 s left" in shown()
    assert "━" in shown()


def status(*, spent=12, budget=None, seconds_left=None, paused=None, **counts):
    """
    How far a batch is.
    """
    states = {name: counts.get(name, 0) for name in ("done", "running", "waiting", "failed")}
    given = {
        "spent": Decimal(spent),
        "budget": None if budget is None else Decimal(budget),
        "seconds_left": seconds_left,
        "paused": paused,
    }
    return BatchStatus(**states, **given, states=counts, slots=5)


def test_what_is_not_known_is_not_said():
    """
    Without a budget and a pace only what was spent is told; nothing is left of what has ended.
    """
    assert "2 of 2 done; 12 units" == figures(status(done=2, seconds_left=3.0))
    assert "0 of 1 done, 1 running; 12 units" == figures(status(running=1))
    assert "12 units" == units(status(done=1))


# What is checked first


def test_every_fault_is_told_by_row_and_column(run, served, home):
    """
    Nothing is sent and nothing is kept; each fault has a line, and an event.
    """
    path = manifest(
        row(served.clip, "a"),
        row(served.clip, "b", points={"40": [[640, 360]]}),
        row(served.clip, "a", edit_mode="removel"),
    )
    ended = run("batch", "run", path, *FOLDER)
    first, *rest = ended.err.splitlines()
    assert (2, "error: clips.jsonl: 3 faults, and nothing was sent") == (ended.code, first)
    assert [["row", "2", "points"], ["row", "3", "edit_mode"], ["row", "3", "key"]] == [
        line.split()[:3] for line in rest
    ]
    assert ([], False) == (served.calls(), (home / "out").exists())
    told = run("batch", "run", path, *FOLDER, "--json")
    assert ["fault", "fault", "fault", "error"] == told.names
    assert (2, "edit_mode", 2) == (told.code, told.events[1]["column"], told.event("error")["exit_code"])


def test_a_file_that_is_no_manifest_is_told_in_a_line(run, served):
    """
    What is wrong with the file as a whole is no list.
    """
    ended = run("batch", "run", "none.jsonl", *FOLDER)
    assert (2, "error: none.jsonl cannot be read: No such file or directory\n") == (ended.code, ended.err)


def test_a_dry_run_tells_the_plan(run, served, home, monkeypatch):
    """
    Rows, edits, the worst case, rows of which nobody knows the cost, and what is there: without a key, a request or
    a database.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    unknown = {"extra": {"model_name": "kling-v9"}}
    path = manifest(
        row(served.clip, "a"), row(served.clip, "b", mode="pro", duration=5), row(served.clip, "c", **unknown)
    )
    ended = run("batch", "run", path, *FOLDER, "--dry-run")
    assert (0, "", False, []) == (ended.code, ended.err, (home / "out").exists(), served.calls())
    for said in (
        "✓ manifest  clips.jsonl: 3 rows without faults; 11 units",
        "1 removal pro, 2 removal std",
        "11 units at most by the published prices, and 1 row of which nobody knows the cost",
        "nothing yet, 3 new",
        "Nothing was sent, and nothing was kept.",
    ):
        assert said in ended.out
    alone = manifest(row(served.clip, "c", **unknown), name="alone.jsonl")
    keep(alone, batch="alone")
    keep(manifest(row(served.clip, "a"), name="other.jsonl"), batch="other")
    ended = run("batch", "run", path, *FOLDER, "--dry-run")
    assert "there      2 waiting; 1 new" in ended.out
    assert "elsewhere  of these 1 in alone, 1 in other" in ended.out
    told = run("batch", "run", alone, *FOLDER, "--dry-run", "--json").event("plan")
    assert {"worst_units": "0", "unpriced": 1, "there": {"waiting": 1}, "new": 0}.items() <= told.items()
    assert "faults; 1 row of which nobody knows the cost  " in run("batch", "run", alone, *FOLDER, "--dry-run").out


def test_a_row_that_was_changed_needs_another_key(run, served):
    """
    A key stands for one edit, and a file for one job: both are faults of the row, before anything is sent.
    """
    assert 0 == run("batch", "run", manifest(row(served.clip, "a", output="x.mp4")), *FOLDER).code
    path = manifest(row(served.clip, "a", what="the rabbit"), row(served.clip, "b", output="X.mp4"))
    ended = run("batch", "run", path, *FOLDER)
    assert (2, 1) == (ended.code, len(served.simulator.charges))
    assert "row 1  key     'a' stands for another edit since it was first run: another edit needs" in ended.err
    assert "row 2  output  'X.mp4' is the result of 'a': give another name" in ended.err


def test_rows_of_another_batch_are_named(run, served):
    """
    Under another name all of them are refused, with the name that goes on; some of them are only told.
    """
    path = manifest(row(served.clip, "a"))
    assert 0 == run("batch", "run", path, *FOLDER).code
    ended = run("batch", "run", manifest(row(served.clip, "a"), name="new.jsonl"), *FOLDER)
    assert (2, True) == (ended.code, "belong to the batch 'clips' already: give --name clips" in ended.err)
    more = manifest(row(served.clip, "a"), row(served.clip, "b"), name="more.jsonl")
    ended = run("batch", "run", more, *FOLDER)
    assert (0, "warning: of the batch clips already, and counted there alone: 1 row\n") == (ended.code, ended.err)
    assert "1 of 1 done" in ended.out
    assert 0 == run("batch", "run", "new.jsonl", "--name", "clips", *FOLDER).code


def test_jobs_that_the_manifest_no_longer_names_are_told(run, served):
    """
    They wait, and are paid: the command that takes them back is said before.
    """
    keep(manifest(row(served.clip, "a"), row(served.clip, "b")))
    ended = run("batch", "run", manifest(row(served.clip, "a")), *FOLDER)
    assert (0, 2) == (ended.code, len(served.simulator.charges))
    assert "warning: 1 job will be done though the manifest no longer says so; to take that back:" in ended.err
    assert "kling-async batch cancel b --out out" in ended.err


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "give --out DIR: results go there"),
        (("--database", "sqlite:///x.sqlite"), "give --out DIR: results go there"),
        (("--out", "clips.jsonl"), "--out: clips.jsonl is a file: name a folder"),
        (("--out", "a?b"), "--out: a?b holds a ?, which no sqlite URL can"),
        ((*FOLDER, "--slots", "0"), "--slots: must be a whole number from 1, or learned, not '0'"),
        ((*FOLDER, "--slots", "many"), "--slots: must be"),
        ((*FOLDER, "--budget", "much"), "--budget: must be a number of units from 0, or none, not 'much'"),
        ((*FOLDER, "--budget", "nan"), "--budget: must be"),
        ((*FOLDER, "--budget", "-1"), "--budget: must be"),
        ((*FOLDER, "--account", "sk 1"), "--account: must be a name of letters"),
        ((*FOLDER, "--database", "mysql://me:secret@host/db"), "--database: must be sqlite:///FILE or postgresql://"),
        ((*FOLDER, "--base-url", "http://example.com", "--dry-run"), "--base-url: must be https"),
        ((*FOLDER, "--base-url", "http://example.com"), "--base-url: must be https"),
    ],
)
def test_wrong_options_are_told(run, served, words, said):
    """
    One line that names the option, before anything is made.
    """
    ended = run("batch", "run", manifest(row(served.clip, "a")), *words)
    assert (2, True, 1) == (ended.code, ended.err.startswith(f"error: {said}"), ended.err.count("\n")), ended.err
    assert (False, []) == ("secret" in ended.err, served.calls())


def test_without_a_key_nothing_is_begun(run, served, home, monkeypatch):
    """
    A run needs one, and says which variables it may be in.
    """
    monkeypatch.delenv("COMETAPI_KEY")
    ended = run("batch", "run", manifest(row(served.clip, "a")), *FOLDER)
    assert (3, False) == (ended.code, (home / "out").exists())
    assert "no usable key: set COMETAPI_KEY" in ended.err


def test_without_the_extra_it_says_how_to_get_it(run, served, monkeypatch):
    """
    DBOS missing, or the driver of Postgres, the extra is named.
    """
    path = manifest(row(served.clip, "a"))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "psycopg", None)
        ended = run("batch", "run", path, *FOLDER, "--database", "postgresql://me:secret@127.0.0.1:1/db")
    assert (2, True) == (ended.code, "pip install 'kling-async[dbos,postgres]'" in ended.err)
    for name in [name for name in sys.modules if name.startswith("kling_async.dbos")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dbos", None)
    ended = run("batch", "run", path, *FOLDER)
    assert (2, "error: dbos: is not installed: pip install 'kling-async[dbos]'\n") == (ended.code, ended.err)


def test_a_database_that_cannot_be_used_is_told(run, served, home):
    """
    At once, with what can be done about it, and without its password.
    """
    (home / "out").mkdir()
    (home / "out" / "batch.sqlite").write_text("no database, " * 100)
    path = manifest(row(served.clip, "a"))
    ended = run("batch", "run", path, *FOLDER)
    assert (1, "Make that database usable, or name another with --database or --out.") == (
        ended.code,
        ended.err.splitlines()[-1],
    )
    away = ("--database", "postgresql://me:secret@127.0.0.1:1/db")
    for words in (("run", path, *FOLDER), ("worker", *FOLDER), ("status",), ("retry",), ("cancel",)):
        ended = run("batch", *words, *away)
        assert (1, True, False) == (ended.code, "cannot be used: OperationalError" in ended.err, "secret" in ended.err)


# Ended early


def test_an_empty_balance_pauses_it_once(run):
    """
    It is said with what still runs and how to go on, ends with 1, and the same command goes on.
    """
    with serving(faults=[Fault("create", "code", code=1102)]) as served:
        service = ("--base-url", served.base_url)
        path = manifest(row(served.clip, "a"))
        ended = run("batch", "run", path, *FOLDER, *service)
        what, done, again = ended.err.splitlines()
        assert (1, {}) == (ended.code, served.simulator.charges)
        assert what.startswith(f"error: the batch is paused, for the account was refused: {EMPTY} (HTTP 429")
        assert "0 of 1 are done; 1 task goes on at the service and is paid." == done
        assert (
            again == f"Once that is mended, go on:  kling-async batch run {path} --out out --base-url {served.base_url}"
        )
        paused = run("batch", "status", *FOLDER, *service)
        assert f"paused   the account was refused: {EMPTY}" in paused.out
        assert (0, ["running"]) == (paused.code, [line["state"] for line in index()])
        assert (0, 1) == (run("batch", "run", path, *FOLDER, *service).code, len(served.simulator.charges))


def test_a_refused_key_pauses_it_too(run, served):
    """
    That ends with 3, for programs as well.
    """
    served.simulator.script(Fault("init", "code", code=1002))
    ended = run("batch", "run", manifest(row(served.clip, "a")), *FOLDER, "--json")
    paused = ended.event("paused")
    assert (3, 3, True) == (ended.code, paused["exit_code"], paused["reason"].startswith("AuthenticationError: 1002"))
    assert "paused, for the key was refused: 1002" in ended.err
    assert {"done": 0, "waiting": 1, "take_up": "kling-async batch run clips.jsonl --out out"}.items() <= paused.items()


def test_stopped_it_says_what_still_runs(run, monkeypatch):
    """
    Interrupted, it ends with 130, how many tasks go on and the command; that one finds the task and pays nothing more.
    """
    put = SqliteStore.put

    async def accepted(self, intent):
        written = await put(self, intent)
        if intent.state == "accepted":
            signal.raise_signal(signal.SIGINT)
        return written

    with serving(task_seconds=0.3) as served:
        path = manifest(row(served.clip, "a"))
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "put", accepted)
            ended = run("batch", "run", path, *FOLDER, "--base-url", served.base_url, "--json")
        told = ended.event("interrupted")
        assert (130, 1, "interrupted") == (ended.code, len(served.simulator.charges), ended.names[-1])
        assert {"total": 1, "done": 0, "running": 1, "exit_code": 130}.items() <= told.items()
        assert ended.err.endswith(
            "interrupted\n0 of 1 are done; 1 task goes on at the service and is paid.\n"
            f"Go on:  kling-async batch run clips.jsonl --out out --base-url {served.base_url}\n"
        )
        assert ["running"] == [line["state"] for line in index()]
        again = run(*told["take_up"].split()[1:])
        assert (0, 1) == (again.code, len(served.simulator.charges))
    assert ["done"] == [line["state"] for line in index()]


def test_stopped_before_anything_is_kept(run, served, interrupt):
    """
    Interrupted while the plan is made, nothing was sent.
    """
    interrupt("plan")
    ended = run("batch", "run", manifest(row(served.clip, "a")), *FOLDER)
    assert (130, "interrupted\nNothing was sent.\n", []) == (ended.code, ended.err, served.calls())


@pytest.mark.parametrize(
    "counts, said",
    [
        ({"running": 0}, "2 of 2 are done; none runs."),
        ({"running": 1}, "2 of 3 are done; 1 task goes on at the service and is paid."),
        ({"running": 5}, "2 of 7 are done; up to 5 tasks go on at the service and are paid."),
    ],
)
def test_what_still_runs_is_counted(counts, said):
    """
    In the words that an interruption ends with.
    """
    underway = BatchUnderway(again="again")
    assert ((), None) == (underway.lines, underway.take_up)
    underway.status = status(done=2, **counts)
    assert ((said, "Go on:  again"), "again") == (underway.lines, underway.take_up)


# What came to no result


def test_failures_are_told_with_what_to_do(run, served):
    """
    Each with its reason; the rest is done, the exit code is 1, and a retry is a new paid run.
    """
    served.simulator.script(
        Fault("task", "failed", message="bad luck"), Fault("create", "code", code=1301, message="content policy")
    )
    path = manifest(*(row(served.clip, key) for key in "abc"))
    ended = run("batch", "run", path, *FOLDER, "--slots", "1")
    assert 1 == ended.code
    failed = {line["key"]: line for line in index() if line["state"] == "failed"}
    assert {"ContentRejectedError", "TaskFailedError"} == {each["error"] for each in failed.values()}
    table = [line.split() for line in ended.out.splitlines() if " failed " in line and line.startswith("  ")]
    assert sorted(failed) == sorted(line[0] for line in table)
    assert "change the row, under another key  1301: content policy (HTTP 400" in ended.out
    assert "Retry:  kling-async batch retry --name clips --out out\n" in ended.out
    assert "Run again:  kling-async batch run clips.jsonl --out out\n" in ended.out
    lucky = next(key for key, each in failed.items() if each["error"] == "TaskFailedError")
    told = run("batch", "retry", lucky, *FOLDER)
    assert (0, True) == (told.code, told.out.startswith("1 job to be done once more.\n"))
    assert 1 == run("batch", "run", path, *FOLDER).code
    assert [("done", 2), ("failed", 1)] == sorted(counted(line["state"] for line in index()).items())


def counted(words):
    """
    How often each stands there.
    """
    listed = list(words)
    return {word: listed.count(word) for word in listed}


def test_a_failure_that_the_manifest_no_longer_names_is_over(run, served):
    """
    Its row has another key now and the same file, and the batch ends well.
    """
    served.simulator.script(Fault("create", "code", code=1301))
    assert 1 == run("batch", "run", manifest(row(served.clip, "a", output="x.mp4")), *FOLDER).code
    ended = run("batch", "run", manifest(row(served.clip, "a2", what="the rabbit", output="x.mp4")), *FOLDER)
    assert (0, "") == (ended.code, ended.err)


def test_a_budget_refuses_before_the_paid_call(run, served):
    """
    Alike refusals are one line; with a larger budget the same command goes on.
    """
    path = manifest(*(row(served.clip, key) for key in "abcde"))
    ended = run("batch", "run", path, *FOLDER, "--budget", "3", "--json")
    assert (1, 1, 4) == (ended.code, len(served.simulator.charges), ended.names.count("failure"))
    assert " and 3 more  refused  a larger --budget, or none; run again  it may cost 3 units, and 0 of" in ended.err
    assert "Retry:" not in ended.err
    assert (0, 5) == (run("batch", "run", path, *FOLDER, "--budget", "none").code, len(served.simulator.charges))


@pytest.mark.parametrize(
    "result, what, said",
    [
        ({"state": "unknown", "error": "UnknownOutcomeError"}, "run again: it is looked for, and not paid twice", ""),
        ({"error": "DownloadError", "message": "x: HTTP 404\nmore"}, "run again: it is fetched", "x: HTTP 404"),
        (
            {"error": "TaskFailedError", "message": "Failure to pass the risk control system"},
            "change the row, under",
            "Fa",
        ),
        ({"error": "TaskFailedError", "message": "bad luck"}, "retry", "bad luck"),
        ({"error": "ServerError", "message": "5001: down. Try again later."}, "retry", "5001: down."),
        ({"state": "cancelled"}, "retry", ""),
    ],
)
def test_what_to_do_depends_on_how_it_ended(result, what, said):
    """
    The reason is told without what the library advises those who program.
    """
    ended = BatchResult(**{"key": "a", "state": "failed", "output": "a.mp4", **result})
    assert (True, True) == (advice(ended).startswith(what), reason(ended).startswith(said))


def test_a_long_list_of_failures_is_cut(run, served, monkeypatch):
    """
    The index has all of them.
    """
    monkeypatch.setattr(_batch_end, "SHOWN_MOST", 2)
    keep(manifest(*(row(served.clip, key) for key in "abc")))
    run("batch", "cancel", *FOLDER)
    ended = run("batch", "status", *FOLDER)
    assert (2, True) == (ended.out.count("cancelled  retry"), "  and 1 more\n" in ended.out)


def test_results_that_were_taken_away_are_told(run, served, home):
    """
    They are done, but not in the folder.
    """
    path = manifest(row(served.clip, "a"))
    assert 0 == run("batch", "run", path, *FOLDER).code
    (home / "out" / "a.mp4").unlink()
    ended = run("batch", "run", path, *FOLDER)
    assert (0, True) == (ended.code, "warning: 1 result not in out: other workers keep their own, or" in ended.err)


# Asked, begun again, cancelled


def test_status_needs_no_key_and_no_worker(run, served, monkeypatch):
    """
    The same figures from the database alone: one batch in full, several in a table.
    """
    path = manifest(*(row(served.clip, key) for key in "ab"))
    assert 0 == run("batch", "run", path, *FOLDER).code
    keep(manifest(row(served.clip, "c"), row(served.clip, "a")))
    for name in ("COMETAPI_KEY", "KLING_BASE_URL"):
        monkeypatch.delenv(name)
    ended = run("batch", "status", *FOLDER)
    assert (0, "") == (ended.code, ended.err)
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    for said in (
        "batch clips",
        "kept in sqlite:///out/batch.sqlite, account default",
        "done 2 of 3",
        "running 0, up to 5 at once",
        "failed 0",
        "spent 6 units",
        "packs not told by this host",
    ):
        assert said in lines
    assert [True] == [line.endswith(" s") for line in lines if line.startswith("time left about ")]
    keep(manifest(row(served.clip, "d")), batch="more")
    ended = run("batch", "status", *FOLDER)
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert {"batches clips, more", "done 2 of 4", "clips 2 of 3 0 1 0 6 units", "more 0 of 1 0 1 0 0 units"} <= {*lines}
    alone = run("batch", "status", *FOLDER, "--name", "more", "--json")
    assert (["batch", "status"], 1, 1) == (alone.names, alone.event("status")["total"], alone.event("batch")["waiting"])


def test_status_tells_what_is_left_of_packs(run, served, monkeypatch):
    """
    Where the host answers, those that are in use are told, and for a year back they are asked for.
    """
    keep(manifest(row(served.clip, "a")))
    pack = {"resource_pack_name": "Video", "total_quantity": 200.0, "remaining_quantity": 118.0, "status": "online"}
    infos = [pack, {**pack, "status": "expired"}, None, {"status": "online"}]
    told = {"code": 0, "message": "", "request_id": "r", "data": {"code": 0, "resource_pack_subscribe_infos": infos}}
    with answering(body=orjson.dumps(told)) as host:
        ended = run("batch", "status", *FOLDER, "--base-url", host.base_url)
        assert "Video: 118.0 of 200.0 units left, as of some hours ago" in ended.out
        assert [True] == [path.startswith("/kling/account/costs?start_time=") for _, path, _ in host.seen]
        packs = run("batch", "status", *FOLDER, "--base-url", host.base_url, "--json").event("status")["packs"]
        assert [pack, {"status": "online"}] == packs
    with answering(body=orjson.dumps({**told, "data": {"code": 0}})) as host:
        assert "not told by this host" in run("batch", "status", *FOLDER, "--base-url", host.base_url).out


@pytest.mark.parametrize("command", ["status", "retry", "cancel"])
def test_what_is_not_there_is_told(run, served, home, command):
    """
    No database, no batch of that name: each a line, and nothing is made.
    """
    ended = run("batch", command, *FOLDER)
    assert (2, "error: no batch is kept in sqlite:///out/batch.sqlite\n") == (ended.code, ended.err)
    assert not (home / "out").exists()
    assert (2, "error: give --out DIR, or --database URL\n") == (run("batch", command).code, run("batch", command).err)
    keep(manifest(row(served.clip, "a")))
    ended = run("batch", command, *FOLDER, "--name", "x")
    assert (2, "error: --name: no batch is called 'x'; there are: clips\n") == (ended.code, ended.err)
    ended = run("batch", command, *FOLDER, "--name", "x", "--account", "mine")
    assert (2, True) == (ended.code, ended.err.endswith("there are: none\n"))


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_a_key_that_is_not_there_is_told(run, served, command):
    """
    Nothing is done for the others.
    """
    keep(manifest(row(served.clip, "a")))
    ended = run("batch", command, "a", "nope", *FOLDER)
    assert (2, "error: no job has the key 'nope'\n") == (ended.code, ended.err)
    assert "1\n" in run("batch", "status", *FOLDER).out


def test_jobs_are_cancelled_and_begun_again(run, served):
    """
    What waits is; of what is done or runs it is said that it cannot be.
    """
    keep(manifest(*(row(served.clip, key) for key in "abc")))
    change("UPDATE kling_jobs SET state = 'running' WHERE key = 'c'")
    ended = run("batch", "cancel", "a", "c", *FOLDER, "--json")
    assert (0, {"event": "cancelled", "jobs": 1, "running": 1}) == (ended.code, ended.events[0])
    assert "c is running: it cannot be cancelled.\n1 job that waited will not be done.\n1 may be paid" in ended.err
    ended = run("batch", "retry", "a", "c", *FOLDER)
    assert "c is running: there is nothing to begin again.\n1 job to be done once more.\n" in ended.out
    assert ended.out.endswith("or with:  kling-async batch run MANIFEST --out out\n")
    change("UPDATE kling_jobs SET state = 'done' WHERE key = 'c'")
    assert "2 jobs that waited will not be done.\n" == run("batch", "cancel", *FOLDER).out
    assert "Nothing waits.\n" == run("batch", "cancel", *FOLDER).out
    assert {"event": "retried", "jobs": 2} == run("batch", "retry", *FOLDER, "--json").events[0]
    assert "There is nothing to begin again.\n" == run("batch", "retry", *FOLDER).out


# Workers


def test_a_worker_serves_until_it_is_stopped(run, served, interrupt):
    """
    It does what others have kept, and ends well when it is stopped.
    """
    keep(manifest(row(served.clip, "a")))
    interrupt("progress", lambda facts: facts["done"] == 1)
    ended = run("batch", "worker", *FOLDER, "--slots", "2")
    assert (0, "stopped\n", 1) == (ended.code, ended.err, len(served.simulator.charges))
    assert "Working for the account default in sqlite:///out/batch.sqlite until Ctrl-C; results go to out." in ended.out


def test_a_worker_goes_on_after_a_pause(run, served, heard):
    """
    Each pause and its end are said once.
    """
    keep(manifest(row(served.clip, "a")))
    served.simulator.script(Fault("create", "code", code=1102))

    def listener(told, facts):
        if told == "paused" and facts["reason"]:
            change("UPDATE kling_accounts SET paused = NULL")
        if told == "progress" and facts["done"]:
            signal.raise_signal(signal.SIGINT)

    heard(listener)
    ended = run("batch", "worker", *FOLDER, "--json")
    paused, over, stopped = ended.err.replace("0 of 1 done, 1 waiting; 0 units\n", "").splitlines()[1:]
    assert (0, "warning: the pause is over", "stopped") == (ended.code, over, stopped)
    assert paused.startswith(f"warning: the batch is paused, for the account was refused: {EMPTY}")
    assert ["working", "progress", "paused", "paused"] == list(dict.fromkeys(ended.names[:2])) + [
        name for name in ended.names if name == "paused"
    ]


# Where batches are kept


@pytest.mark.parametrize(
    "url, shown",
    [
        ("postgresql://me:secret@host:5/db", "postgresql://me:***@host:5/db"),
        ("postgresql://me:sec@ret@host/db?password=secret", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("sqlite:///a/b.sqlite", "sqlite:///a/b.sqlite"),
    ],
)
def test_a_password_is_never_shown(url, shown):
    """
    Neither where a database is named nor in the command that goes on.
    """
    place = Home(database=url, account="mine", out=Path("o"))
    assert shown == place.shown
    said = place.command(Service(base_url="https://x.example"), "run", "m.csv")
    assert "secret" not in said
    assert said.startswith("kling-async batch run m.csv --out o --database ")
    assert said.endswith(" --account mine --base-url https://x.example")


def test_a_folder_names_its_database():
    """
    Relative and absolute.
    """
    assert "sqlite:///o/batch.sqlite" == Home(out=Path("o")).url
    assert "sqlite:////o/batch.sqlite" == Home(out=Path("/o")).url
    with pytest.raises(UsageError):
        _ = Home().url


def test_a_reason_of_another_kind_is_told_as_it_is():
    """
    Whatever paused it.
    """
    assert "someone said so" == why("someone said so")
