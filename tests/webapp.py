"""
A web application as users write it: points are clicked over minutes, by requests that any worker may answer.

Between two requests a selection lives in the application's database alone. `WEBAPP_FOLDER` says where that lies.
"""

import os
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from secrets import token_hex

import anyio
import orjson
from anyio import to_thread
from attrs import define, frozen
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from kling_async import (
    KlingClient,
    KlingError,
    Removal,
    SelectionSession,
    SelectionState,
    SqliteStore,
    from_dict,
    to_dict,
)

FOLDER = Path(os.environ["WEBAPP_FOLDER"])


@define
class Row:
    """
    A clip, as its row has it.
    """

    selection: dict[str, object]


@frozen
class Clips:
    """
    A SQLite file with a row for each clip. Not the file of the intents: these are written while a row is locked.
    """

    path: Path

    def create(self):
        """
        Make the table where there is none.
        """
        with closing(self._connected()) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS clips (clip TEXT PRIMARY KEY, selection BLOB NOT NULL)")

    def add(self, clip, selection):
        """
        Write a new row.
        """
        with closing(self._connected()) as connection:
            connection.execute("INSERT INTO clips VALUES (?, ?)", (clip, orjson.dumps(selection)))

    @asynccontextmanager
    async def locked(self, clip: str) -> AsyncIterator[Row]:
        """
        A row that no other process reads or writes meanwhile; it is written back however the block ends.
        """
        connection = await to_thread.run_sync(self._connected)
        try:
            row = await to_thread.run_sync(_begin, connection, clip)
            try:
                yield row
            finally:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(_commit, connection, clip, row)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(connection.close)

    def _connected(self):
        return sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)


def _begin(connection, clip):
    connection.execute("BEGIN IMMEDIATE")
    found = connection.execute("SELECT selection FROM clips WHERE clip = ?", (clip,)).fetchone()
    if found is None:
        raise HTTPException(404, f"there is no clip {clip}")
    return Row(orjson.loads(found[0]))


def _commit(connection, clip, row):
    connection.execute("UPDATE clips SET selection = ? WHERE clip = ?", (orjson.dumps(row.selection), clip))
    connection.execute("COMMIT")


db = Clips(FOLDER / "clips.sqlite")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, KlingClient]]:
    """
    One client for as long as the worker runs.
    """
    await to_thread.run_sync(db.create)
    async with KlingClient.from_env(store=SqliteStore(FOLDER / "intents.sqlite")) as client:
        yield {"kling": client}


@asynccontextmanager
async def opened(clip: str, request: Request) -> AsyncIterator[SelectionSession]:
    """
    The clip's selection as the last request left it; what this one leaves is stored.
    """
    async with (
        db.locked(clip) as row,
        SelectionSession(request.state.kling, state=from_dict(SelectionState, row.selection)) as selection,
    ):
        try:
            yield selection
        finally:
            row.selection = to_dict(selection.state)


app = FastAPI(lifespan=lifespan)


@app.exception_handler(KlingError)
async def told(request: Request, error: KlingError) -> JSONResponse:
    """
    Any error of ours, by its name.
    """
    return JSONResponse({"error": type(error).__name__, "reason": str(error)}, 409)


@app.get("/pid")
async def pid() -> int:
    """
    Who answers.
    """
    return os.getpid()


@app.post("/clips", status_code=201)
async def begin(video_url: str, request: Request) -> dict[str, str]:
    """
    Open a selection and give it a name.
    """
    clip = token_hex(8)
    async with SelectionSession(request.state.kling, video_url=video_url) as selection:
        await to_thread.run_sync(db.add, clip, to_dict(selection.state))
    return {"clip": clip}


@app.post("/clips/{clip}/points")
async def add(clip: str, frame: int, x: float, y: float, request: Request) -> list[dict[str, object]]:
    """
    One click, and the masks that the frame then has.
    """
    async with opened(clip, request) as selection:
        marked = await selection.add_points(frame, [(x, y)])
    return [{"png": b64encode(mask.png or b"").decode(), "area": mask.area} for mask in marked.masks]


@app.get("/clips/{clip}/preview")
async def preview(clip: str, request: Request) -> dict[str, object]:
    """
    The clip with its mask.
    """
    async with opened(clip, request) as selection:
        return to_dict(await selection.preview())


@app.post("/orders/{order}", status_code=202)
async def submit(order: str, clip: str, what: str, request: Request) -> dict[str, object]:
    """
    The paid call, for exactly the points that the row has.
    """
    async with opened(clip, request) as selection:
        await selection.rebuild()  # a deploy may have cut a click short
        task = await selection.create_task(Removal.of(what), external_task_id=f"order-{order}")
    return to_dict(task)


@app.get("/orders/{order}")
async def look(order: str, request: Request) -> dict[str, object]:
    """
    The order's task as it stands.
    """
    return to_dict(await request.state.kling.get_task(external_task_id=f"order-{order}"))
