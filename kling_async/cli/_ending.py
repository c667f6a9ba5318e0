"""
From a task to a file: wait for its end, say each change, fetch the result.

Where a file may go is decided before anything is paid, not after.
"""

from pathlib import Path

from kling_async.client import KlingClient
from kling_async.errors import InvalidInputError
from kling_async.models import Task

from ._service import Underway, result_name
from ._show import Show, megabytes


def check_target(option: str, path: Path | None, *, force: bool) -> None:
    """
    Whether a file may be written there.

    Args:
        option: The option that names it, for the error.
        path: Where to; None is fine.
        force: Whether a file that is there may be replaced.

    Raises:
        InvalidInputError: It may not.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise InvalidInputError(option, f"{path}: there is no folder {path.parent}, make it first")
    if path.is_dir():
        raise InvalidInputError(option, f"{path} is a folder: give a file name in it")
    if path.exists() and not force:
        raise InvalidInputError(option, f"{path} exists: give another name, or --force to replace it")


def task_facts(task: Task) -> dict[str, object]:
    """
    A task for programs.

    Args:
        task: The task.
    """
    video = task.videos[0] if task.videos else None
    videos = [
        {
            "video_id": each.video_id,
            "url": each.url,
            "watermark_url": each.watermark_url,
            "duration": each.duration,
        }
        for each in task.videos
    ]
    return {
        "task_id": task.task_id,
        "external_task_id": task.external_task_id,
        "status": task.status,
        "status_message": task.status_message,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "units": task.units,
        "video_id": video.video_id if video else None,
        "video_url": video.url if video else None,
        "videos": videos,
    }


def cost(task: Task) -> str:
    """
    What a task cost, as far as its reply says.

    Args:
        task: The task.
    """
    return "cost unknown: see your provider" if task.units is None else f"cost {task.units} units"


async def waited(client: KlingClient, task: Task | str, *, show: Show, underway: Underway) -> Task:
    """
    The task at its end, each change said.

    Args:
        client: An open client.
        task: A task, or its id.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        TaskFailedError: It failed.
        KlingError: As `KlingClient.wait`.
    """
    task_id = task if isinstance(task, str) else task.task_id
    with show.stage("edit", f"task {task_id}") as stage:
        async for seen in client.watch(task):
            underway.seen(seen.named(underway.external_task_id) if underway.external_task_id else seen)
            show.event("task", task_facts(seen))
            stage.say(f"task {seen.task_id} is {seen.status}")
            task = seen
        assert isinstance(task, Task)
        task.video  # noqa: B018 - raises what the status stands for
        stage.result = f"task {task.task_id} succeeded, {cost(task)}"
    return task


async def fetched(
    client: KlingClient, task: Task, path: Path | None, *, force: bool, show: Show, underway: Underway
) -> Path:
    """
    The result of a task in a file.

    Args:
        client: An open client.
        task: A task that succeeded.
        path: Where to; None names it after the task.
        force: Whether a file that is there may be replaced.
        show: The command's voice.
        underway: What the command leaves running; nothing, from here on.

    Raises:
        DownloadError: It could not be had whole.
        InvalidInputError: The path cannot be written.
    """
    target = path or result_name(task)
    check_target("--out", target, force=force)
    with show.stage("download", "asking for the result") as stage:
        await client.download(task.video, target, overwrite=force, progress=stage.progress)
        stage.result = f"{target}, {megabytes(target.stat().st_size)}"
    underway.task = None
    show.event("done", {**task_facts(task), "path": target})
    return target
