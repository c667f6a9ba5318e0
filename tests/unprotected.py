"""
Every fault's test must fail where its protection is taken out: `python -m tests.unprotected [F5 F12 ...]`.

For each row of `tests/protections.toml` one small change is made in a copy of the package, and the test that is named
there is run on it. A test that still passes proves nothing, and ends this with status 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from attrs import frozen

ROOT = Path(__file__).parent.parent
PATIENCE = 180
"""Seconds for one test; a change that makes it hang is noticed as well."""
FAILED = 1
"""pytest's status where tests failed; others are faults of the row."""


@frozen(kw_only=True)
class Protection:
    """
    What protects from a fault, and the test that misses it.
    """

    fault: str
    """Its number, such as `F9`."""
    file: str
    """Module below `kling_async/`."""
    old: str
    """The protection."""
    new: str
    """What is left without it."""
    test: str
    """File and name of the test, below `tests/`; all of its parameters are run."""


def protections():
    """
    The rows of the table.
    """
    rows = tomllib.loads((ROOT / "tests" / "protections.toml").read_text())["protection"]
    return [Protection(**row) for row in rows]


def copied():
    """
    A tree of its own to change, with all that tests need beside the package.
    """
    tree = Path(tempfile.mkdtemp(prefix="unprotected-"))
    for name in ("kling_async", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def ran(tree, tests):
    """
    The status of pytest for these tests in this tree; FAILED where they hang.
    """
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            words, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, "it hangs"
    return ended.returncode, ended.stdout[-2000:]


def missed(row, trees):
    """
    What is wrong with a row; None where its test fails without the protection.
    """
    tree = trees.get()
    path = tree / "kling_async" / row.file
    text = path.read_text()
    try:
        if text.count(row.old) != 1:
            return f"{row.file} holds the protection {text.count(row.old)} times"
        path.write_text(text.replace(row.old, row.new))
        status, said = ran(tree, [f"tests/{row.test}"])
    finally:
        path.write_text(text)
        trees.put(tree)
    return None if status == FAILED else f"{row.test} ended with {status} all the same\n{said if status else ''}"


def main(wanted):
    """
    Check the rows of these faults, or all; the number of bad ones.
    """
    rows = [row for row in protections() if not wanted or row.fault in wanted]
    trees, workers = Queue(), min(4, os.cpu_count() or 1)
    made = [copied() for _ in range(workers)]
    for tree in made:
        trees.put(tree)
    bad = 0
    try:
        with ThreadPoolExecutor(workers) as pool:
            for row, wrong in zip(rows, pool.map(lambda row: missed(row, trees), rows), strict=True):
                bad += wrong is not None
                print(f"{row.fault:4} {row.test:110.110} {'needed' if wrong is None else wrong}", flush=True)
    finally:
        for tree in made:
            shutil.rmtree(tree)
    faults = len({row.fault for row in rows})
    print(f"{len(rows) - bad} of {len(rows)} protections, against {faults} faults, are missed by a test when taken out")
    return bad


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
