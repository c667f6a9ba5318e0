"""
The front door: every python block of README.md runs, against the simulator on a real socket.
"""

import ast
import inspect
import re
import types
from pathlib import Path

import anyio
import pytest

from kling_async.simulator import Simulator

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "bash"]

pytestmark = pytest.mark.real_clock


def heading(block):
    before = README.read_text().partition(block)[0]
    return re.findall(r"^## (.*)", before, re.MULTILINE)[-1].replace(" ", "-")


def run(block, backend):
    """
    Run a block as a user would paste it; what awaits at the top level is given a loop.
    """
    code = compile(block, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"__name__": "readme"}
    if code.co_flags & inspect.CO_COROUTINE:
        anyio.run(types.FunctionType(code, names), backend=backend)
    else:
        exec(code, names)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("block", PYTHON, ids=heading)
def test_a_python_block_runs(block, backend, monkeypatch, tmp_path, capsys):
    """
    As it stands, in an empty folder, with a key and a host from the environment.
    """
    simulator = Simulator(task_seconds=0, quota=8)
    monkeypatch.chdir(tmp_path)

    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as base_url,
    ):
        monkeypatch.setenv("COMETAPI_KEY", "sk-made-up")
        monkeypatch.setenv("KLING_BASE_URL", base_url)
        run(block, backend)
    assert "failed" not in capsys.readouterr().out


def test_the_first_two_blocks_are_the_two_commands():
    """
    One installs and runs the demo, one installs and runs the tests; both make their own environment.
    """
    for block, ending in zip(SHELL[:2], ("kling-async demo", "pytest --quiet"), strict=True):
        assert block.startswith("python3 -m venv .venv\n")
        assert block.rstrip().endswith(ending)


def test_every_exported_error_that_users_meet_stands_in_the_table():
    """
    The table names only errors that exist.
    """
    import kling_async

    named = set(re.findall(r"`(\w+Error)`", README.read_text()))
    assert named - {"RuntimeError", "TypeError", "ValueError"} <= set(kling_async.__all__)
