"""
Runs a command to its end, whatever that is, and says it: done, an error in a line or two, or interrupted.

Decides how signals, errors and warnings reach people. Knows nothing of what the command does.
"""

import logging
import signal
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import anyio

from kling_async.errors import KlingError, KlingWarning, UnknownOutcomeError

from ._codes import Exit, exit_code
from ._service import Underway
from ._show import Show
from ._words import words

Work = Callable[[], Awaitable[Exit | None]]


def run(work: Work, show: Show, underway: Underway) -> int:
    """
    Run a command and return its exit code.

    Args:
        work: The command; it returns its exit code, or None for done.
        show: Its voice.
        underway: What it leaves running, kept up to date by the command.
    """
    with _heard(show):
        try:
            return anyio.run(_interruptible, work, show, underway, backend="asyncio")
        except KeyboardInterrupt:
            # Where the loop cannot receive signals itself, asyncio cancels the command and ends like this.
            _stopping(show, underway)
            return _interrupted(show, underway)


async def _interruptible(work: Work, show: Show, underway: Underway) -> int:
    """
    A first signal cancels the command, and further ones are received and left alone until all is said.
    """
    code: int | None = None
    with _signals() as signals:
        async with anyio.create_task_group() as group:
            if signals is not None:
                group.start_soon(_stop, signals, group.cancel_scope, show, underway)
            try:
                code = await work() or Exit.DONE
            except (KlingError, OSError) as error:
                code = _failed(error, show, underway)
            group.cancel_scope.cancel()
        return _interrupted(show, underway) if code is None else code


@contextmanager
def _signals() -> Iterator[AsyncIterator[signal.Signals] | None]:
    """None where a loop cannot receive signals: on Windows, and in any thread but the first."""
    with ExitStack() as stack:
        signals = None
        with suppress(NotImplementedError, RuntimeError, ValueError):
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
        yield signals


async def _stop(
    signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope, show: Show, underway: Underway
) -> None:
    async for _ in signals:
        _stopping(show, underway)
        scope.cancel()


def _stopping(show: Show, underway: Underway) -> None:
    """At once, for the command may need a moment to wind down."""
    show.stop("stopped" if underway.endless else "interrupted")


def _interrupted(show: Show, underway: Underway) -> int:
    if underway.endless:
        return Exit.DONE
    show.event("interrupted", {"exit_code": Exit.INTERRUPTED, **underway.facts})
    for line in underway.lines:
        show.advice(line)
    return Exit.INTERRUPTED


def _failed(error: KlingError | OSError, show: Show, underway: Underway) -> int:
    code = exit_code(error)
    # An unknown outcome speaks of the create itself, and says better what to do.
    left = underway.lines if underway.take_up and not isinstance(error, UnknownOutcomeError) else ()
    if isinstance(error, BrokenPipeError):
        # As with `| head`: not worth a word, unless something goes on that was paid for.
        show.unheard()
    else:
        _explained(error, code, show, underway, advise=not left)
    if left:
        show.advice(" ".join(left))
    return code


def _explained(error: KlingError | OSError, code: Exit, show: Show, underway: Underway, *, advise: bool) -> None:
    """A line for what happened, and one for what to do, which is to take up what still runs where something does."""
    told = words(error, underway.service)
    look = f"Look closer:  {underway.service.command('doctor')}" if told.look else ""
    advice = f"{told.advice} {look}".strip()
    facts = {"error": type(error).__name__, "message": told.what, "advice": advice, "exit_code": code}
    show.event("error", {**underway.facts, **told.facts, **facts})
    show.error(told.what)
    if advice and advise:
        show.advice(advice)


class _Records(logging.Handler):
    """
    The library's warnings, said like ours.
    """

    def __init__(self, show: Show) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """
        What it warns of when it is cancelled, or a batch is paused, is said better by the command itself.
        """
        if not (self._show.stopping or getattr(record, "paused", False)):
            self._show.warning(record.getMessage())


@contextmanager
def _heard(show: Show) -> Iterator[None]:
    def told(message: Warning | str, *_where: object, **_more: object) -> None:
        show.warning(str(message))

    log, handler = logging.getLogger("kling_async"), _Records(show)
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", KlingWarning)
            warnings.showwarning = told
            yield
    finally:
        log.removeHandler(handler)
