"""
A server faster than any client: prebuilt answers, in a process of its own on a core of its own.

The first part of the path says how. `kling`, and whatever is not named here: one and the same task, none by an external
id, and to a POST what its endpoint promises. Names of other libraries: what these poll. `storm`: the task with the id
that was asked for, after a while. `slow/<number>`: the same task for all, once so many have asked. `waiting/<when>`:
10,000 tasks that end one after the other from then on, singly and on pages of the list.
"""

import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from random import random
from typing import ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from benchmarks.answers import ENDED, ENVELOPE, RIVALS, RUNNING, TASK, UNKNOWN, framed, posted, rival
from benchmarks.rounds import pin, server_core

__all__ = ("SPAN", "TASK", "WAITING", "ends_after", "serving")

WAITING: Final = 10_000
"""Tasks that are waited for."""
SPAN: Final = 8.0
"""Seconds over which they end."""
SLOW_MOST: Final = 0.15
"""Seconds that an answer in the storm takes at most."""
KNOWN_MOST: Final = 10_000
"""Requests that are told by their bytes alone."""
READ_MOST: Final = 1 << 16

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_ANSWER = framed(TASK)
_UNKNOWN = framed(UNKNOWN, b"404 Not Found")


def ends_after(task_id: int) -> float:
    """
    Seconds after which a task ends: each at another time, and neighbours far from each other.
    """
    return (task_id * 7_919 % WAITING) / WAITING * SPAN


@cache
def spelled(task_id: int) -> tuple[bytes, bytes]:
    """A task while it runs, and at its end."""
    return RUNNING % task_id, ENDED % task_id


def waiting(target: str, counts: Counter[str]) -> bytes:
    """
    The answer to a look at those that are waited for: at one, at a page of them, or at the number of looks so far.
    """
    parts = urlsplit(target)
    _, _, began, *_, last = parts.path.split("/")
    passed = time.monotonic() - float(began)
    if last == "count":
        return ENVELOPE % (b'{"requests":%d}' % counts[began])
    counts[began] += 1
    if last.isdecimal():
        return ENVELOPE % spelled(int(last))[ends_after(int(last)) <= passed]
    number, size = (int(parse_qs(parts.query)[name][0]) for name in ("pageNum", "pageSize"))
    page = range(WAITING - (number - 1) * size, max(0, WAITING - number * size), -1)
    return ENVELOPE % (b"[%s]" % b",".join(spelled(task_id)[ends_after(task_id) <= passed] for task_id in page))


class Answering(asyncio.BufferedProtocol):
    """
    Answers each request as soon as it is whole.
    """

    counts: ClassVar[Counter[str]] = Counter()
    """Looks at those that are waited for, of all connections, by when these began."""
    known: ClassVar[dict[bytes, bytes]] = {}
    """Answers to requests that are always the same, by their bytes."""
    gathered: ClassVar[dict[str, list["Answering"]]] = {}
    """Who waits for the others, by how many these must be."""
    buffer: ClassVar[memoryview] = memoryview(bytearray(READ_MOST))
    """One for all: it is emptied before the next connection is read."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.pending = b""
        self.transport = asyncio.WriteTransport()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to read into."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Answer what came."""
        data = bytes(self.buffer[:nbytes])
        answer = self.known.get(data)
        if answer is None or self.pending:
            self.pending += data
            answer = self.answers()
        if answer:
            self.transport.write(answer)

    def answers(self) -> bytes:
        """The answers to all requests that are whole."""
        written = b""
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.pending, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.pending) < whole:
                break
            request, self.pending = self.pending[:whole], self.pending[whole:]
            written += self.answer(request)
        return written

    def answer(self, request: bytes) -> bytes:
        """The answer to one request; empty where it comes later."""
        method, target, _ = request.split(b" ", 2)
        path = target.decode("latin-1")
        _, first, *rest = path.partition("?")[0].split("/")
        if first == "waiting":
            return framed(waiting(path, self.counts))
        if first == "storm":
            body = framed(ENVELOPE % (ENDED % int(rest[-1])))
            asyncio.get_running_loop().call_later(random() * SLOW_MOST, self.later, body)
            return b""
        if first == "slow":
            self.gather(rest[0])
            return b""
        if method == b"POST":
            return framed(posted(rest[-1]))
        if first == "kling" and rest[-1].startswith("ka1-"):
            return _UNKNOWN
        answer = framed(rival(first)) if first in RIVALS else _ANSWER
        if len(self.known) < KNOWN_MOST:
            self.known[request] = answer
        return answer

    def gather(self, number: str) -> None:
        """Answer all who wait once they are enough."""
        asking = self.gathered.setdefault(number, [])
        asking.append(self)
        if len(asking) == int(number):
            for each in self.gathered.pop(number):
                each.later(_ANSWER)

    def later(self, answer: bytes) -> None:
        """Answer, if anyone is there still."""
        if not self.transport.is_closing():
            self.transport.write(answer)


async def main() -> None:
    """Serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving() -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    core = server_core()
    command = [sys.executable, "-m", "benchmarks.server", *([] if core is None else [str(core)])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/kling"
        finally:
            process.communicate("")


def run() -> None:
    """On a faster loop where there is one."""
    for core in sys.argv[1:]:
        pin(int(core))
    loop = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


if __name__ == "__main__":
    run()
