"""
A server faster than any client: one prebuilt answer to whatever arrives, in a process of its own.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TASK = (
    b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc-0000-4000-8000-000000000000","data":{"task_id":'
    b'"878106242831892487","task_info":{"external_task_id":"ka1-abcdefghijklmnopqrstuvwxyz234567"},"created_at":'
    b'1777385361501,"updated_at":1777385363321,"task_result":{"videos":[{"id":"878106242831892488","session_id":'
    b'"878106242831892489","url":"https://v15-kling.klingai.com/bs2/upload/out.mp4?x-kcdn-pid=112372","duration":'
    b'"5.04"}]},"task_status":"succeed","final_unit_deduction":"3"}}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Connection: keep-alive\r\nX-Trace: 1\r\nContent-Length: %d\r\n\r\n%s" % (len(TASK), TASK)
)


class Answering(asyncio.Protocol):
    """
    Answers each request as soon as it is whole.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Count whole requests and answer each."""
        self.pending += data
        answers = 0
        while b"\r\n\r\n" in self.pending:
            head, _, rest = self.pending.partition(b"\r\n\r\n")
            found = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            length = int(found or 0)
            if len(rest) < length:
                break
            self.pending = rest[length:]
            answers += 1
        self.transport.write(ANSWER * answers)  # type: ignore[attr-defined]


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
