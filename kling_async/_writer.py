"""
A thread that writes what came while more comes: one batch under way, another being gathered, and never a third.

Decides who waits for whom, and keeps the order. Refuses to know files: what writes a batch is given to it, and says by
raising that it could not.
"""

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Final

from attrs import define, field

from ._bell import AnyBell, bells, threadsafe

BATCH: Final = 1 << 20
"""
Bytes that are handed over at once: with fewer, the way to the thread is dearer than what is done there.

Two buffers of this size are used again and again. Memory taken anew for each batch goes back to the system in between,
and to have it zeroed page by page costs as much as to write it.
"""

Batch = tuple[int, memoryview]
"""How many bytes are before it, and its own."""


@define(eq=False, repr=False)
class Writer:
    """
    Two buffers that take turns, and the thread that writes them; it begins with the first batch that is full.

    All is for the loop on which it was made. An error of the thread comes out at the next step here.
    """

    _write: Callable[[int, memoryview], object]
    """Writes a batch, in the thread."""
    _start: int
    """Bytes that are before the batch that is gathered."""
    _size: int = field(default=0, init=False)
    _buffer: memoryview = field(factory=lambda: memoryview(bytearray(BATCH)), init=False)
    _other: memoryview | None = field(default=None, init=False)
    _under_way: tuple[Batch, AnyBell] | None = field(default=None, init=False)
    """What the thread has, and what it rings when that is written."""
    _error: BaseException | None = field(default=None, init=False)
    """Written there: why a batch was not."""
    _orders: SimpleQueue[tuple[Batch, AnyBell] | None] = field(factory=SimpleQueue, init=False)
    _thread: Thread | None = field(default=None, init=False)
    _bells: Callable[[], AnyBell] = field(factory=bells, init=False)
    _soon: Callable[[Callable[[], object]], object] = field(factory=threadsafe, init=False)

    @property
    def gathered(self) -> Batch:
        """
        What the thread was not given.
        """
        return self._start, self._buffer[: self._size]

    @property
    def unwritten(self) -> list[Batch]:
        """
        In order, all that may not be written; the first may be this very moment.
        """
        given = [] if self._under_way is None else [self._under_way[0]]
        return [*given, self.gathered]

    @property
    def full(self) -> bool:
        """
        Whether nothing can be gathered before the next `turn`.
        """
        return self._size == BATCH

    def gather(self, data: memoryview) -> memoryview:
        """
        Copy what there is room for, and return the rest.
        """
        if self._error is not None:
            raise self._error
        room = BATCH - self._size
        fits, rest = data[:room], data[room:]
        end = self._size + len(fits)
        self._buffer[self._size : end] = fits
        self._size = end
        return rest

    async def turn(self) -> None:
        """
        Give the thread what was gathered, as soon as it has written what it was given before.
        """
        await self.settled()
        self._under_way = self.gathered, self._bells()
        self._orders.put(self._under_way)
        if self._thread is None:
            # A daemon: a disk that hangs cannot keep the interpreter from its end.
            self._thread = Thread(target=self._run, name="kling_async writer", daemon=True)
            self._thread.start()
        self._start, self._size = self._start + self._size, 0
        self._buffer, self._other = self._other or memoryview(bytearray(BATCH)), self._buffer

    async def settled(self) -> None:
        """
        Wait until what the thread was given is written.
        """
        if self._under_way is not None:
            await self._under_way[1]
            self._under_way = None
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """
        Let the thread go, after what it was given.
        """
        self._orders.put(None)

    def _run(self) -> None:
        while order := self._orders.get():
            batch, bell = order
            try:
                self._write(*batch)
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                self._error = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._soon(bell.ring)
