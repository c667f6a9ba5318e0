"""
Read by mypy and pyright, never run: what users write has the types that they expect.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import assert_type

from kling_async import (
    Addition,
    ApiKey,
    Image,
    KlingClient,
    Marked,
    Mask,
    Point,
    PostgresStore,
    Preview,
    Removal,
    SelectionInfo,
    SelectionSession,
    SelectionState,
    SqliteStore,
    Swap,
    Task,
    Video,
    from_dict,
    open_transport,
    to_dict,
)
from kling_async.simulator import Simulator
from kling_async.stores import Intent, IntentStore
from kling_async.transport import Transport


async def calls(client: KlingClient) -> None:
    assert_type(await client.init_selection(video_url="https://example.com/clip.mp4"), SelectionInfo)
    assert_type(await client.add_selection("1", 0, [Point(0.5, 0.5), (0.1, 0.2)]), Marked)
    assert_type(await client.delete_selection("1", 0, [(0.1, 0.2)]), Marked)
    assert_type(await client.preview_selection("1"), Preview)
    assert_type(await client.create_task("1", Removal.of("it")), Task)
    assert_type(await client.get_task(external_task_id="order-1"), Task)
    assert_type(await client.list_tasks(), tuple[Task, ...])
    assert_type(client.iter_tasks(), AsyncIterator[Task])
    assert_type(client.watch("1"), AsyncIterator[Task])
    task = await client.wait("1")
    assert_type(task.units, Decimal | None)
    assert_type(task.video, Video)
    assert_type(await client.download(task.video, "out.mp4"), Path)
    assert_type(await client.request("GET", "/account/costs", params={"start_time": 1}), object)


async def selections(client: KlingClient, state: SelectionState) -> None:
    async with SelectionSession(client, state=state) as selection:
        assert_type(selection, SelectionSession)
        assert_type(selection.state, SelectionState)
        marked = await selection.add_points(40, [(0.8, 0.53)])
        assert_type(marked.masks, tuple[Mask, ...])
        assert_type(marked.masks[0].bbox, tuple[int, int, int, int])
        picture = Image.from_url("https://example.com/hat.png")
        for edit in (Removal.of("a"), Swap.of("a", "b", picture), Addition.of("a", picture, duration=10, mode="pro")):
            assert_type(await selection.create_task(edit), Task)


async def clients() -> None:
    assert_type(await open_transport(), Transport)
    async with KlingClient(ApiKey("sk"), transport=Simulator().transport(), store=SqliteStore("a")) as client:
        assert_type(client, KlingClient)
    store: IntentStore = PostgresStore("postgresql://h/orders", lease=600.0, schema="kling", connections=8)
    assert_type(await store.recent(), tuple[Intent, ...])
    assert_type(from_dict(Task, to_dict(Task(task_id="1", status="succeed"))), Task)
