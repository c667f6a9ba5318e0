"""
How commands end early: Ctrl-C at every stage, said with what still runs and how to take it up.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager
from importlib.resources import files

import anyio
import orjson
import pytest

from kling_async import PollPolicy
from kling_async.cli import _app
from kling_async.cli._order import Order
from kling_async.cli._show import Show
from kling_async.simulator import Fault, _sight
from kling_async.simulator._halt import heed
from tests.commanding import (
    CLIP,
    REMOVAL,
    alone,
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    picture,
    process,
    serving,
)


@pytest.fixture
def interrupt(monkeypatch):
    """
    Makes Ctrl-C arrive as soon as a thing is said to programs.
    """
    said = Show.event

    def at(name, number=signal.SIGINT):
        def event(self, told, facts):
            said(self, told, facts)
            if told == name:
                signal.raise_signal(number)

        monkeypatch.setattr(Show, "event", event)

    return at


@contextmanager
def unread(monkeypatch):
    """
    A stdout that nobody reads.
    """
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        yield


def until(child, name):
    """
    The JSON line of a process about this.
    """
    for line in child.stdout:
        event = orjson.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(child.stderr.read())


def test_before_the_create_nothing_is_paid(run, interrupt):
    """
    Interrupted while marking, the command ends with 130 and says that nothing was created.
    """
    interrupt("mask")
    with serving(faults=[Fault("preview", "hang")]) as served:
        ended = run("edit", served.clip, *REMOVAL, "--json", "--base-url", served.base_url)
        assert (130, {}) == (ended.code, served.simulator.charges)
    assert {"exit_code": 130, "task_id": None, "take_up": None}.items() <= ended.event("interrupted").items()
    assert ended.err.endswith("interrupted\nNothing was created and nothing is paid.\n")


def test_while_the_create_is_on_its_way_it_is_named(run, interrupt):
    """
    Interrupted during the paid call, its external id is said with the command that settles it.
    """
    interrupt("create")
    with serving(faults=[Fault("create", "hang")]) as served:
        ended = run("edit", served.clip, *REMOVAL, "--key", "order-7", "--base-url", served.base_url)
    assert 130 == ended.code
    assert "The paid create order-7 was on its way: a task may exist and be charged." in ended.err
    assert f"Look for it:  kling-async tasks reconcile --base-url {served.base_url}\n" in ended.err


def test_an_unanswered_question_is_interrupted_on_its_own_line(run, monkeypatch):
    """
    Interrupted at the question, the command says so below it, and nothing is paid.
    """
    monkeypatch.setattr(Order, "check", lambda _order: None)

    async def never(_stream):
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "wait_readable", never)
    with serving() as served:
        ended = run("edit", served.clip, *REMOVAL[:-1], "--base-url", served.base_url)
        assert (130, {}) == (ended.code, served.simulator.charges)
    assert "\ninterrupted\nNothing was created and nothing is paid.\n" == ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_running_task_is_named_and_taken_up(run, interrupt, monkeypatch, home, number):
    """
    Interrupted while the task runs, the command that takes it up is said, and does.
    """
    interrupt("task", number)
    with serving(task_seconds=0.2) as served:
        service = ("--base-url", served.base_url)
        words = ("--key", "order-7", "--out", "a.mp4", "--force", "--json")
        ended = run("edit", served.clip, *REMOVAL, *words, *service)
        told = ended.event("interrupted")
        assert (130, "order-7") == (ended.code, told["external_task_id"])
        assert f"Task {told['task_id']} (external id order-7) goes on at the service and is paid." in ended.err
        assert (
            told["take_up"]
            == f"kling-async tasks wait {told['task_id']} --out a.mp4 --force --base-url {served.base_url}"
        )
        monkeypatch.undo()
        alone(monkeypatch, home)
        monkeypatch.setattr(PollPolicy, "delay", lambda _policy, _looks, *, chance: 0.05)
        assert (0, {"order-7": 1}) == (run(*told["take_up"].split()[1:]).code, served.simulator.charges)
    assert (home / "a.mp4").exists()


def test_where_signals_cannot_be_received_asyncio_does(run, interrupt, monkeypatch):
    """
    Without signal handlers of the loop, as on Windows, an interruption ends the same way.
    """

    def refuse(*_signals):
        raise NotImplementedError

    monkeypatch.setattr(anyio, "open_signal_receiver", refuse)
    interrupt("task")
    with serving(task_seconds=600) as served:
        ended = run("edit", served.clip, *REMOVAL, "--key", "order-7", "--base-url", served.base_url)
    assert (130, 1) == (ended.code, ended.err.count("Take it up:  kling-async tasks wait "))


def test_commands_work_in_any_thread(run, monkeypatch):
    """
    Where signals belong to another thread, a command runs without them.
    """
    codes = []
    with serving() as served:
        thread = threading.Thread(target=lambda: codes.append(run("tasks", "list", "--base-url", served.base_url).code))
        thread.start()
        thread.join()
    assert [0] == codes


def test_a_second_interruption_is_safe(home):
    """
    A process that is interrupted twice says what still runs all the same, and ends with 130.
    """
    with serving(task_seconds=600) as served:
        words = ("edit", served.clip, *REMOVAL, "--key", "order-7", "--json", "--base-url", served.base_url)
        with process(*words, folder=home) as child:
            task_id = until(child, "task")["task_id"]
            child.send_signal(signal.SIGINT)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate()
    assert (130, "interrupted") == (child.returncode, orjson.loads(out.splitlines()[-1])["event"])
    assert f"Take it up:  kling-async tasks wait {task_id} --out kling-{task_id}.mp4 --base-url" in err
    assert ("interrupted", 3, False) == (err.splitlines()[-3], err.count("\n") - err.count("✓"), "Traceback" in err)


def test_a_create_on_its_way_is_named_by_a_process(home):
    """
    A process that is interrupted while the paid call hangs names its external id.
    """
    with serving(faults=[Fault("create", "hang")]) as served:
        words = ("edit", served.clip, *REMOVAL, "--json", "--base-url", served.base_url)
        with process(*words, folder=home) as child:
            name = until(child, "create")["external_task_id"]
            child.send_signal(signal.SIGINT)
            _, err = child.communicate()
    assert (130, True) == (child.returncode, f"The paid create {name} was on its way" in err)
    assert "Look for it:  kling-async tasks reconcile --base-url " in err
    assert (False, False) == ("Traceback" in err, "warning" in err)


def test_waiting_can_be_interrupted(home):
    """
    `tasks wait` says how to take the task up again.
    """
    with serving(task_seconds=600) as served:
        service = ("--json", "--base-url", served.base_url)
        with process("edit", served.clip, *REMOVAL, *service, folder=home) as child:
            task_id = until(child, "task")["task_id"]
            child.send_signal(signal.SIGTERM)
            child.communicate()
        with process("tasks", "wait", task_id, "--out", "b.mp4", *service, folder=home) as child:
            until(child, "task")
            child.send_signal(signal.SIGINT)
            _, err = child.communicate()
    assert (130, True) == (child.returncode, f"kling-async tasks wait {task_id} --out b.mp4" in err)


def test_an_interruption_before_the_command_is_no_traceback(run, monkeypatch):
    """
    Ctrl-C while everything is still being loaded ends with 130 and without a word.
    """

    def interrupted(_tokens):
        raise KeyboardInterrupt

    monkeypatch.setattr(_app, "entry", interrupted)
    ended = run("demo")
    assert (130, "", "") == (ended.code, ended.out, ended.err)


@pytest.mark.parametrize("loaded", ["cyclopts", "rich", "kling_async.cli._app"])
def test_an_interruption_while_loading_is_no_traceback(run, monkeypatch, loaded):
    """
    Ctrl-C during an import of the command line's ends with 130 and without a word.
    """

    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == loaded:
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, loaded, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    ended = run("--version")
    assert (130, "", "") == (ended.code, ended.out, ended.err)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_when_nobody_reads_any_more_it_ends_quietly(run, monkeypatch, words):
    """
    With its output cut off, as by `| head`, a command ends with 1 and without a word.
    """
    with serving() as served:
        run("edit", served.clip, *REMOVAL, "--base-url", served.base_url, "--key", "order-7")
        with unread(monkeypatch):
            ended = run("tasks", "show", "--external", "order-7", "--base-url", served.base_url, *words)
    assert (1, "") == (ended.code, ended.err)


def test_what_was_paid_is_named_when_nobody_reads_any_more(run, monkeypatch):
    """
    With its output cut off while the task runs, an edit still says on stderr how to take it up.
    """
    said = Show.event

    def event(self, name, facts):
        if name == "task":
            raise BrokenPipeError
        said(self, name, facts)

    monkeypatch.setattr(Show, "event", event)
    monkeypatch.setattr(Show, "unheard", lambda show: None)
    with serving(task_seconds=600) as served:
        ended = run("edit", served.clip, *REMOVAL, "--base-url", served.base_url)
    assert (1, False, True) == (ended.code, "error" in ended.err, "Take it up:  kling-async tasks wait" in ended.err)


# The simulator as a command


def test_the_simulator_serves_until_it_is_interrupted(home, run):
    """
    `simulate` prints where it is, and an edit of the clip that it hosts goes through; Ctrl-C is its normal end.
    """
    with process("simulate", "--port", 0, "--task-seconds", 0, "--no-eyes", "--json", folder=home) as child:
        serving = until(child, "serving")
        url = serving["media"][0]
        assert (False, True) == (serving["eyes"], url.endswith("/media/bunny-24fps-4s.mp4"))
        ended = run("edit", url, *REMOVAL, "--json", "--base-url", serving["base_url"])
        child.send_signal(signal.SIGINT)
        _, err = child.communicate()
    assert (0, 96, "stopped") == (child.returncode, ended.event("session")["total_frames"], err.splitlines()[-1])
    assert 0 == ended.code


def test_simulate_prints_the_lines_to_use_it(run, interrupt):
    """
    People get the environment's line, the clip with its author and licence, and a command to try.
    """
    interrupt("serving")
    ended = run("simulate", "--port", 0, "--no-eyes")
    assert (0, "stopped\n") == (ended.code, ended.err)
    for said in ("export KLING_BASE_URL=http://127.0.0.1:", "COMETAPI_KEY=any", "Blender Foundation", "CC BY 3.0"):
        assert said in ended.out
    assert "--point 40:0.8,0.53 --point 40:0.9,0.57 --point 40:0.965,0.57 --remove 'the stones'" in ended.out


def test_simulate_hosts_a_folder(run, interrupt, home):
    """
    --media hosts the clips and pictures of a folder, and nothing else in it.
    """
    (home / "hat.png").write_bytes(picture())
    (home / "notes.txt").write_bytes(b"")
    interrupt("serving")
    ended = run("simulate", "--port", 0, "--no-eyes", "--media", ".", "--json")
    assert ["hat.png"] == [url.rpartition("/")[2] for url in ended.event("serving")["media"]]
    assert "Blender" not in ended.err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--media", "none"), "none is no folder"),
        (("--media", "empty"), "empty holds no MP4"),
        (("--quota", 0), "quota: must be"),
        (("--eyes",), "pip install 'kling-async[cli,demo]'"),
    ],
)
def test_simulate_refuses_what_makes_no_sense(run, home, monkeypatch, words, said):
    """
    Wrong input ends with 2 before anything is served.
    """
    (home / "empty").mkdir()
    monkeypatch.setitem(sys.modules, "cv2", None)
    ended = run("simulate", "--port", 0, *words)
    assert (2, True) == (ended.code, said in ended.err)


def test_simulate_sees_where_it_can(run, interrupt, monkeypatch):
    """
    By default clips are really seen where the extra is installed; where not, that is said.
    """
    interrupt("serving")
    assert run("simulate", "--port", 0, "--json").event("serving")["eyes"]
    monkeypatch.setitem(sys.modules, "cv2", None)
    blind = run("simulate", "--port", 0, "--json")
    assert (False, True) == (blind.event("serving")["eyes"], "masks are discs" in blind.err)


def test_a_port_that_is_taken_is_wrong_input(run):
    """
    Somebody else's port ends with 2.
    """
    with serving() as served:
        port = served.base_url.removesuffix("/kling").rpartition(":")[2]
        ended = run("simulate", "--no-eyes", "--port", port)
    assert (2, True) == (ended.code, "cannot be listened on" in ended.err)


# The demo, as far as it is quick; the whole of it is in test_cli_demo.py


def test_the_demo_without_its_extra_says_how_to_get_it(run, monkeypatch):
    """
    Without what edits video the demo names the extra and ends with 2.
    """
    monkeypatch.setitem(sys.modules, "av", None)
    ended = run("demo")
    assert (2, True) == (ended.code, "pip install 'kling-async[cli,demo]'" in ended.err)


def test_the_demo_needs_a_folder(run, home):
    """
    A file in the folder's place is wrong input, and a folder that cannot be made an error.
    """
    (home / "file").write_bytes(b"")
    assert (2, 1) == (run("demo", "--out", "file").code, run("demo", "--out", "file/folder").code)


def test_the_demo_can_be_interrupted(run, interrupt):
    """
    Interrupted, the demo ends its simulator, says that nothing was paid, and leaves no task behind.
    """
    interrupt("session")
    ended = run("demo")
    assert (130, "interrupted\nThe simulator ended with it; nothing was paid.\n") == (ended.code, ended.err)


def test_an_interrupted_demo_does_not_wait_for_its_clip(run, monkeypatch):
    """
    Interrupted while the simulator renders, the demo ends all the same: the clip is given up.
    """
    begun, said = threading.Event(), Show.event

    def endless(*_given):
        begun.set()
        while True:
            heed()

    def event(self, name, facts):
        said(self, name, facts)
        if name == "task":
            assert begun.wait(10)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_sight._hands, "remove", endless)
    monkeypatch.setattr(_sight._hands, "render_preview", lambda *_given: (CLIP.read_bytes(), b""))
    monkeypatch.setattr(_sight._eyes, "segment", lambda frame, _points: frame[..., 0] > 128)
    monkeypatch.setattr(_sight._eyes, "track", lambda clip, masks: tuple(masks.values()) * clip.total_frames)
    monkeypatch.setattr(Show, "event", event)
    ended = run("demo")
    assert (130, "interrupted\nThe simulator ended with it; nothing was paid.\n") == (ended.code, ended.err)


def test_the_clip_is_shipped():
    """
    The package holds the clip that the demo edits.
    """
    assert (files("kling_async.simulator") / "media" / "bunny-24fps-4s.mp4").is_file()
