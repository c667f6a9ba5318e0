"""
The command line: what it is called with, what it says, and the edit from its points to the file.
"""

import logging
import os
import pty
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kling_async import Marked, Mask, Removal, SelectionInfo, __version__
from kling_async.cli import main
from kling_async.cli._edit import price
from kling_async.cli._marking import clip_text, mask_text
from kling_async.cli._show import Show, megabytes, seconds
from kling_async.simulator import Fault, Footage, Shape
from tests.commanding import (
    CLIP,
    SPOT,
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    given_simulator,  # noqa: F401 - a fixture
    picture,
    process,
    serving,
)

REMOVAL = (*SPOT, "--remove", "the stones")
TYPICAL = ["session", "mask", "preview", "create", "task", "done"]


@pytest.fixture
def terminal(monkeypatch):
    """
    A terminal for stdin, and a function that types on it.
    """
    master, slave = pty.openpty()
    with os.fdopen(slave, encoding="utf-8") as stdin, os.fdopen(master, "wb", buffering=0) as keyboard:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard.write


# What it is called with


def test_version_is_the_packages(run):
    """
    --version prints the version and nothing else.
    """
    assert (0, f"{__version__}\n") == (run("--version").code, run("--version").out)


@pytest.mark.parametrize("words", [("--help",), ("edit", "--help"), ("tasks", "wait", "-h"), ("demo", "--help")])
def test_help_is_asked_for(run, words):
    """
    Help that was asked for is printed to stdout and is no error.
    """
    ended = run(*words)
    assert (0, True, "") == (ended.code, "Usage: kling-async" in ended.out, ended.err)


@pytest.mark.parametrize("words", [(), ("tasks",)])
def test_a_missing_command_is_wrong_usage(run, words):
    """
    Without a command the help is shown, and the exit code says that nothing was done.
    """
    ended = run(*words)
    assert (2, True) == (ended.code, "Commands" in ended.out)


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("edit",),
        ("edit", "https://x.example/a.mp4", "--duration", "7"),
        ("edit", "https://x.example/a.mp4", "--nonsense"),
        ("tasks", "download"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run, words):
    """
    What the command line cannot be read as ends with 2 and one line that points at the help.
    """
    ended = run(*words)
    assert (2, "", 1) == (ended.code, ended.out, ended.err.count("\n"))
    assert ended.err.startswith("error: ")
    assert "--help" in ended.err


def test_wrong_usage_is_told_to_programs_too(run):
    """
    With --json an error is an object on stdout.
    """
    assert {"event": "error", "exit_code": 2}.items() <= run("edit", "--json").event("error").items()


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_without_the_extra_it_says_how_to_get_it(run, monkeypatch, missing):
    """
    Without cyclopts or rich the script names the extra and ends with 2.
    """
    monkeypatch.setitem(sys.modules, missing, None)
    ended = run("demo")
    assert (2, "") == (ended.code, ended.out)
    assert "pip install 'kling-async[cli]'" in ended.err


def as_module(name):
    """
    What `runpy` would do; it cannot here, for pytest loads whatever comes with a plugin of its own.
    """
    file = find_spec("kling_async.__main__").origin
    names = {"__name__": name, "__package__": "kling_async"}
    exec(compile(Path(file).read_text(), file, "exec"), names)
    return names


def test_python_dash_m_does_nothing_when_imported():
    """
    The module may be imported by those who only look around.
    """
    # Before the next test: first met as `__main__`, an installed file is somebody else's to coverage, for good.
    assert main is as_module("kling_async.__main__")["main"]


def test_python_dash_m_is_the_same_command(monkeypatch, capsys):
    """
    `python -m kling_async` takes the process's arguments and ends with the exit code.
    """
    monkeypatch.setattr(sys, "argv", ["kling_async", "--version"])
    with pytest.raises(SystemExit) as ended:
        as_module("__main__")
    assert (0, f"{__version__}\n") == (ended.value.code, capsys.readouterr().out)


def test_as_a_process_it_ends_with_its_code(home):
    """
    The exit code of a process is the one that the command returned.
    """
    with process("edit", "clip.mp4", *REMOVAL, "--yes", folder=home) as child:
        out, err = child.communicate()
    assert (2, "", True) == (child.returncode, out, err.startswith("error: source: clip.mp4 is no URL"))


# The edit


def test_an_edit_is_told_to_people(run, served, home):
    """
    A removal ends with the file, and says the mask's size, what it will cost and did cost, and each step's time.
    """
    ended = run("edit", served.clip, *REMOVAL, "--yes", "--out", "out.mp4", "--preview", "look.mp4")
    assert (0, "") == (ended.code, ended.err)
    assert CLIP.read_bytes() == (home / "out.mp4").read_bytes() == (home / "look.mp4").read_bytes()
    for said in ("1280 x 720, 96 frames, 24 fps, 4.0 s", "frame 40: ", " pixels, ", " % of the frame"):
        assert said in ended.out
    assert "about 3 units (published price): a removal, mode std\n" in ended.out
    [charged] = served.simulator.charges
    assert f"external id {charged}  " in ended.out
    assert "cost 3 units" in ended.out
    assert ["init", "add", "preview", "create", "get"] == served.calls()


def test_an_edit_is_told_to_programs(run, served, home):
    """
    With --json stdout is one object per line, in the order of the steps, and people's lines are on stderr.
    """
    ended = run("edit", served.clip, *REMOVAL, "--yes", "--json")
    assert (0, TYPICAL) == (ended.code, ended.names)
    assert (1280, 720, 96, 24.0, 4.0) == tuple(
        ended.event("session")[name] for name in ("width", "height", "total_frames", "fps", "duration")
    )
    mask = ended.event("mask")
    assert (40, mask["masks"][0]["area"]) == (mask["frame_index"], mask["area"])
    done = ended.event("done")
    assert ("succeed", ended.event("create")["external_task_id"]) == (done["status"], done["external_task_id"])
    assert f"kling-{done['task_id']}.mp4" == done["path"]
    assert (home / done["path"]).exists()
    assert "of the frame" in ended.err


@pytest.mark.parametrize("words, units", [((), 6), (("--mode", "pro"), 10)])
def test_the_clips_length_decides_the_price(run, served, words, units):
    """
    A clip of ten seconds costs as much in the end as was said before it was paid.
    """
    long = served.simulator.publish(CLIP, name="long.mp4", footage=Footage(total_frames=240))
    ended = run("edit", long, *REMOVAL, *words, "-y")
    assert (0, True) == (ended.code, f"about {units} units (published price)" in ended.out)
    assert f"cost {units} units" in ended.out


@pytest.mark.parametrize("info", [None, SelectionInfo(session_id="s"), SelectionInfo(session_id="s", duration=-4.0)])
def test_without_a_length_there_is_no_price(info):
    """
    Where the service did not tell the clip's length, or told nonsense, nothing is made up; given seconds are enough.
    """
    assert "see your provider" == price(Removal.of("the stones"), info)
    assert "about 3 units (published price)" == price(Removal.of("the stones", duration=5), info)


def test_points_of_one_frame_go_together(run, served):
    """
    Each marked frame is one call, its points in the order given, and is said on its own line.
    """
    points = ("--point", "3:0.1,0.2", "--point", "40:0.8,0.53", "--point", "3:0.9,1")
    assert 0 == run("edit", served.clip, *points, "--remove", "it", "-y").code
    bodies = [seen.json for seen in served.simulator.log if seen.endpoint == "add"]
    assert [(3, 2), (40, 1)] == [(body["frame_index"], len(body["points"])) for body in bodies]
    assert {"x": 0.9, "y": 1.0} == bodies[0]["points"][1]


def created(served):
    """
    The body of the create that was sent.
    """
    return next(seen.json for seen in served.simulator.log if seen.endpoint == "create")


def test_a_swap_takes_a_picture_from_a_file(run, served, home):
    """
    --swap with --with and --image says it in the provider's words and sends the picture itself.
    """
    (home / "cat.png").write_bytes(picture())
    assert (
        0 == run("edit", served.clip, *SPOT, "--swap", "the stones", "--with", "a cat", "--image", "cat.png", "-y").code
    )
    body = created(served)
    assert ("swap", True) == (body["edit_mode"], "a cat" in body["prompt"] and "the stones" in body["prompt"])


def test_an_addition_needs_no_points(run, served):
    """
    Without points nothing is marked and nothing previewed; pictures may be URLs, and several.
    """
    hat = served.simulator.publish(picture(), name="hat.png")
    words = ("--add", "hats", "--image", hat, "--image", hat, "--mode", "pro", "--duration", "5")
    ended = run("edit", served.clip, *words, "-y", "--json")
    assert ["session", "create", "task", "done"] == ended.names
    body = created(served)
    assert ("addition", 2, "pro", "5") == (body["edit_mode"], len(body["image_list"]), body["mode"], body["duration"])


def test_a_prompt_of_ones_own_is_sent_as_it_is(run, served):
    """
    --prompt takes the template's place, and one that names no clip is warned of.
    """
    ended = run("edit", served.clip, *REMOVAL, "--prompt", "Take the stones out", "-y")
    assert (0, "Take the stones out") == (ended.code, created(served)["prompt"])
    assert ended.err.startswith("warning: the prompt does not name <<<video_1>>>")


def test_a_result_can_be_edited_again(run, served):
    """
    video_id:ID is a result of the same account.
    """
    first = run("edit", served.clip, *REMOVAL, "-y", "--json").event("done")
    again = run("edit", f"video_id:{first['video_id']}", *REMOVAL, "-y", "--json")
    assert (0, TYPICAL) == (again.code, again.names)


@pytest.mark.parametrize(
    "words, said",
    [
        ((*SPOT,), "say what to do"),
        ((*REMOVAL, "--add", "a hat", "--image", "cat.png"), "say what to do"),
        ((*REMOVAL, "--with", "a cat"), "--remove takes no --with"),
        ((*REMOVAL, "--image", "cat.png"), "--remove takes no --with and no --image"),
        ((*SPOT, "--swap", "it", "--with", "a cat"), "--swap needs"),
        ((*SPOT, "--swap", "it", "--image", "cat.png"), "--swap needs"),
        (("--add", "a hat"), "--add needs --image"),
        (("--remove", "it"), "a removal needs --point"),
        (("--point", "0.8,0.53", "--remove", "it"), "'0.8,0.53' is not FRAME:X,Y"),
        (("--point", "40:0.8,1.53", "--remove", "it"), "40:0.8,1.53: y must lie from 0 to 1"),
        ((*REMOVAL, "--image", "none.png"), "none.png cannot be read"),
        ((*REMOVAL, "--key", "a key"), "--key: must be made of"),
        ((*REMOVAL, "--out", "none/out.mp4"), "there is no folder none"),
        ((*REMOVAL, "--out", "."), ". is a folder"),
        ((*REMOVAL, "--out", "cat.png"), "cat.png exists: give another name, or --force"),
        ((*REMOVAL, "--preview", "cat.png"), "--preview: cat.png exists"),
    ],
)
def test_wrong_input_is_told_before_anything_is_sent(run, served, home, words, said):
    """
    Options that do not add up end with 2 and one line, and the service never hears of them.
    """
    (home / "cat.png").write_bytes(picture())
    ended = run("edit", served.clip, *words, "--yes")
    assert (2, "", 1) == (ended.code, ended.out, ended.err.count("\n"))
    assert said in ended.err
    assert [] == served.calls()


@pytest.mark.parametrize("source, said", [("cat.mp4", "file on this machine"), ("dog.mp4", "no URL")])
def test_a_local_file_is_no_source(run, home, source, said):
    """
    The service fetches clips itself, so that a file here is wrong input.
    """
    (home / "cat.mp4").write_bytes(b"")
    ended = run("edit", source, *REMOVAL, "--yes")
    assert (2, True) == (ended.code, said in ended.err and "public https URL" in ended.err)


def test_force_replaces_files(run, served, home):
    """
    With --force a file that is there is replaced.
    """
    (home / "out.mp4").write_bytes(b"old")
    assert 0 == run("edit", served.clip, *REMOVAL, "--yes", "--out", "out.mp4", "--force").code
    assert CLIP.read_bytes() == (home / "out.mp4").read_bytes()


def test_a_preview_without_a_video_is_said(run, home):
    """
    A host that answers a preview without data is no error, but it is said that there is no video to save.
    """
    with serving(shape=Shape(bare=True)) as served:
        words = ("--yes", "--preview", "look.mp4", "--base-url", served.base_url)
        ended = run("edit", served.clip, *REMOVAL, *words)
    assert (0, True, False) == (ended.code, "named no video" in ended.out, (home / "look.mp4").exists())


def test_masks_are_described_by_their_size():
    """
    Pixels and their share of the frame; several objects are counted together, and none is said.
    """
    mask = Mask.from_runs([0, 500, 500], height=10, width=100)
    assert "frame 3: 500 pixels, 50.0 % of the frame" == mask_text("frame 3", Marked(masks=(mask,)))
    assert "frame 3: 1,000 pixels in 2 objects, 100.0 % of the frame" == mask_text(
        "frame 3", Marked(masks=(mask, mask))
    )
    assert "frame 3: no mask came back" == mask_text("frame 3", Marked())


def test_clips_are_described_by_what_is_known():
    """
    What the service left out is left out here; the session's id is always there.
    """
    assert "session s-1" == clip_text(SelectionInfo(session_id="s-1"))
    assert "24 fps" == clip_text(SelectionInfo(session_id="s-1", fps=24.0, width=720))


# The question


@pytest.mark.parametrize("stdin", [None, open])
def test_nobody_to_ask_is_wrong_usage(run, served, monkeypatch, home, stdin):
    """
    Without a terminal and without --yes nothing is opened, and --yes is named.
    """
    (home / "empty").write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", stdin and stdin("empty", encoding="utf-8"))
    ended = run("edit", served.clip, *REMOVAL)
    if stdin:
        sys.stdin.close()
    assert (2, True, []) == (ended.code, "pass --yes" in ended.err, served.calls())


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
def test_yes_pays(run, served, terminal, answer):
    """
    The question names nothing but the paid edit, and yes creates it.
    """
    terminal(answer)
    ended = run("edit", served.clip, *REMOVAL)
    assert (0, True, 1) == (ended.code, "Create the paid edit? [y/N] " in ended.out, len(served.simulator.charges))


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"yep\n", b"\x04"])
def test_anything_else_is_no(run, served, terminal, answer):
    """
    Every other answer, the end of input too, declines: nothing is created, and the exit code says so.
    """
    terminal(answer)
    ended = run("edit", served.clip, *REMOVAL)
    assert (1, {}) == (ended.code, served.simulator.charges)
    assert "error: declined before the paid call: you said no, so nothing is paid\n" == ended.err


def test_where_terminals_cannot_be_waited_for_it_reads_at_once(run, served, terminal, monkeypatch):
    """
    On Windows the answer is read without waiting on the event loop.
    """
    monkeypatch.setattr("kling_async.cli._show.sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "state")
    terminal(b"y\n")
    assert 0 == run("edit", served.clip, *REMOVAL).code


# Errors


@pytest.mark.parametrize(
    "key, said",
    [("", "set COMETAPI_KEY, or KLING_API_KEY"), ("Bearer x", "without 'Bearer'"), ("wrong", "COMETAPI_KEY")],
)
def test_no_usable_key_ends_with_three(run, monkeypatch, key, said):
    """
    No key, one that cannot be one, and one that is refused end with 3 and two lines at most, never with the key.
    """
    monkeypatch.setenv("COMETAPI_KEY", key)
    with serving(api_key="right") as served:
        ended = run("edit", served.clip, *REMOVAL, "--yes", "--base-url", served.base_url)
    assert (3, "", True) == (ended.code, ended.out, ended.err.count("\n") <= 2)
    assert (True, False) == (said in ended.err, "Bearer x" in ended.err)


@pytest.mark.parametrize(
    "base_url, code, said", [("ftp://x", 2, "--base-url"), ("http://127.0.0.1:1/kling", 4, "127.0.0.1")]
)
def test_a_service_that_is_not_there(run, base_url, code, said):
    """
    An address that cannot be one is wrong input, one that nobody listens on ends with 4; each is one line.
    """
    ended = run("edit", "http://127.0.0.1:1/clip.mp4", *REMOVAL, "--yes", "--base-url", base_url)
    assert (code, "", True) == (ended.code, ended.out, ended.err.count("\n") <= 2)
    assert said in ended.err


@pytest.mark.parametrize(
    "fault, said",
    [
        (Fault("task", "failed", message="bad luck"), "failed: bad luck"),
        (Fault("create", "code", code=1303), "as the account allows"),
        (Fault("add", "rejected"), "recognis"),
    ],
)
def test_an_edit_that_fails_leaves_nothing_to_take_up(run, monkeypatch, fault, said):
    """
    A failed task, a full quota and points that mark nothing end with 1 and one line.
    """
    with serving(faults=[fault]) as served:
        ended = run("edit", served.clip, *REMOVAL, "--yes", "--json", "--base-url", served.base_url)
        assert (1, {0}) == (ended.code, set(served.simulator.charges.values()) or {0})
    error = ended.event("error")
    assert (1, None, True) == (error["exit_code"], error["take_up"], said in error["message"])
    assert error["message"] in ended.err


def test_a_result_that_cannot_be_fetched_is_taken_up(run, home):
    """
    When only the download fails, the edit is paid and done: the command that fetches it is said.
    """
    with serving(faults=[Fault("media", "status", status=403)]) as served:
        ended = run("edit", served.clip, *REMOVAL, "--yes", "--json", "--out", "a.mp4", "--base-url", served.base_url)
        take_up = ended.event("error")["take_up"]
        assert (1, True) == (ended.code, take_up in ended.err)
        assert take_up.startswith("kling-async tasks download ")
        assert 0 == run(*take_up.split()[1:]).code
    assert (home / "a.mp4").exists()


@pytest.mark.parametrize("stopping, times", [(False, 1), (True, 0)])
def test_the_librarys_warnings_are_said_as_warnings(run, served, monkeypatch, stopping, times):
    """
    What the library logs as a warning reaches people on stderr once, but for its last words when interrupted.
    """

    def event(self, name, facts):
        if name == "task":
            self.stopping = stopping
            logging.getLogger("kling_async").warning("task %s is odd", facts["task_id"])

    monkeypatch.setattr(Show, "event", event)
    ended = run("edit", served.clip, *REMOVAL, "--yes")
    assert (0, times) == (ended.code, ended.err.count("warning: task "))


# Keys


def test_a_key_pays_once(run, served):
    """
    The same key again goes on with its task, opens no selection and pays nothing.
    """
    first = run("edit", served.clip, *REMOVAL, "-y", "--key", "order-7", "--json")
    calls = len(served.calls())
    again = run("edit", served.clip, *REMOVAL, "-y", "--key", "order-7", "--json", "--force")
    assert (0, ["task", "done"]) == (again.code, again.names)
    assert ("order-7 stands for no task yet" in first.err, "nothing is paid again" in again.err) == (True, True)
    assert first.event("done") == again.event("done")
    assert ({"order-7": 1}, ["get"]) == (served.simulator.charges, served.calls()[calls:])


def test_a_key_is_known_to_the_service_alone(run, served, home):
    """
    A key that another machine paid for is found at the service before anything is sent.
    """
    run("edit", served.clip, *REMOVAL, "-y", "--key", "order-7")
    again = run("edit", served.clip, *REMOVAL, "-y", "--key", "order-7", "--state", home / "other", "--force")
    assert (0, {"order-7": 1}) == (again.code, served.simulator.charges)
    assert "nothing is paid again" in again.out


def test_a_key_belongs_to_one_service(run, served):
    """
    A key that was used at another service is wrong input.
    """
    run("edit", served.clip, *REMOVAL, "-y", "--key", "order-7")
    with serving() as other:
        ended = run("edit", other.clip, *REMOVAL, "-y", "--key", "order-7", "--base-url", other.base_url)
        assert (2, []) == (ended.code, other.calls())
    assert "another service needs another" in ended.err


def test_a_key_that_was_refused_may_be_tried_again(run):
    """
    After a refusal nothing was created, so that the same key goes through the whole edit again.
    """
    with serving(faults=[Fault("create", "code", code=1303)]) as served:
        words = ("edit", served.clip, *REMOVAL, "-y", "--key", "order-7", "--base-url", served.base_url)
        assert 1 == run(*words).code
        assert 0 == run(*words).code
        assert {"order-7": 1} == served.simulator.charges


# How it is shown


@pytest.mark.parametrize("spent, said", [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 00 s"), (131, "2 min 11 s")])
def test_seconds_are_said_as_people_do(spent, said):
    """
    Tenths below a minute, minutes above.
    """
    assert said == seconds(spent)


@pytest.mark.parametrize("count, said", [(12_345, "12.3 kB"), (1_062_811, "1.1 MB")])
def test_bytes_are_said_as_people_do(count, said):
    """
    Thousands of bytes, then millions.
    """
    assert said == megabytes(count)


def test_a_terminal_shows_what_is_happening(run, served, monkeypatch):
    """
    On a terminal a live line tells the step and its time so far, and warnings go through the same screen.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    def event(self, name, facts):
        self.warning(f"{name} happened")

    monkeypatch.setattr(Show, "event", event)
    ended = run("edit", served.clip, *REMOVAL, "--yes")
    assert (0, True) == (ended.code, "the service looks at the clip" in ended.out)
    assert (True, False) == ("mask happened" in ended.out, "mask happened" in ended.err)
    assert (True, False) == ("done happened" in ended.err, "done happened" in ended.out)


def test_a_pipe_gets_finished_steps_alone(run, served):
    """
    In a pipe there is no spinner and no escape sequence.
    """
    ended = run("edit", served.clip, *REMOVAL, "--yes")
    assert (False, False) == ("\x1b" in ended.out, "the service looks at the clip" in ended.out)


def test_a_plain_alphabet_gets_a_plain_tick(monkeypatch):
    """
    Where the terminal cannot show a tick, a plus stands for it.
    """
    show = Show()
    monkeypatch.setattr("rich.console.Console.encoding", "cp1252")
    assert "+" == show.tick
