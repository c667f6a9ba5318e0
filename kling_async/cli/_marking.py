"""
From a clip to its mask: a selection opened, marked and previewed, each step said.

Decides how a mask is described. Pays nothing.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kling_async.client import KlingClient
from kling_async.errors import SelectionRejectedError
from kling_async.models import Marked, SelectionInfo
from kling_async.points import Point
from kling_async.selection import SelectionSession

from ._codes import UsageError
from ._show import Show, megabytes

FIT = "MP4 or MOV of 2 to 5 or 7 to 10 s, both sides 720 to 2160 px, at 24, 30 or 60 fps"
"""https://klingai.com/document-api/api/video/multi-elements.md"""


def clip_text(info: SelectionInfo) -> str:
    """
    A clip as people describe it, as far as the service told.

    Args:
        info: What it told.
    """
    parts = [
        f"{info.width} x {info.height}" if info.width and info.height else "",
        f"{info.total_frames} frames" if info.total_frames else "",
        f"{info.fps:g} fps" if info.fps else "",
        f"{info.duration:.1f} s" if info.duration else "",
    ]
    return ", ".join(part for part in parts if part) or f"session {info.session_id}"


def mask_facts(frame_index: int, marked: Marked) -> dict[str, object]:
    """
    The masks of one frame for programs.

    Args:
        frame_index: The frame.
        marked: The service's answer.
    """
    masks = [
        {"object_id": mask.object_id, "area": mask.area, "bbox": mask.bbox, "width": mask.width, "height": mask.height}
        for mask in marked.masks
    ]
    return {"frame_index": frame_index, "area": sum(mask.area for mask in marked.masks), "masks": masks}


def mask_text(label: str, marked: Marked) -> str:
    """
    The masks of one frame for people: how large they are.

    Args:
        label: What was marked.
        marked: The service's answer.
    """
    if not marked.masks:
        return f"{label}: no mask came back"
    area = sum(mask.area for mask in marked.masks)
    share = 100 * area / (marked.masks[0].width * marked.masks[0].height)
    objects = f" in {len(marked.masks)} objects" if len(marked.masks) > 1 else ""
    return f"{label}: {area:,} pixels{objects}, {share:.1f} % of the frame"


@asynccontextmanager
async def opened(
    client: KlingClient, *, show: Show, video_url: str | None = None, video_id: str | None = None
) -> AsyncIterator[SelectionSession]:
    """
    An open selection.

    Args:
        client: An open client.
        show: The command's voice.
        video_url: Its clip.
        video_id: Instead, a result of the same account.

    Raises:
        UsageError: The service cannot use the clip.
        KlingError: As entering a `SelectionSession`.
    """
    async with AsyncExitStack() as stack:
        with show.stage("session", "the service looks at the clip") as stage:
            selection = SelectionSession(client, video_url=video_url, video_id=video_id)
            try:
                await stack.enter_async_context(selection)
            except SelectionRejectedError as error:
                what = f"the service cannot use this clip (data.status {error.selection_status})"
                raise UsageError(f"{what}: it takes {FIT}") from error
            info = selection.info
            assert info is not None
            facts = {name: getattr(info, name) for name in ("width", "height", "fps", "total_frames", "duration")}
            show.event("session", {"session_id": info.session_id, **facts})
            stage.result = clip_text(info)
        yield selection


async def mark(
    selection: SelectionSession, frame_index: int, points: Sequence[Point], *, show: Show, label: str = ""
) -> Marked:
    """
    Mark points on one frame.

    Args:
        selection: An open selection.
        frame_index: The frame.
        points: What is meant.
        show: The command's voice.
        label: What that is called; by default the frame.

    Raises:
        KlingError: As `SelectionSession.add_points`.
    """
    count = "1 point" if len(points) == 1 else f"{len(points)} points"
    with show.stage("mask", f"marking {count} on frame {frame_index}") as stage:
        marked = await selection.add_points(frame_index, points)
        show.event("mask", mask_facts(frame_index, marked))
        stage.result = mask_text(label or f"frame {frame_index}", marked)
    return marked


async def preview(
    client: KlingClient, selection: SelectionSession, path: Path | None, *, force: bool, show: Show
) -> None:
    """
    Have the mask drawn on every frame, and save it where a file is named.

    Args:
        client: An open client.
        selection: An open selection with marks.
        path: Where to; None for nowhere.
        force: Whether a file that is there may be replaced.
        show: The command's voice.

    Raises:
        KlingError: As `SelectionSession.preview` and `KlingClient.download`.
    """
    with show.stage("preview", "the service draws the mask on every frame") as stage:
        shown = await selection.preview()
        stage.result = shown.video_url or "the service named no video"
        saved = path if shown.video_url else None
        if shown.video_url and saved:
            await client.download(shown.video_url, saved, overwrite=force, progress=stage.progress)
            stage.result = f"{saved}, {megabytes(saved.stat().st_size)}"
        show.event("preview", {"video_url": shown.video_url, "cover_url": shown.cover_url, "path": saved})
