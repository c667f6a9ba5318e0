"""
The service as far as the life of an edit needs it, in a process of its own: quick, strict and honest about its bills.

Selections, paid creates, tasks that end at their time, singly and on pages of the list, and media files: a small one of
each task, and one of 100 MB. For a soak it answers a share of all requests badly. At `/truth` it tells what it charged.
"""

import asyncio
import re
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil, cos, pi, sqrt
from random import Random

import orjson
from attrs import Factory, define, field, frozen

from benchmarks.rounds import pin, server_core

LEAST, MOST = 8.0, 20.0
"""Seconds that tasks last, each another time."""
SMALL, LARGE = 20_000, 100_000_000
"""Bytes of a result, and of the file that is downloaded beside."""
PIECE = 1 << 18
"""Bytes that a stream writes at once."""
SLOW = 1.5
"""Seconds by which a slow answer is late."""
HUNG = 6.0
"""Seconds after which a connection is closed on which nothing was answered."""
HEIGHT, WIDTH = 1280, 720
FAMILY = b"/multi-elements"
CALLS = {b"/init-selection": "init", b"/add-selection": "add", FAMILY: "create"}
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
GONE = struct.pack("ii", 1, 0)
"""Lingers for no second: the close is a reset."""

HEAD = (
    b"HTTP/1.1 %d OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 00:00:00 GMT\r\nContent-Type: %s\r\n"
    b'Connection: keep-alive\r\nX-Trace: 1\r\nVary: Accept-Encoding\r\nETag: "9ab376fc"\r\nContent-Length: %d\r\n\r\n'
)
ENVELOPE = b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc-0000-4000-8000-000000000000","data":%s}'
OPENED = (
    b'{"status":0,"session_id":"%d","final_unit_deduction":"0","fps":24,"width":720,"height":1280,"total_frame":96,'
    b'"original_duration":4000,"normalized_video":"https://v15-kling.klingai.com/bs2/upload/normalized.mp4?pid=112372"}'
)
TASK = (
    b'{"task_id":"%d","task_status":"%s","task_info":{"external_task_id":"%s"},"task_result":{%s},'
    b'"created_at":%d,"updated_at":%d%s}'
)
VIDEO = (
    b'"videos":[{"id":"%d","session_id":"%s","url":"http://%s/media/%d.mp4?x-kcdn-pid=112372&ksSecret='
    b'9f86d081884c7d659a2feaa0c55ad015&ksTime=6a1f2b3c","duration":"4.04"}]'
)
UNITS = b',"final_unit_deduction":"3"'


def masked() -> bytes:
    """
    The answer to a mark: one ragged blob, as run lengths and as a picture, some 6 kB in all.
    """
    from kling_async.masks import encode_runs  # not at the top, for the plain script imports this module as well

    runs, filled = [0], 0
    for column in range(WIDTH):
        x = (column - 300) / 200
        if abs(x) < 1:
            half = round(240 * sqrt(1 - x * x) * (1 + 0.05 * cos(40 * pi * x))) + 1
            start = column * HEIGHT + 600 - half
            runs += [start - filled, 2 * half]
            filled = start + 2 * half
    mask = {"size": [HEIGHT, WIDTH], "counts": encode_runs([*runs[1:], HEIGHT * WIDTH - filled])}
    picture = {"size": [HEIGHT, WIDTH], "base64": "iVBORw0KGgo" + "AbcD0123" * 500 + "A"}
    found = {"frame_index": 0, "rle_mask_list": [{"object_id": 0, "rle_mask": mask, "png_mask": picture}]}
    return orjson.dumps({"status": 0, "final_unit_deduction": "0", "res": found})


def clip(size: int) -> bytes:
    """
    The head of a clip with so many bytes: its boxes say how long it is.
    """
    return b"\0\0\0\x20ftypisom" + bytes(20) + struct.pack(">I", size - 32) + b"mdat" + bytes(24)


def wrapped(body: bytes, *, status: int = 200, kind: bytes = b"application/json") -> bytes:
    """
    A whole reply.
    """
    return HEAD % (status, kind, len(body)) + body


def refused(status: int, code: int, message: str) -> bytes:
    """
    A refusal in the service's words.
    """
    said = {"code": code, "message": message, "request_id": "9ab376fc"}
    return wrapped(orjson.dumps(said), status=status)


@frozen
class Harm:
    """
    What becomes of a request that meets a fault.
    """

    kind: str
    """What is answered."""
    handled: bool
    """Whether it takes effect all the same."""


ANYWHERE = (
    *(Harm(kind, handled=True) for kind in ("reset", "hang", "500", "502", "slow", "garbage", "half")),
    *(Harm(kind, handled=False) for kind in ("reset", "hang", "503", "1302")),
)
"""What may happen to every call, each as often as the others."""
HARMS = {"create": (*ANYWHERE, Harm("1303", handled=False), Harm("fails", handled=True))}
ANSWERS = {
    "500": refused(500, 5000, "Internal server error"),
    "502": wrapped(b"<!DOCTYPE html><html><h1>502 Bad Gateway</h1></html>", status=502, kind=b"text/html"),
    "503": refused(503, 5001, "The service is temporarily unavailable"),
    "1302": refused(429, 1302, "Too many requests"),
    "1303": refused(429, 1303, "As many tasks run as are allowed"),
}


@frozen
class Run:
    """
    A task that was accepted: when it moves on, and how it is shown until then.
    """

    half: float
    end: float
    shown: tuple[bytes, bytes, bytes]

    def at(self, now: float) -> bytes:
        """
        How it is shown at this time.
        """
        return self.shown[2 if now >= self.end else now >= self.half]


@define
class Shop:
    """
    All that the service knows.
    """

    seconds: tuple[float, float] = (LEAST, MOST)
    """That tasks last, at least and at most."""
    rate: float = 0.0
    """Share of the requests that meet a fault."""
    origin: bytes = b""
    """Host and port."""
    sessions: dict[str, int] = field(factory=dict)
    """How many points each holds."""
    runs: list[Run] = field(factory=list)
    names: dict[str, Run] = field(factory=dict)
    """Tasks by their ids, the service's and the caller's."""
    charges: Counter[str] = field(factory=Counter)
    """By the caller's id."""
    failed: set[str] = field(factory=set)
    """Ids whose task fails, and is not charged."""
    requests: Counter[str] = field(factory=Counter)
    harmed: Counter[str] = field(factory=Counter)
    marked: bytes = field(default=Factory(lambda: wrapped(ENVELOPE % masked())), init=False)
    small: bytes = field(default=Factory(lambda: wrapped(clip(SMALL).ljust(SMALL), kind=b"video/mp4")), init=False)
    chance: Random = field(factory=partial(Random, 7))

    def harm(self, name: str) -> Harm | None:
        """
        The fault that a request meets, if any.
        """
        if not self.rate or name == "truth" or self.chance.random() >= self.rate:
            return None
        harm = self.chance.choice(HARMS.get(name, ANYWHERE))
        self.harmed[f"{name} {harm.kind}{'' if harm.handled else ' before'}"] += 1
        return harm

    def reply(self, name: str, item: bytes, body: bytes, *, fails: bool = False) -> bytes:
        """
        What is answered to a call; it takes effect.
        """
        match name:
            case "get":
                run = self.names.get(item.decode())
                if run is None:
                    return refused(404, 1203, "Task not found")
                return wrapped(ENVELOPE % run.at(time.time()))
            case "list":
                return self.page(*(int(part.rpartition(b"=")[2]) for part in item.split(b"&")))
            case "media":
                return self.small
            case "truth":
                return self.truth()
        return self.ordered(name, orjson.loads(body), fails=fails)

    def ordered(self, name: str, said: dict[str, str], *, fails: bool) -> bytes:
        """
        The answer to a call that changes something.
        """
        if name == "init":
            session_id = 878_106_242_800_000_000 + len(self.sessions)
            self.sessions[str(session_id)] = 0
            return wrapped(ENVELOPE % (OPENED % session_id))
        if said["session_id"] not in self.sessions:
            return refused(404, 1203, "Session not found")
        if name == "add":
            self.sessions[said["session_id"]] += 1
            return self.marked
        return self.create(said, fails=fails)

    def create(self, said: dict[str, str], *, fails: bool) -> bytes:
        """
        Accept a task and charge for it, as often as it is asked for.
        """
        session_id, key = said["session_id"], said["external_task_id"]
        if not self.sessions[session_id]:
            return refused(400, 1201, "Nothing is selected")
        number, now, (least, most) = len(self.runs), time.time(), self.seconds
        end = now + least + number * 7_919 % 10_007 / 10_007 * (most - least)
        task_id, times = 878_106_242_900_000_000 + number, (now, (now + end) / 2, end)
        made, moved, ended = (ceil(1000 * when) for when in times)
        name, video = key.encode(), b"" if fails else VIDEO % (task_id, session_id.encode(), self.origin, task_id)
        shown = (
            TASK % (task_id, b"submitted", name, b"", made, made, b""),
            TASK % (task_id, b"processing", name, b"", made, moved, b""),
            TASK % (task_id, b"failed" if fails else b"succeed", name, video, made, ended, b"" if fails else UNITS),
        )
        run = Run(*times[1:], shown)
        self.runs.append(run)
        self.names |= {str(task_id): run, key: run}
        self.charges[key] += 1
        self.failed |= {key} if fails else set()
        return wrapped(ENVELOPE % run.at(now))

    def page(self, number: int, size: int) -> bytes:
        """
        Tasks, newest first: so each that is created moves all others on.
        """
        now, last = time.time(), len(self.runs) - (number - 1) * size
        rows = self.runs[max(0, last - size) : max(0, last)]
        return wrapped(ENVELOPE % (b"[%s]" % b",".join([run.at(now) for run in reversed(rows)])))

    def truth(self) -> bytes:
        """
        What it all came to.
        """
        once = sum(times == 1 for times in self.charges.values())
        told = {
            "creates": self.charges.total(),
            "once": once,
            "twice": len(self.charges) - once,
            "failed": sorted(self.failed),
            "keys": list(self.charges) if self.rate else [],
            "requests": dict(self.requests),
            "harmed": dict(self.harmed),
        }
        return wrapped(ENVELOPE % orjson.dumps(told))


def routed(head: bytes) -> tuple[str, bytes]:
    """
    Which call a request is, and what it is about.
    """
    method, target, _ = head.split(b" ", 2)
    path, _, query = target.partition(b"?")
    if path.startswith(b"/media/"):
        return "media", path
    if path.endswith(b"/truth"):
        return "truth", b""
    if method == b"POST":
        return CALLS[path[path.rindex(b"/") :]], b""
    return ("list", query) if path.endswith(FAMILY) else ("get", path[path.rindex(b"/") + 1 :])


class Speaking(asyncio.Protocol):
    """
    Answers each request as soon as it is whole; a client sends the next one when it has its answer.
    """

    transport: asyncio.Transport

    def __init__(self, shop: Shop) -> None:
        """Nothing has come yet."""
        self.shop, self.pending, self.left, self.paused = shop, b"", 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whole requests."""
        self.pending += data
        head, blank, rest = self.pending.partition(b"\r\n\r\n")
        if not blank:
            return
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(rest) < length:
            return
        self.pending = rest[length:]
        name, item = routed(head)
        self.shop.requests[name] += 1
        if item == b"/media/large.mp4":
            self.begin()
        elif (harm := self.shop.harm(name)) is None:
            self.transport.write(self.shop.reply(name, item, rest[:length]))
        else:
            self.spoil(harm, name, item, rest[:length])

    def spoil(self, harm: Harm, name: str, item: bytes, body: bytes) -> None:
        """Answer as badly as the fault says."""
        answer = b""
        if harm.handled:
            answer = self.shop.reply(name, item, body, fails=harm.kind == "fails")
        match harm.kind:
            case "reset":
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GONE)
                self.transport.abort()
            case "hang":
                asyncio.get_running_loop().call_later(HUNG, self.transport.close)
            case "slow":
                asyncio.get_running_loop().call_later(SLOW, self.transport.write, answer)
            case "garbage":
                self.transport.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
                self.transport.close()
            case "half":
                self.transport.write(answer[: len(answer) - len(answer) // 4])
                self.transport.close()
            case kind:
                self.transport.write(ANSWERS.get(kind, answer))

    def begin(self) -> None:
        """Stream the large file."""
        self.transport.write(HEAD % (200, b"video/mp4", LARGE) + clip(LARGE))
        self.left = LARGE - len(clip(LARGE))
        self.stream()

    def stream(self) -> None:
        """Write as much as the client takes."""
        while self.left and not self.paused and not self.transport.is_closing():
            size = min(self.left, PIECE)
            self.left -= size
            self.transport.write(bytes(size))

    def pause_writing(self) -> None:
        """The client is not as quick."""
        self.paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.paused = False
        self.stream()


async def main(least: float, most: float, rate: float) -> None:
    """Serve until stdin closes."""
    loop, shop = asyncio.get_running_loop(), Shop((least, most), rate)
    server = await loop.create_server(partial(Speaking, shop), "127.0.0.1", 0, backlog=2048)
    port = server.sockets[0].getsockname()[1]
    shop.origin = b"127.0.0.1:%d" % port
    print(port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(least: float = LEAST, most: float = MOST, rate: float = 0.0) -> Iterator[str]:
    """
    The base URL of a new service.

    Args:
        least: Seconds that a task lasts at least.
        most: And at most.
        rate: Share of the requests that meet a fault.
    """
    command = [sys.executable, "-m", "benchmarks.service", *map(str, (least, most, rate))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/kling"
        finally:
            process.communicate("")


if __name__ == "__main__":
    pin(server_core())
    asyncio.run(main(*map(float, sys.argv[1:])))
