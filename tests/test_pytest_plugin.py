"""
The fixtures as users meet them: small projects of their own, run by pytest on both loops.
"""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

README = Path(__file__).parent.parent / "README.md"

EDIT = """
from kling_async import Removal, SelectionSession

CLIP = "https://example.com/clip.mp4"

async def remove(client, what, **named):
    async with SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(0, [(0.42, 0.61)])
        return await client.wait(await selection.create_task(Removal.of(what), **named))
"""
HEAD = """
import pytest
from kling_async import QuotaFullError, ThrottledError
from kling_async.simulator import Fault
from edits import remove

pytestmark = pytest.mark.anyio
"""


@pytest.fixture
def project(pytester):
    """
    A user's project, with code to be tested, and tests as strict as can be.
    """
    pytester.makepyfile(edits=EDIT)
    options = "--strict-markers --strict-config -p no:schemathesis -p no:cacheprovider"
    pytester.makeini(f"[pytest]\naddopts = {options}\nfilterwarnings = error")

    def run(tests, *arguments, head=HEAD):
        pytester.makepyfile(test_edits=head + dedent(tests))
        return pytester.runpytest_inprocess(*arguments)

    return run


def test_a_test_gets_a_simulator_and_a_client_of_it(project):
    """
    On asyncio and trio; each test has its own, and what was charged and asked for can be read off.
    """
    result = project(
        """
    @pytest.mark.parametrize("again", [1, 2])
    async def test_removal(kling_client, kling_simulator, tmp_path, again):
        task = await remove(kling_client, "the bird", external_task_id="order-1")
        assert task.video.duration == 5.04
        assert kling_simulator.charges == {"order-1": 1}
        asked = [seen.endpoint for seen in kling_simulator.log]
        assert (asked.count("create"), asked[0], asked[-1]) == (1, "init", "get")
        assert (await kling_client.download(task.video, tmp_path / "out.mp4")).stat().st_size > 1000
    """
    )
    result.assert_outcomes(passed=4)


def test_the_marker_says_what_the_simulator_is_like(project):
    """
    The nearest marker has the last word on each setting, and faults can be added in the test too.
    """
    result = project(
        """
    pytestmark = [pytest.mark.anyio, pytest.mark.kling_simulator(quota=7, seed=3)]

    @pytest.mark.kling_simulator(quota=1, task_seconds=60, api_key="sk-mine")
    class TestFull:
        @pytest.mark.kling_simulator(faults=[Fault("get", "code", code=5000)], seed=4)
        async def test_full(self, kling_client, kling_simulator):
            with pytest.raises(QuotaFullError):
                for _ in range(2):
                    session = (await kling_client.init_selection(video_url="https://example.com/clip.mp4")).session_id
                    await kling_client.add_selection(session, 0, [(0.5, 0.5)])
                    from kling_async import Removal
                    await kling_client.create_task(session, Removal.of("it"))
            assert kling_simulator.most_running == 1
            kling_simulator.quota = 2
            kling_simulator.script(*[Fault("init", "code", code=1302)] * 3)
            with pytest.raises(ThrottledError):
                await kling_client.init_selection(video_url="https://example.com/clip.mp4")

    def test_plain(kling_simulator):
        assert kling_simulator.quota == 7
    """
    )
    result.assert_outcomes(passed=3)


def test_a_project_may_have_a_simulator_of_its_own(project, pytester):
    """
    Whoever overrides `kling_simulator` gets a client of that.
    """
    pytester.makeconftest("""
import pytest
from kling_async.simulator import Shape, Simulator

@pytest.fixture
def kling_simulator():
    return Simulator(task_seconds=0, shape=Shape(envelope="wrapped2"))
    """)
    result = project(
        """
    async def test_wrapped(kling_client):
        task = await remove(kling_client, "the bird")
        assert "data" in task.raw["data"]
    """
    )
    result.assert_outcomes(passed=2)


def test_a_marker_without_names_is_refused(project):
    """
    Positional arguments could mean anything.
    """
    result = project(
        """
    @pytest.mark.kling_simulator(2)
    def test_never(kling_simulator):
        pass
    """,
        head="import pytest\n",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*takes the keywords of kling_async.simulator.Simulator alone*"])


def test_the_tests_of_the_readme_pass(project):
    """
    Its block with fixtures is a test file as it stands.
    """
    [block] = [
        text for text in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "kling_client" in text
    ]
    project(block, head="").assert_outcomes(passed=4)


def test_the_marker_explains_itself(pytester):
    """
    `pytest --markers` names it.
    """
    result = pytester.runpytest_inprocess("--markers", "-p", "no:schemathesis")
    result.stdout.fnmatch_lines(["@pytest.mark.kling_simulator(quota=5*"])


def test_loading_the_plugin_is_light():
    """
    It is loaded in every project that has the package: neither simulator nor aiohttp nor numpy come with it.
    """
    code = "import sys, kling_async.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set() == {"aiohttp", "numpy", "trio", "kling_async.simulator"} & set(done.stdout.split())


def test_the_plugin_is_an_entry_point():
    """
    Installing the package is all there is to do.
    """
    from importlib.metadata import entry_points

    [found] = [each for each in entry_points(group="pytest11") if each.name == "kling_async"]
    assert "kling_async.pytest_plugin" == found.value
