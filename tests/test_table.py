"""
The table that the benchmarks print, and the server that they ask.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import anyio
import anyio.lowlevel
import pytest

from benchmarks import groups, raw, storm
from benchmarks.answers import RIVALS, TASK
from benchmarks.rounds import AT_ONCE, burst, in_turns, lasting, own_tasks, ratios
from benchmarks.server import WAITING, serving
from benchmarks.table import Row, Skipped, printed, shown, status
from kling_async import ApiKey, KlingClient, Removal

pytestmark = pytest.mark.real_clock

DIRECT = build_opener(ProxyHandler({}))
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base_url():
    with serving() as url:
        yield url.removesuffix("/kling")


def got(url):
    with DIRECT.open(url) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("value", "more", "expected"),
    [
        (1.0, False, "goal"),
        (1.1, False, "goal"),
        (1.2, False, "gate"),
        (1.3, False, "missed"),
        (5.0, True, "goal"),
        (1.2, True, "gate"),
        (1.0, True, "missed"),
    ],
)
def test_a_row_says_how_far_it_comes(value, more, expected):
    """
    To the goal, to the gate, or not even there; higher is better where it says so.
    """
    gate, goal = (1.1, 1.3) if more else (1.25, 1.1)
    row = Row("figure", value, gate, goal, more)
    assert (expected, expected == "missed") == (row.verdict, row.missed)


def test_a_row_of_rounds_is_their_median_and_tells_how_far_they_lie_apart():
    """
    The lowest and the highest stand beside it.
    """
    row = Row.of("figure", [3.0, 1.0, 2.0], 2.5, unit="x")
    assert (2.0, (1.0, 3.0), "gate") == (row.value, row.noise, row.verdict)
    assert ("figure", "2.00x", "1.00..3.00", "2.5x", "", "gate") == row.cells


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0"), (0.003571, "0.00357"), (1.1, "1.10"), (52.04, "52.0"), (12_345.6, "12,346")]
)
def test_a_number_is_shown_with_three_digits(value, expected):
    """
    Or with all before the point.
    """
    assert expected == shown(value)


def test_the_exit_status_tells_of_a_missed_gate(capsys):
    """
    What was skipped, or has no gate, misses none.
    """
    fine = [Row("a", 2.0), Row("b", 0, 0, 0), Skipped("c", "needs curl")]
    assert 0 == status(printed(fine))
    assert 1 == status(printed([*fine, Row("d", 2.0, 1.0)], head=False))
    lines = capsys.readouterr().out.splitlines()
    assert 1 == len({len(line) for line in lines})
    assert ["skipped", "needs curl"] == [cell.strip() for cell in lines[4].split("|")[2:4]]


def test_a_group_that_needs_what_is_not_installed_is_told_as_skipped(monkeypatch):
    """
    With the lines that it had before.
    """
    missing = ModuleNotFoundError("No module named 'pycocotools.mask'", name="pycocotools.mask")

    def rows():
        yield Row("first", 1.0)
        raise missing

    monkeypatch.setattr(groups, "life", rows)
    assert [Row("first", 1.0), Skipped("groups", "needs pycocotools")] == groups.collected("groups:life")
    missing.name = "kling_async.nowhere"
    with pytest.raises(ModuleNotFoundError):
        groups.collected("groups:life")


def test_a_name_that_is_not_known_is_told():
    """
    With those that there are, and before anything is measured.
    """
    command = [sys.executable, "-m", "benchmarks", "decode", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (2, "") == (done.returncode, done.stdout), done.stderr
    assert done.stderr.startswith("nonsense: not known; there are calls, ")


async def test_rounds_take_turns_after_one_that_is_not_counted():
    """
    A B A B; ratios are taken within a round.
    """
    seen = []

    async def way(name):
        seen.append(name)
        return float(len(seen))

    found = await in_turns({name: lambda name=name: way(name) for name in "ab"}, 2)
    assert ["a", "b"] * 3 == seen
    assert {"a": [3.0, 5.0], "b": [4.0, 6.0]} == found
    assert [0.75, 5 / 6] == ratios(found["a"], found["b"])


async def test_a_burst_makes_as_many_calls_as_it_was_told():
    """
    And one that lasts tells how many these were.
    """
    calls = 0

    async def call():
        nonlocal calls
        calls += 1
        await anyio.lowlevel.checkpoint()

    await burst(call, 3, 10)
    assert 10 == calls
    made, _, _ = await lasting(call, 3, 0.01)
    assert 10 + made == calls


async def test_a_programs_own_tasks_end_with_the_block():
    """
    Waited for, or cut off.
    """
    ended = []

    async def task(seconds):
        await anyio.sleep(seconds)
        ended.append(seconds)

    async with own_tasks() as start:
        start(task, 0)
    async with own_tasks(cut_off=True) as start:
        start(task, 3600)
    assert [0] == ended


async def test_the_server_answers_as_each_service_does(base_url):
    """
    To ours its endpoints, to others what they poll.
    """
    async with KlingClient(ApiKey("sk-made-up"), base_url=f"{base_url}/kling") as client:
        assert (await client.get_task("1")).has_video
        info = await client.init_selection(video_url="https://example.com/clip.mp4")
        assert 3 == len((await client.add_selection(info.session_id, 0, [(0.5, 0.5)])).masks)
        await client.clear_selection(info.session_id)
        tasks = [await client.create_task(info.session_id, Removal.of("the stones")) for _ in range(2)]
        assert 2 == len({task.task_id for task in tasks})
    assert RIVALS == {name: got(f"{base_url}/{name}/whatever") for name in RIVALS}


async def test_the_server_answers_at_once_those_who_wait_for_each_other(base_url):
    """
    So that as many connections are open as it was told.
    """
    client = KlingClient(ApiKey("sk-made-up"), base_url=f"{base_url}/slow/5")
    async with client, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(client.get_task, str(number))


def test_the_server_reads_requests_in_pieces_and_many_at_once(base_url):
    """
    And counts none before it is whole.
    """
    parts = urlsplit(base_url)
    post = b"POST /kling/v1/videos/multi-elements/clear-selection HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    get = b"GET /kling/v1/videos/multi-elements/1 HTTP/1.1\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        for piece in (post[:20], post[20:-1], post[-1:] + get + get):
            connection.sendall(piece)
        read = b""
        while read.count(TASK) < 2:
            read += connection.recv(65536)
    assert 3 == read.count(b"HTTP/1.1 200 OK")


def test_the_server_knows_when_each_of_those_that_are_waited_for_ends(base_url):
    """
    Singly and on pages, and counts the looks.
    """
    url = f"{base_url}/waiting/0.0/v1/videos/multi-elements"
    page = got(f"{url}?pageNum=1&pageSize=500")["data"]
    assert [str(WAITING - number) for number in range(500)] == [row["task_id"] for row in page]
    assert page[0] == got(f"{url}/{WAITING}")["data"]
    assert {"requests": 2} == got(f"{base_url}/waiting/0.0/count")["data"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_raw_client_is_answered_as_often_as_it_asks(base_url):
    """
    Its rate is the server's ceiling.
    """
    wall, cpu = await raw.ceiling(f"{base_url}/kling", AT_ONCE, AT_ONCE * 3)
    assert wall > 0
    assert cpu > 0


async def test_a_storm_sees_an_answer_in_the_wrong_place(base_url):
    """
    And what is raised; a call that was cut off is not wrong.
    """
    async with KlingClient(ApiKey("sk-made-up"), base_url=f"{base_url}/kling") as client:
        seen = storm.Storm(client)
        await seen.call("878106242831892487", 60.0)
        await seen.call("5", 60.0)
        await seen.call("5", 0.0)
    await seen.call("5", 60.0)
    assert {"well": 1, "wrong": 2, "cut off": 1} == seen.ends


async def test_a_storm_sees_what_is_left_behind(monkeypatch):
    """
    A task, an open file.
    """
    monkeypatch.setattr(storm, "SETTLING", 0.05)
    before = storm.remains()
    assert {} == await storm.left(before)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        with socket.socket():
            await anyio.wait_all_tasks_blocked()
            left = await storm.left(before)
        group.cancel_scope.cancel()
    assert {"task": 1, "socket": 1} == left
