"""
The `batch` commands and their options, as cyclopts reads them; what they do is in `_batch.py` and `_batch_ask.py`.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ._batch_home import Home, explained
from ._batch_watch import BatchUnderway
from ._run import Work, run
from ._service import Service
from ._show import Json, Show

BaseUrl = Annotated[str | None, Parameter(show_default=False)]

batch = App(
    name="batch",
    help="Many edits from a file: each paid once, results in a folder, gone on with after any end.",
)


def _run(work: Work, show: Show, underway: BatchUnderway) -> int:
    return run(partial(explained, work), show, underway)


@batch.command(name="run")
def run_manifest(
    manifest: Path,
    /,
    *,
    home: Home | None = None,
    name: str | None = None,
    slots: str | None = None,
    budget: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    base_url: BaseUrl = None,
    json: Json = False,
) -> int:
    """
    Do every edit of a manifest, and go on where the same command was stopped.

    For example: kling-async batch run clips.jsonl --out results --slots learned --budget 300

    Args:
        manifest: A .jsonl, .csv or .parquet file, a row an edit.
        home: Where.
        name: What the batch is called; by default as the manifest.
        slots: Tasks that may run at once, over all workers of the account: a number, or `learned` to find it out; by
            default what was said before, or 5.
        budget: Units that the batch may cost, or `none`; an edit that might cost more than is left is not paid.
        dry_run: Say what would be done and what it costs at most; nothing is sent.
        base_url: The service; by default KLING_BASE_URL, else the key's own.
        json: One JSON object per line on stdout, for programs.
    """
    from ._batch import Order, run_batch

    show, service = Show(json=json), Service(base_url=base_url)
    order = Order(manifest=manifest, home=home or Home(), service=service, name=name, slots=slots, budget=budget)
    underway = BatchUnderway(service=service, again="", idle="Nothing was sent.")
    return _run(partial(run_batch, order, dry=dry_run, show=show, underway=underway), show, underway)


@batch.command
def status(*, home: Home | None = None, name: str | None = None, base_url: BaseUrl = None, json: Json = False) -> int:
    """
    Say how far batches are, while others work on them.

    Args:
        home: Where.
        name: This batch alone.
        base_url: The service that is asked for what is left of the account's packs; by default as for `run`.
        json: One JSON object per line on stdout, for programs.
    """
    from ._batch_ask import status as work

    show, service = Show(json=json), Service(base_url=base_url)
    return _run(partial(work, home or Home(), name, service=service, show=show), show, BatchUnderway(service=service))


@batch.command
def retry(*keys: str, home: Home | None = None, name: str | None = None, json: Json = False) -> int:
    """
    Begin jobs once more that came to no result: in a new paid run where a task failed, else under the same id.

    Args:
        keys: Those alone; by default all of them.
        home: Where.
        name: Of this batch alone.
        json: One JSON object per line on stdout, for programs.
    """
    from ._batch_ask import retry as work

    show = Show(json=json)
    return _run(partial(work, keys, home or Home(), name, service=Service(), show=show), show, BatchUnderway())


@batch.command
def cancel(*keys: str, home: Home | None = None, name: str | None = None, json: Json = False) -> int:
    """
    Take back jobs that wait; what runs is paid for, and the service has no way to stop it.

    Args:
        keys: Those alone; by default all of them.
        home: Where.
        name: Of this batch alone.
        json: One JSON object per line on stdout, for programs.
    """
    from ._batch_ask import cancel as work

    show = Show(json=json)
    return _run(partial(work, keys, home or Home(), name, show=show), show, BatchUnderway())


@batch.command
def worker(*, home: Home | None = None, slots: str | None = None, base_url: BaseUrl = None, json: Json = False) -> int:
    """
    Work on all batches of an account until Ctrl-C, beside any number of other workers.

    The password of a database belongs into PGPASSWORD or ~/.pgpass: arguments can be read by everyone on the machine.

    Args:
        home: Where.
        slots: Tasks that may run at once, over all workers of the account: a number, or `learned` to find it out; by
            default what was said before, or 5.
        base_url: The service; by default KLING_BASE_URL, else the key's own.
        json: One JSON object per line on stdout, for programs.
    """
    from ._batch import work

    show, service = Show(json=json), Service(base_url=base_url)
    underway = BatchUnderway(service=service, endless=True)
    return _run(partial(work, home or Home(), slots, service=service, show=show, underway=underway), show, underway)
