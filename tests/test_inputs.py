"""
Bad inputs that only a call can decide, and the table of all rows: none is left without a test.
"""

import os
import re
from pathlib import Path

import anyio
import pytest

from kling_async import (
    Addition,
    ApiKey,
    ClosedError,
    Image,
    InvalidInputError,
    KeyConflictError,
    KlingClient,
    Removal,
    SelectionSession,
    Slots,
    open_transport,
)
from kling_async.simulator import Simulator
from tests.doubles import KEY, client_of, script_of

CLIP = "https://example.com/clip.mp4"
ELSEWHERE = {"B32"}
"""Decided by the check of clips, which this version does not have."""


def local_client(simulator):
    return KlingClient(ApiKey(KEY), transport=simulator.transport())


@pytest.mark.parametrize(
    ("field", "call"),
    [
        pytest.param("video_url", lambda c: c.init_selection(video_url="http://example.com/a.mp4"), id="B28-http"),
        pytest.param("video_url", lambda c: c.init_selection(video_url="https://10.0.0.1/a.mp4"), id="B30-private"),
        pytest.param("video_url", lambda c: c.init_selection(video_url="https://localhost/a.mp4"), id="B30-localhost"),
        pytest.param("callback_url", lambda c: c.create_task("1", Removal.of("it"), callback_url="x"), id="B52"),
        pytest.param("external_task_id", lambda c: c.get_task(external_task_id="8781"), id="B55"),
    ],
)
async def test_a_call_decides_what_depends_on_its_host(field, call):
    """
    A real host cannot fetch from here; nothing is sent.
    """
    async with client_of() as client:
        with pytest.raises(InvalidInputError) as caught:
            await call(client)
        assert field == caught.value.field
        assert [] == script_of(client).requests


async def test_b54_an_external_id_with_another_payload_is_a_conflict():
    """
    B54: the id of one edit is refused to another before anything is sent.
    """
    simulator = Simulator(task_seconds=0)
    async with local_client(simulator) as client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(0, [(0.5, 0.5)])
        await selection.create_task(Removal.of("it"), external_task_id="order-1")
        seen = len(simulator.log)
        with pytest.raises(KeyConflictError):
            await selection.create_task(Removal.of("more"), external_task_id="order-1")
        assert seen == len(simulator.log)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
async def test_b59_a_number_of_slots_or_connections_is_a_whole_number_from_one(wrong):
    """
    B59: told by name, wherever such a number is taken.
    """
    with pytest.raises(InvalidInputError, match="slots"):
        Slots(wrong)
    with pytest.raises(InvalidInputError, match="connections"):
        KlingClient(ApiKey(KEY), connections=wrong)
    with pytest.raises(InvalidInputError, match="connections"):
        await open_transport(connections=wrong)


def test_b60_a_misspelt_field_is_a_type_error():
    """
    B60: Python's own word for it.
    """
    with pytest.raises(TypeError, match="negitive_prompt"):
        Removal(prompt="Delete it from <<<video_1>>>", negitive_prompt="x")


@pytest.mark.parametrize("kind", ["folder", "link", "file", "no folder"])
async def test_b61_a_path_that_cannot_be_written_is_told_before_any_request(kind, tmp_path):
    """
    B61: a folder, a link, a file that is there, a folder that is not; overwriting is for files alone.
    """
    path = tmp_path / "out.mp4"
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "file":
            path.write_bytes(b"mine")
        case _:
            path = tmp_path / "missing" / "out.mp4"
    simulator = Simulator()
    async with local_client(simulator) as client:
        with pytest.raises(InvalidInputError, match="path"):
            await client.download("https://simulator.invalid/media/any.mp4", path)
    assert () == tuple(simulator.log)


async def test_b62_a_closed_client_refuses_every_call():
    """
    B62: outside of its block each call names itself and the reason.
    """
    client = client_of()
    calls = [
        ("init_selection", lambda: client.init_selection(video_url=CLIP)),
        ("add_selection", lambda: client.add_selection("1", 0, [(0.5, 0.5)])),
        ("create_task", lambda: client.create_task("1", Removal.of("it"))),
        ("get_task", lambda: client.get_task("1")),
        ("wait", lambda: client.wait("1")),
        ("download", lambda: client.download(CLIP, "out.mp4")),
        ("request", lambda: client.request("GET", "/account/costs")),
    ]
    for name, call in calls:
        with pytest.raises(ClosedError, match=rf"\.{name}\(\)"):
            await call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_b63_a_client_is_used_on_its_own_loop_and_in_its_own_process(monkeypatch):
    """
    B63: another loop, or a child after a fork, is a RuntimeError that names both.
    """
    async with client_of() as client:
        monkeypatch.setattr("kling_async._lease._process.id", 1)
        with pytest.raises(RuntimeError, match="is used in 1"):
            await client.get_task("1")
        monkeypatch.undo()

        def elsewhere():
            with pytest.raises(RuntimeError, match="is used on"):
                anyio.run(client.get_task, "1")

        await anyio.to_thread.run_sync(elsewhere)


async def test_b64_a_removal_of_nothing_marked_is_refused_and_an_addition_is_not():
    """
    B64: only what replaces or deletes must be marked.
    """
    simulator = Simulator(task_seconds=0)
    async with local_client(simulator) as client, SelectionSession(client, video_url=CLIP) as selection:
        with pytest.raises(InvalidInputError, match="needs marked points"):
            await selection.create_task(Removal.of("it"))
        hat = Image.from_url("https://example.com/hat.png")
        await selection.create_task(Addition.of("the hat", hat))
    assert 1 == sum(simulator.charges.values())


def test_every_row_of_the_table_of_bad_inputs_has_a_test():
    """
    Rows are named by their number, in an id or a docstring.
    """
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"\bB\d+(?!\d)|(?<=test_b)\d+", text, re.IGNORECASE))
    named = {f"B{name.upper().lstrip('B')}" for name in named}
    rows = {f"B{number}" for number in range(1, 65)} - {"B23", "B27", "B45"} - ELSEWHERE
    assert set() == rows - named
