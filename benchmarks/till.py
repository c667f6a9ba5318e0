"""
A shop that charges for each order it has read to the end, and then answers as badly as its path says.

It runs in a process of its own, so that what it counts is what crossed the wire, whatever a client believes. The path
of an order is `/{who}/{fault}/...`. Once stdin closes it prints what it counted, and ends.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from attrs import Factory, define, frozen

FAULTS = {
    "drop": "reply dropped",
    "hang": "no reply",
    "5000": "HTTP 500",
    "1101": "429, code 1101",
    "normal": "normal",
}
"""What a path may ask for, as the table heads it; all but 1101 are charged."""

GONE = struct.pack("ii", 1, 0)
"""Lingers for no second: the close is a reset."""
KLING = "kling"
"""How the names of rows begin whose API is Kling's."""
FINDING = "kling-found"
"""The row whose API finds a task by its external id; the others answer 404, as a gateway may."""

Run = tuple[str, str]
"""Who, and which fault."""


@frozen
class Tally:
    """
    What a client's one order became.
    """

    posts: int
    """Orders that came in whole."""
    charges: int
    """Those that were accepted; a repeat that carries the idempotency key of an earlier one is free."""


@define
class Order:
    """
    One request, read to its end.
    """

    method: str
    who: str
    fault: str
    rest: str
    headers: dict[str, str]
    body: bytes

    @property
    def idempotency(self) -> str | None:
        """
        The key by which a server could tell a repeat from a second order, where the client sends one.
        """
        return next((value for name, value in self.headers.items() if "idempotency" in name), None)


@define
class Till:
    """
    Counts, and writes the answers.
    """

    posts: Counter[Run] = Factory(Counter)
    charges: Counter[Run] = Factory(Counter)
    seen: set[tuple[Run, str]] = Factory(set)
    tasks: dict[Run, bytes] = Factory(dict)
    """The task last created, as a reply shows it."""

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Take orders from one connection until it ends."""
        try:
            while (order := await read(reader)) is not None:
                status, body = self.accept(order) if order.method == "POST" else self.show(order)
                if not status:
                    await leave(order.fault, reader, writer)
                    return
                head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the shop closes
        finally:
            writer.close()

    def accept(self, order: Order) -> tuple[int, bytes]:
        """Charge for an order, unless the account is empty; status 0 is no answer."""
        run = (order.who, order.fault)
        self.posts[run] += 1
        if order.fault == "1101":
            return 429, refusal(1101, "Account in arrears (postpaid scenario)")
        key = order.idempotency
        if key is None or (run, key) not in self.seen:
            self.charges[run] += 1
            self.seen |= set() if key is None else {(run, key)}
        if order.who.startswith(KLING):
            self.tasks[run] = task(order.body)
        if order.fault == "5000":
            return 500, refusal(5000, "Internal server error")
        if order.fault != "normal":
            return 0, b""
        return 200, envelope(self.tasks[run]) if order.who.startswith(KLING) else receipt(order)

    def show(self, order: Order) -> tuple[int, bytes]:
        """Answer a look for a task, or for the list of them."""
        known = self.tasks.get((order.who, order.fault)) if order.who == FINDING else None
        if order.rest.partition("?")[0].endswith("multi-elements"):
            return 200, envelope(b"[%s]" % (known or b""))
        return (404, refusal(1203, "task not found")) if known is None else (200, envelope(known))


def task(body: bytes) -> bytes:
    """A task as Kling shows it, with the id that its order gave it."""
    named = {"external_task_id": orjson.loads(body)["external_task_id"]}
    return orjson.dumps(
        {
            "task_id": "878106242831892487",
            "task_status": "submitted",
            "task_info": named,
            "created_at": 1777385361501,
            "updated_at": 1777385361501,
        }
    )


def envelope(data: bytes) -> bytes:
    """Kling's word for done."""
    return b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc","data":%s}' % data


def refusal(code: int, message: str) -> bytes:
    """Kling's word for not done."""
    return orjson.dumps({"code": code, "message": message, "request_id": "9ab376fc", "data": None})


def receipt(order: Order) -> bytes:
    """The least that the client takes for success."""
    if order.who == "runwayml":
        return b'{"id":"17f20503-6c24-4c16-946b-35dbbce2af2f","estimatedCost":{"credits":25}}'
    if order.who == "openai":
        return b'{"created":1777385361,"data":[{"b64_json":"aGk="}]}'
    if order.who == "fal-client":
        host = f"http://{order.headers['host']}/fal-client/normal/requests/1"
        urls = {"response_url": host, "status_url": f"{host}/status", "cancel_url": f"{host}/cancel"}
        return orjson.dumps({"request_id": "1", **urls})
    if order.who == "replicate":
        rest: dict[str, object] = {"output": "done", "logs": "", "error": None, "metrics": None, "urls": {}}
        times = dict.fromkeys(("created_at", "started_at", "completed_at"))
        return orjson.dumps(
            {"id": "1", "model": "a/b", "version": "v", "status": "succeeded", "input": {}, **rest, **times}
        )
    return b'{"name":"models/veo/operations/1"}'


async def read(reader: StreamReader) -> Order | None:
    """One request to its last byte; None at the end of the connection, or where it breaks off."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        assert "transfer-encoding" not in headers, "a body without a length is not read here"
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except asyncio.IncompleteReadError:
        return None
    _, who, fault, rest = path.split("/", 3)
    return Order(method=method, who=who, fault=fault, rest=rest, headers=headers, body=body)


async def leave(fault: str, reader: StreamReader, writer: StreamWriter) -> None:
    """Say nothing: reset the connection, or keep it open until the client gives up."""
    if fault == "hang":
        await reader.read()
        return
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GONE)
    writer.transport.abort()


async def main() -> None:
    """Serve until stdin closes, then print the counts."""
    till = Till()
    server = await asyncio.start_server(till.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps([[*run, posts, till.charges[run]] for run, posts in till.posts.items()]))


@contextmanager
def charging() -> Iterator[tuple[str, dict[Run, Tally]]]:
    """The shop's URL, and its counts by who and fault, which are filled in at the end."""
    command = [sys.executable, "-m", "benchmarks.till"]
    counts: dict[Run, Tally] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = "[]"
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}", counts
        finally:
            said, _ = process.communicate("")
        counts.update({(who, fault): Tally(posts, charges) for who, fault, posts, charges in json.loads(said)})


if __name__ == "__main__":
    asyncio.run(main())
