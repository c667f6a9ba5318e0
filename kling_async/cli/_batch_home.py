"""
Where batches are kept: the options that say so, the runner that they stand for, and the commands that go on there.

Decides what a database is called by default, and that no password of one is ever shown.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen
from cyclopts import Parameter

from kling_async.client import KlingClient
from kling_async.errors import StoreError
from kling_async.stores import IntentStore

from ._codes import Exit, UsageError
from ._run import Work
from ._service import Service

if TYPE_CHECKING:
    from kling_async.dbos import DbosRunner

Opener = Callable[[IntentStore], KlingClient]

FILE: Final = "batch.sqlite"
"""The database's name in the folder of the results, where none is named."""
POLLING: Final = 0.5
"""Seconds between two looks of a worker for new jobs."""


async def explained(work: Work) -> Exit | None:
    """
    Do a command; a database that cannot be used is named with what can be done about it.

    Args:
        work: The command.

    Raises:
        KlingError: As the command.
    """
    try:
        return await work()
    except StoreError as error:
        error.add_note("Make that database usable, or name another with --database or --out.")
        raise


@Parameter(name="*")
@frozen(kw_only=True)
class Home:
    """
    Where batches are kept, as options.
    """

    out: Path | None = None
    """Folder of the results."""
    database: str | None = None
    """Where jobs are kept: sqlite:///FILE or postgresql://USER@HOST/DATABASE; by default batch.sqlite in --out."""
    account: str = "default"
    """Whose tasks they are, by a name of your own; all its batches share one limit."""

    @property
    def url(self) -> str:
        """
        The database.

        Raises:
            UsageError: Nothing says where it is.
        """
        if self.database:
            return self.database
        if self.out is None:
            raise UsageError("give --out DIR, or --database URL")
        if "?" in str(self.out):
            raise UsageError(
                f"--out: {self.out} holds a ?, which no sqlite URL can: name another folder, or --database"
            )
        return f"sqlite:///{self.out / FILE}"

    @property
    def shown(self) -> str:
        """
        The same without what may be a password.
        """
        scheme, separator, rest = self.url.partition("?")[0].partition("://")
        user, at, place = rest.rpartition("@")
        name, colon, _ = user.partition(":")
        return f"{scheme}{separator}{name}{colon and ':***'}{at}{place}"

    @property
    def folder(self) -> Path:
        """
        Where results go.

        Raises:
            UsageError: Nothing says where that is, or it is a file.
        """
        if self.out is None:
            raise UsageError("give --out DIR: results go there")
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"--out: {self.out} is a file: name a folder")
        return self.out

    def runner(self, *, slots: int | Literal["learned"] | None = None, client: Opener | None = None) -> "DbosRunner":
        """
        What speaks to the database; not opened yet.

        Args:
            slots: Tasks that may run at once; None leaves it as it is.
            client: Makes a worker's client.

        Raises:
            InvalidInputError: The extra is missing, or an option makes no sense.
        """
        from kling_async.dbos import DbosRunner

        out = self.out or Path()
        made = partial(DbosRunner, self.url, account=self.account, slots=slots, out=out, polling=POLLING)
        return made() if client is None else made(client=client)

    def command(self, service: Service, *words: str) -> str:
        """
        A command line of ours about the same batches.

        Args:
            service: Whom it speaks to.
            words: The command and its arguments.
        """
        given = [] if self.out is None else ["--out", str(self.out)]
        given += [] if self.database is None else ["--database", self.shown]
        given += [] if self.account == "default" else ["--account", self.account]
        return service.command("batch", *words, *given)
