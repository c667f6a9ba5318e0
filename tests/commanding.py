"""
Runs the command line: in this process against a served simulator, or as a process of its own.

The fixtures are for the files that import them: `home` for each of their tests, `served` and `run` where asked for.
"""

import os
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import orjson
import pytest
from anyio.from_thread import start_blocking_portal
from attrs import frozen

from kling_async import COMETAPI_URL, RetryPolicy, SqliteStore, simulator
from kling_async.cli import main
from kling_async.simulator import Footage, Simulator
from kling_async.stores import Intent

ROOT = Path(__file__).parents[1]
CLIP = Path(simulator.__file__).parent / "media" / "bunny-24fps-4s.mp4"
KNOWN = ("COMETAPI_KEY", "KLING_API_KEY", "KLING_ACCESS_KEY", "KLING_SECRET_KEY", "KLING_BASE_URL")
PROXIES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
SPOT = ("--point", "40:0.80,0.53")
REMOVAL = (*SPOT, "--remove", "the stones", "--yes")
"""The points and the edit of most commands, agreed to beforehand."""


def picture(side=300):
    """
    A black square as a PNG.
    """
    body = zlib.compress(b"\0" * (side + 1) * side)
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@contextmanager
def serving(**options):
    """
    A simulator on loopback, from another thread, with the clip published.
    """
    simulator = Simulator(**{"task_seconds": 0, **options})
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator.serve()) as base_url:
        url = simulator.publish(CLIP, footage=Footage(total_frames=96))
        yield Served(simulator, base_url, url)


@frozen
class Served:
    """
    A simulator, where it is, and its clip.
    """

    simulator: Simulator
    base_url: str
    clip: str

    def calls(self):
        """
        The endpoints that were called, in order, without downloads.
        """
        return [seen.endpoint for seen in self.simulator.log if seen.endpoint != "media"]


@frozen
class Ended:
    """
    What a command said, and how it ended.
    """

    code: int
    out: str
    err: str

    @property
    def events(self):
        """
        Its JSON lines.
        """
        return [orjson.loads(line) for line in self.out.splitlines()]

    @property
    def names(self):
        """
        What its JSON lines are about.
        """
        return [event["event"] for event in self.events]

    def event(self, name):
        """
        The last of its JSON lines about this.
        """
        return [event for event in self.events if event["event"] == name][-1]


def alone(monkeypatch, folder):
    """
    A folder of one's own, and an environment with a made-up key and no proxy.
    """
    for name in (*KNOWN, *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMETAPI_KEY", "any")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.chdir(folder)
    return folder


def commands(capsys):
    """
    A function that runs a command line in this process.
    """

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(name="home", autouse=True)
def given_home(tmp_path, monkeypatch):
    """
    A folder of one's own, and an environment with a made-up key and no proxy; chance makes nobody wait.
    """
    monkeypatch.setattr(RetryPolicy, "drawn", lambda _policy, _attempt, *, chance: 0.0)
    return alone(monkeypatch, tmp_path)


@pytest.fixture(name="served")
def given_simulator(monkeypatch):
    """
    A simulator that the environment points at.
    """
    with serving() as served:
        monkeypatch.setenv("KLING_BASE_URL", served.base_url)
        yield served


@pytest.fixture(name="run")
def given_commands(capsys):
    """
    Runs a command line.
    """
    return commands(capsys)


def intent(name, **known):
    """
    An intent of a paid create at CometAPI.
    """
    facts = {"payload": "0", "base_url": COMETAPI_URL, "session_id": "s", "created_at": datetime.now(UTC)}
    return Intent(external_task_id=name, **{**facts, **known})


def keep(*intents, owned=False):
    """
    Write intents where the command line keeps them, as one that is at them still or has let go of them.
    """
    # What others use of this module needs no extra.
    from kling_async.cli._service import Service

    async def write():
        store = SqliteStore(Service().store_path)
        await store.open()
        for each in intents:
            await store.put(each)
            if not owned:
                await store.release(each)
        await store.aclose()

    anyio.run(write)


def process(*words, folder, **environment):
    """
    The same as a process of its own.
    """
    env = {name: value for name, value in os.environ.items() if name not in KNOWN}
    env |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "COMETAPI_KEY": "any", **environment}
    command = [sys.executable, "-m", "kling_async", *map(str, words)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=env, text=True, **streams)
