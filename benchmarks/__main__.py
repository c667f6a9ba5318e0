"""
Prints the table: `python -m benchmarks` all of it, `python -m benchmarks NAME...` what is named alone.

Each group of figures is measured in a process of its own. What is not installed is told as skipped. The exit status is
1 where a gate is missed, or a group failed.
"""

import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context

from benchmarks.groups import APART, GROUPS, collected
from benchmarks.rounds import CORES, told
from benchmarks.table import printed, status


def table(groups: Sequence[str]) -> int:
    """
    Measure and print these groups, one after the other.
    """
    failed, head = 0, True
    for name in (name for group in groups for name in GROUPS[group]):
        began = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            measured = process.submit(collected, name)
            error = measured.exception()
        if error is not None:
            told(f"{name}: {error!r}\n{error.__cause__ or ''}")
            failed = 1
            continue
        failed |= status(printed(measured.result(), head=head))
        head = False
        told(f"{name}: {time.perf_counter() - began:.0f} s")
    parts = ("aiohttp", "anyio", "attrs", "cattrs", "orjson")
    names = ", ".join(f"{part} {version(part)}" for part in parts)
    print(f"\nPython {platform.python_version()} on {platform.system()}, {len(CORES) or 'unknown'} cores; {names}.")
    return failed


def main() -> int:
    """
    The measurements that the command line names; by default all of the table.
    """
    names = sys.argv[1:] or [name for name in GROUPS if name not in APART]
    unknown = [name for name in names if name not in GROUPS and name not in APART]
    if unknown:
        print(f"{', '.join(unknown)}: not known; there are {', '.join([*GROUPS, 'double_charge'])}", file=sys.stderr)
        return 2
    groups = [name for name in names if name in GROUPS]
    failed = table(groups) if groups else 0
    if "double_charge" in names:
        from benchmarks import double_charge

        failed |= double_charge.main()
    return failed


if __name__ == "__main__":
    sys.exit(main())
