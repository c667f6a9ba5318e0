"""
A server faster than any client: prebuilt answers, in a process of its own.

Whatever arrives gets one and the same task, but below `/waiting/<when>`: there are 10,000 tasks that end one after the
other from then on, singly and on pages of the list.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

TASK = (
    b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc-0000-4000-8000-000000000000","data":{"task_id":'
    b'"878106242831892487","task_info":{"external_task_id":"ka1-abcdefghijklmnopqrstuvwxyz234567"},"created_at":'
    b'1777385361501,"updated_at":1777385363321,"task_result":{"videos":[{"id":"878106242831892488","session_id":'
    b'"878106242831892489","url":"https://v15-kling.klingai.com/bs2/upload/out.mp4?x-kcdn-pid=112372","duration":'
    b'"5.04"}]},"task_status":"succeed","final_unit_deduction":"3"}}'
)
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Connection: keep-alive\r\nX-Trace: 1\r\nContent-Length: %d\r\n\r\n"
)
ANSWER = HEAD % len(TASK) + TASK

WAITING = 10_000
"""Tasks that are waited for."""
SPAN = 8.0
"""Seconds over which they end."""
ENVELOPE = b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc-0000-4000-8000-000000000000","data":%s}'
ENDED = TASK.partition(b'"data":')[2].removesuffix(b"}").replace(b"878106242831892487", b"%d")
RUNNING = ENDED.partition(b',"task_result"')[0] + b',"task_result":{},"task_status":"processing"}'


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


class Answering(asyncio.Protocol):
    """
    Answers each request as soon as it is whole.
    """

    counts: ClassVar[Counter[str]] = Counter()
    """Looks at those that are waited for, of all connections, by when these began."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Count whole requests and answer each."""
        self.pending += data
        answers = b""
        while b"\r\n\r\n" in self.pending:
            head, _, rest = self.pending.partition(b"\r\n\r\n")
            found = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            length = int(found or 0)
            if len(rest) < length:
                break
            self.pending = rest[length:]
            answers += answer(head, self.counts)
        self.transport.write(answers)  # type: ignore[attr-defined]


def answer(head: bytes, counts: Counter[str]) -> bytes:
    """
    The answer to a request with this head.
    """
    target = head.split(b" ", 2)[1]
    if not target.startswith(b"/waiting/"):
        return ANSWER
    body = waiting(target.decode(), counts)
    return HEAD % len(body) + body


async def main() -> None:
    """Serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving() -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/kling"
        finally:
            process.communicate("")


if __name__ == "__main__":
    asyncio.run(main())
