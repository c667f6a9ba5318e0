"""
The commands and their options, as cyclopts reads them; what they do is in a module each.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

import kling_async

from . import _edit, _reconcile, _tasks
from ._batch_app import batch
from ._codes import Exit
from ._order import DOUBT, Order
from ._run import run
from ._service import APP, Service, Underway
from ._show import Json, Show

Force = Annotated[bool, Parameter(name="--force", negative=(), show_default=False)]
Every = Annotated[bool, Parameter(name="--all", negative=(), show_default=False)]
Status = Literal["submitted", "processing", "succeed", "failed"]
Statuses = Annotated[tuple[Status, ...], Parameter(negative=(), show_default=False)]
Eyes = Annotated[bool | None, Parameter(name="--eyes", negative="--no-eyes")]

app = App(
    name=APP,
    help=(
        "Add, swap or remove an object in a clip, with Kling's multi-elements video editing.\n\n"
        "The key comes from the environment: COMETAPI_KEY, or KLING_API_KEY, or KLING_ACCESS_KEY with "
        "KLING_SECRET_KEY; KLING_BASE_URL names another host.\n\n"
        "Exit codes: 0 done, 1 the edit, the task or a check failed, 2 wrong usage or input, 3 no usable credentials, "
        "4 the service could not be reached, 130 interrupted."
    ),
    help_format="plaintext",
    version=kling_async.__version__,
)
tasks = App(name="tasks", help="Look at tasks, wait for them, fetch their results.")
app.command(tasks)
app.command(batch)


def entry(tokens: Sequence[str]) -> int:
    """
    Run a command line and return its exit code.

    Args:
        tokens: The arguments.
    """
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        show = Show(json="--json" in tokens)
        show.event("error", {"error": type(error).__name__, "message": str(error), "exit_code": Exit.USAGE})
        show.error(f"{error} See {' '.join((APP, *(error.command_chain or ())))} --help.")
        return Exit.USAGE
    code: object = command(*bound.args, **bound.kwargs)
    if isinstance(code, int):
        return int(code)
    # Help and version return nothing; help that was not asked for stands for a command that is missing.
    return Exit.DONE if any(token.startswith("-") for token in tokens) else Exit.USAGE


@app.command
def demo(*, out: Path = Path("kling-demo"), json: Json = False) -> int:
    """
    See a whole edit here and now: no key, no cost, well under a minute.

    The simulator removes the stones from a shipped clip (Big Buck Bunny, (c) 2008 Blender Foundation,
    www.bigbuckbunny.org, CC BY 3.0). Needs the extra: pip install 'kling-async[cli,demo]'

    Args:
        out: Folder for the pictures and videos; its own files in it are replaced.
        json: One JSON object per line on stdout, for programs.
    """
    from ._demo import demo as work

    show = Show(json=json)
    return run(partial(work, out, show=show), show, Underway(idle="The simulator ended with it; nothing was paid."))


@app.command
def edit(source: str, /, *, order: Order | None = None, service: Service | None = None, json: Json = False) -> int:
    """
    Edit a clip: mark points, look at the mask, pay, wait, download.

    For example: kling-async edit https://example.com/clip.mp4 --point 40:0.80,0.53 --remove "the stones"

    Args:
        source: A public https URL of a clip of 2 to 10 seconds, or video_id:ID of a result of the account.
        order: What to do.
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show, underway = Show(json=json), Underway(service=service, idle="Nothing was created and nothing is paid.")
    work = partial(_edit.edit, source, order or Order(), service=service, show=show, underway=underway)
    return run(work, show, underway)


@app.command
def simulate(
    *,
    port: int = 8765,
    quota: int = 5,
    task_seconds: float = 1.0,
    eyes: Eyes = None,
    media: Path | None = None,
    json: Json = False,
) -> int:
    """
    Serve the simulator on this machine until Ctrl-C.

    Args:
        port: Where to listen; 0 takes a free port.
        quota: How many tasks may run at once.
        task_seconds: How long a task runs at least.
        eyes: Really see and edit clips; by default where the extra 'demo' is installed.
        media: Folder with clips and pictures to host; by default the shipped clip.
        json: One JSON object per line on stdout, for programs.
    """
    from ._simulate import simulate as work

    show = Show(json=json)
    chosen = partial(work, port=port, quota=quota, task_seconds=task_seconds, eyes=eyes, media=media, show=show)
    return run(chosen, show, Underway(endless=True))


@app.command
def doctor(
    *,
    service: Service | None = None,
    try_regions: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Json = False,
) -> int:
    """
    Check this machine, the key and the way to the service; it sends free calls alone.

    Args:
        service: Where.
        try_regions: Send a key that one region of Kling refuses to its other region too.
        json: One JSON object per line on stdout, for programs.
    """
    from ._doctor import doctor as work

    service = service or Service()
    show = Show(json=json)
    return run(partial(work, service=service, others=try_regions, show=show), show, Underway(service=service))


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """
    Print a script that completes commands and options in your shell.

    For bash: kling-async completion bash > ~/.local/share/bash-completion/completions/kling-async

    For zsh, in a folder of $fpath: kling-async completion zsh > _kling-async

    For fish: kling-async completion fish > ~/.config/fish/completions/kling-async.fish

    Args:
        shell: Which one.
    """
    show = Show()

    async def work() -> None:
        show.raw(app.generate_completion(shell=shell).rstrip("\n") + "\n")

    return run(work, show, Underway())


@tasks.command(name="show")
def show_task(
    task_id: str | None = None,
    /,
    *,
    external: str | None = None,
    service: Service | None = None,
    json: Json = False,
) -> int:
    """
    Show a task.

    Args:
        task_id: The service's id of it.
        external: Instead, the id of its create (external_task_id).
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show = Show(json=json)
    work = partial(_tasks.show_task, task_id, external, service=service, show=show)
    return run(work, show, Underway(service=service))


@tasks.command(name="list")
def list_tasks(
    *,
    page: int = 1,
    page_size: int = 30,
    every: Every = False,
    status: Statuses = (),
    service: Service | None = None,
    json: Json = False,
) -> int:
    """
    List the account's tasks; where the host has no list, the paid creates kept here.

    Args:
        page: From 1.
        page_size: Up to 500.
        every: All of them, instead of a page.
        status: Only tasks with this status, of all pages; give it again for more.
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show, listing = Show(json=json), _tasks.Listing(page=page, page_size=page_size, every=every, status=status)
    work = partial(_tasks.list_tasks, listing, service=service, show=show)
    return run(work, show, Underway(service=service))


@tasks.command(name="wait")
def wait(
    name: str,
    /,
    *,
    out: Path | None = None,
    force: Force = False,
    service: Service | None = None,
    json: Json = False,
) -> int:
    """
    Wait for a task's end.

    Args:
        name: The task's id, or the external id of its create.
        out: Fetch its result to this file.
        force: Replace a file that is there.
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show, underway = Show(json=json), Underway(service=service)
    work = partial(_tasks.wait, name, out, force=force, service=service, show=show, underway=underway)
    return run(work, show, underway)


@tasks.command(name="download")
def download(
    name: str, /, *, out: Path | None = None, force: Force = False, service: Service | None = None, json: Json = False
) -> int:
    """
    Fetch the result of a task that has ended.

    Args:
        name: The task's id, or the external id of its create.
        out: The file; by default kling-TASK.mp4 here.
        force: Replace a file that is there.
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show, underway = Show(json=json), Underway(service=service)
    work = partial(_tasks.download, name, out, force=force, service=service, show=show, underway=underway)
    return run(work, show, underway)


@tasks.command(name="reconcile")
def reconcile(*, doubt: float = DOUBT, service: Service | None = None, json: Json = False) -> int:
    """
    Look for the paid creates kept here of which nobody knows what became; nothing is sent again.

    These are the ones that got no usable answer, or whose command was stopped before it came.

    Args:
        doubt: Seconds for which each is looked for; two are enough for one that was sent long ago.
        service: Where.
        json: One JSON object per line on stdout, for programs.
    """
    service = service or Service()
    show = Show(json=json)
    work = partial(_reconcile.reconcile, doubt, service=service, show=show)
    return run(work, show, Underway(service=service, idle="What was not found yet stays in doubt."))
