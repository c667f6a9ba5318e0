"""
What a command says: lines and live progress for people, one JSON object per line for programs.

Decides what goes to which stream. Knows nothing of clients or tasks. With `--json` stdout holds objects
alone and people's lines go to stderr; without, stdout is for people. Errors are always on stderr.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, TypeVar

import anyio
import orjson
from attrs import define, field
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]
"""The option by which programs say that they listen."""
NAME_WIDTH = 9
"""Columns that the names of stages take, so that what is said of them lines up."""
_VERDICT_WIDTH = 11
_CHECK_WIDTH = 11
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "not checked": "dim"}


def seconds(spent: float) -> str:
    """
    A length of time as people say it.

    Args:
        spent: In seconds.
    """
    if spent < 59.95:
        return f"{spent:.1f} s"
    minutes, rest = divmod(round(spent), 60)
    return f"{minutes} min {rest:02d} s"


def megabytes(count: int) -> str:
    """
    A number of bytes as people say it.

    Args:
        count: Of bytes.
    """
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


@define
class Stage:
    """
    One step of a command while it goes on, drawn as a spinner, what is happening, and the time so far.
    """

    name: str
    """A word, such as `mask`."""
    doing: str
    """What is happening now."""
    result: str = ""
    """What is said of it once it is done."""
    spent: float = 0.0
    """Seconds that it took, once it is done."""
    _since: float = field(factory=time.perf_counter, init=False)
    _spinner: Spinner = field(factory=lambda: Spinner("dots", style="cyan"), init=False)

    def say(self, doing: str) -> None:
        """
        Another thing is happening now.
        """
        self.doing = doing

    def progress(self, done: int, total: int | None) -> None:
        """
        Bytes have come; the shape of a download's `progress`.
        """
        self.doing = f"{megabytes(done)} of {megabytes(total)}" if total else megabytes(done)

    def end(self) -> None:
        """
        Stop its clock.
        """
        self.spent = time.perf_counter() - self._since

    def __rich__(self) -> Table:
        row = Table.grid(padding=(0, 1))
        elapsed = Text(seconds(time.perf_counter() - self._since), style="dim")
        row.add_row(self._spinner, Text(f"{self.name:<{NAME_WIDTH}}", style="bold"), Text(self.doing), elapsed)
        return row


S = TypeVar("S", bound=Stage)


class _Lines(Console):
    """
    A console that leaves it to its command what becomes of it when nobody reads any more.
    """

    def on_broken_pipe(self) -> None:
        """
        Rich would end the process from here.
        """
        self.quiet = True
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    return _Lines(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


@define
class Show:
    """
    The voice of one command.
    """

    json: bool = False
    """Whether programs listen."""
    stopping: bool = field(default=False, init=False)
    """Whether the command was interrupted: what the library warns of then is said better by the command."""
    spent: dict[str, float] = field(factory=dict, init=False)
    """Seconds by stage."""
    _errors: Console = field(factory=lambda: _console(stderr=True), init=False)
    _people: Console = field(init=False)
    _live: bool = field(default=False, init=False)
    _asking: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._people = _console(stderr=self.json)

    @property
    def tick(self) -> str:
        """
        A mark for what is done, as far as the terminal's alphabet has one.
        """
        return "✓" if self._people.encoding.lower().startswith("utf") else "+"

    def event(self, name: str, facts: Mapping[str, object]) -> None:
        """
        Tell programs; people hear nothing of it.
        """
        if self.json:
            # Through sys.stdout rather than its buffer: what tests and shells put in its place is respected.
            print(orjson.dumps({"event": name, **facts}, default=str).decode(), flush=True)

    def line(self, text: str = "", style: str = "") -> None:
        """
        Tell people.
        """
        self._people.print(Text(text, style=style))

    def raw(self, text: str) -> None:
        """
        Say something to a program that is not JSON, as it is.
        """
        sys.stdout.write(text)
        sys.stdout.flush()

    def rows(self, rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> None:
        """
        Show people columns; what stands in them is there to be copied, so that nothing is ever cut or folded.

        Args:
            rows: What stands in them.
            head: Their names, if they have any; without, the first column is one of names.
        """
        widths = [max(map(len, column)) for column in zip(*filter(None, (head, *rows)), strict=True)]
        for row in (head, *rows) if head else rows:
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            style = "bold" if row is head or not head else ""
            first = Text(f"  {cells[0]}", style=style)
            self._people.print(Text.assemble(first, f"  {'  '.join(cells[1:])}".rstrip()))

    def error(self, text: str) -> None:
        """
        Say what went wrong and what to do next.
        """
        self._aloud(Text.assemble(("error: ", "bold red"), text))

    def warning(self, text: str) -> None:
        """
        Say what is odd but goes on.
        """
        self._aloud(Text.assemble(("warning: ", "yellow"), text))

    def advice(self, text: str) -> None:
        """
        Say something that belongs to an error before it.
        """
        self._aloud(Text(text))

    def stop(self, word: str) -> None:
        """
        Say that it ends early, on a line of its own.

        Args:
            word: How that is called.
        """
        self.stopping = True
        self.advice(f"\n{word}" if self._asking else word)

    def unheard(self) -> None:
        """
        Nobody reads stdout any more: say nothing more there, not even what is still in its buffer.
        """
        self.json = False
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def _aloud(self, text: Text) -> None:
        # Beside a live line on the same terminal, only its own console knows where the cursor is.
        beside = self._live and self._errors.is_terminal
        (self._people if beside else self._errors).print(text)

    @property
    def draws(self) -> bool:
        """
        Whether people see what goes on while it does.
        """
        return self._people.is_interactive

    def stage(self, name: str, doing: str) -> AbstractContextManager[Stage]:
        """
        A step: live on a terminal while it goes on, one line when it is done, nothing when it fails.

        Args:
            name: A word.
            doing: What happens at first.
        """
        return self.following(Stage(name, doing))

    @contextmanager
    def following(self, stage: S) -> Iterator[S]:
        """
        The same for a step that is drawn in its own way.

        Args:
            stage: The step.
        """
        name = stage.name
        if self.draws:
            with Live(stage, console=self._people, transient=True, refresh_per_second=10):
                self._live = True
                try:
                    yield stage
                finally:
                    self._live = False
        else:
            yield stage
        stage.end()
        self.spent[name] = self.spent.get(name, 0) + stage.spent
        self.done(name, stage.result, seconds(stage.spent))

    def done(self, name: str, result: str, spent: str = "") -> None:
        """
        Tell people that a step is done.

        Args:
            name: A word.
            result: What came of it.
            spent: How long it took, if that is worth a word.
        """
        parts = (f"{self.tick} ", "green"), (f"{name:<{NAME_WIDTH}} ", "bold"), result
        self._people.print(Text.assemble(*parts, (f"  {spent}".rstrip(), "dim")))

    def verdict(self, verdict: str, name: str, text: str) -> None:
        """
        Tell people how a check came out.

        Args:
            verdict: How.
            name: What was checked.
            text: What was found.
        """
        how, what = f"{verdict:<{_VERDICT_WIDTH}}  ", f"{name:<{_CHECK_WIDTH}}  "
        self._people.print(Text.assemble((how, _STYLES.get(verdict, "")), (what, "bold"), text))

    async def agreed(self, question: str) -> bool:
        """
        Ask people on the terminal; anything but yes is no, the end of input too.

        Args:
            question: With its question mark.
        """
        self._people.print(Text(f"{question} [y/N] "), end="")
        self._asking = True
        if sys.platform != "win32":
            # A terminal is readable once a whole line is there, so that waiting for it can be interrupted.
            await anyio.wait_readable(sys.stdin)
        answer = sys.stdin.readline()
        self._asking = False
        if not answer:
            self.line()
        return answer.strip().lower() in {"y", "yes"}
