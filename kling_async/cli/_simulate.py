"""
`simulate`: the service on this machine until Ctrl-C, with clips to edit and the lines that point our client at it.
"""

from pathlib import Path

import anyio

from kling_async.simulator import Footage, Simulator

from ._codes import UsageError
from ._footage import CLIP, CREDIT, FRAME_INDEX, STONES, check_extra
from ._service import APP
from ._show import Show

_KINDS = frozenset({".mp4", ".mov", ".png", ".jpg", ".jpeg"})


async def simulate(
    *, port: int, quota: int, task_seconds: float, eyes: bool | None, media: Path | None, show: Show
) -> None:
    """
    Serve the simulator.

    Args:
        port: Where to listen; 0 takes a free one.
        quota: How many tasks may run at once.
        task_seconds: How long a task runs.
        eyes: Whether clips are really seen and edited; None where that can be done.
        media: A folder whose clips and pictures are published; None for the shipped clip.
        show: The command's voice.

    Raises:
        UsageError: There is nothing to publish, or eyes are asked for without the extra.
        InvalidInputError: A number makes no sense, or the port is taken.
    """
    sees = _sees(show) if eyes is None else eyes
    if eyes:
        check_extra()
    files = _files(media)
    with Simulator(quota=quota, task_seconds=task_seconds, eyes=sees) as simulator:
        async with simulator.serve(port=port) as base_url:
            urls = [simulator.publish(path, footage=_footage(path)) for path in files]
            show.event("serving", {"base_url": base_url, "eyes": sees, "media": urls})
            show.line(f"The simulator serves at {base_url} until Ctrl-C. For clients in another terminal:")
            show.line(f"\n  export KLING_BASE_URL={base_url} COMETAPI_KEY=any\n")
            show.line("It hosts:\n")
            for url in urls:
                show.line(f"  {url}")
            if media is None:
                spots = " ".join(f"--point {FRAME_INDEX}:{point.x:g},{point.y:g}" for point in STONES)
                show.line(f"  {CREDIT}", "dim")
                show.line(f"\nTry:\n\n  {APP} edit {urls[0]} {spots} --remove 'the stones'")
            await anyio.sleep_forever()


def _sees(show: Show) -> bool:
    try:
        check_extra()
    except UsageError:
        show.line("Without the extra 'demo' masks are discs and results are the clips themselves.", "dim")
        return False
    return True


def _files(media: Path | None) -> list[Path]:
    if media is None:
        return [CLIP]
    if not media.is_dir():
        raise UsageError(f"{media} is no folder: give --media a folder with clips")
    found = sorted(path for path in media.iterdir() if path.suffix.lower() in _KINDS)
    if not found:
        raise UsageError(f"{media} holds no MP4, MOV, PNG or JPEG")
    return found


def _footage(path: Path) -> Footage | None:
    """What the shipped clip is known to be, for a simulator that cannot look."""
    return Footage(width=1280, height=720, fps=24, total_frames=96) if path == CLIP else None
