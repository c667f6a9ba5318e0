"""
Fuzzing for minutes, outside the tests: `python -m tests.fuzz envelope --minutes 10`.

With atheris installed it is guided by coverage; else hypothesis changes the samples. It ends with 0 where nothing was
found. Corpus and findings stay in a folder; a finding is replayed by `--replay FILE`.
"""

import argparse
import logging
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.engines import by_atheris, by_hypothesis, folder_of

NAMES = ("envelope", "mask", "webhook-body", "webhook-headers")


def main():
    """
    Read the command line, and fuzz.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads foreign bytes.")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=10.0)
    guided = find_spec("atheris") is not None
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], default="atheris" if guided else "hypothesis")
    parser.add_argument("--folder", type=Path, help="of corpus and findings")
    parser.add_argument("--replay", type=Path, help="run this one input instead")
    asked = parser.parse_args()
    # Refusals are logged; that is worked through here as well, and printed nowhere.
    logging.getLogger("kling_async").addHandler(logging.NullHandler())
    with instrumented(asked.engine):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[asked.target]
    if asked.replay is not None:
        with target.opened() as run:
            run(asked.replay.read_bytes())
        return
    engine = by_atheris if asked.engine == "atheris" else by_hypothesis
    engine(target, asked.minutes * 60, (asked.folder or folder_of(asked.target)).absolute())


def instrumented(engine):
    """
    While this block lasts, what is imported will tell atheris which way it goes.
    """
    if engine != "atheris":
        return nullcontext()
    import atheris

    return atheris.instrument_imports(include=["kling_async", "email", "json"])


if __name__ == "__main__":
    main()
