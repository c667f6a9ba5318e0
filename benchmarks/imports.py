"""
What importing costs: fresh processes, alternating, the import alone.
"""

import subprocess
import sys
from statistics import median

ROUNDS = 11
SCRIPT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """
    Seconds that one import takes in a new interpreter.
    """
    command = [sys.executable, "-c", SCRIPT.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def against_aiohttp() -> tuple[float, float]:
    """
    `import kling_async` over `import aiohttp`, and its own milliseconds.
    """
    pairs = [(seconds("kling_async"), seconds("aiohttp")) for _ in range(ROUNDS + 1)][1:]
    return median(ours / theirs for ours, theirs in pairs), 1000 * median(ours for ours, _ in pairs)
