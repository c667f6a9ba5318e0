"""
Who makes the bytes: atheris, which follows what the code does with them, or hypothesis, which only changes samples.

Both stop at the first finding: what a target raises, more than a second of work on one input, or much more memory.
"""

import faulthandler
import resource
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SLOW = 1.0
"""Seconds of work that one input may cost."""
LARGE = 64 * 1024
"""Kibibytes by which one input may raise the most memory that the process ever had."""
STUCK = 30
"""Seconds after which the process is ended, with a trace of where it is."""


class FoundError(Exception):
    """
    An input that costs too much.
    """


def guarded(run):
    """
    The same function, with a bound on time and memory; what it took is counted.
    """

    def measured(data):
        measured.count += 1
        most, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        run(data)
        spent = time.process_time() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
        if spent > SLOW or grown > LARGE:
            raise FoundError(f"{spent:.2f} s and {grown} KiB for {len(data)} bytes")

    measured.count = 0
    return measured


@st.composite
def mutated(draw, target):
    """
    A seed with a few stretches cut out, doubled, or replaced by random bytes, words, or a piece of another seed.
    """
    seeds = st.sampled_from(target.seeds)
    data = draw(seeds)
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 24)))
        how = draw(st.sampled_from("wwwbds"))
        piece = data[start:stop] * 2
        if how == "w":
            piece = draw(st.sampled_from(target.words))
        elif how == "b":
            piece = draw(st.binary(max_size=8))
        elif how == "s":
            other = draw(seeds)
            place = draw(st.integers(0, len(other)))
            piece = other[place : place + 24]
        data = data[:start] + piece + data[stop:]
    return data


def by_hypothesis(target, seconds, _folder):
    """
    Change samples for so long.
    """
    with target.opened() as run:
        measured, end = guarded(run), time.monotonic() + seconds

        @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(mutated(target))
        def once(data):
            faulthandler.dump_traceback_later(STUCK, exit=True)
            measured(data)

        try:
            once()
            while time.monotonic() < end:
                once()
        finally:
            faulthandler.cancel_dump_traceback_later()
        sys.stderr.write(f"Done {measured.count} runs in {seconds:.0f} second(s)\n")


def by_atheris(target, seconds, folder):
    """
    Follow the coverage for so long; libFuzzer prints its own report and ends the process.
    """
    import atheris

    corpus, found = folder / "corpus", folder / "found"
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in target.words))
    longest = 2 * max(map(len, target.seeds))
    options = [
        *(f"-max_total_time={seconds:.0f}", f"-timeout={STUCK}", f"-max_len={longest}", f"-dict={words}"),
        *(f"-artifact_prefix={found}/", "-print_final_stats=1", "-rss_limit_mb=4096", "-len_control=0"),
    ]
    opened = target.opened()
    atheris.Setup([sys.argv[0], *options, str(corpus)], guarded(opened.__enter__()))  # libFuzzer never returns
    atheris.Fuzz()


def escaped(word):
    """
    A word as libFuzzer's dictionaries have it.
    """
    return "".join(f"\\x{byte:02X}" for byte in word)


def folder_of(name):
    """
    Where a target's corpus and findings are kept, beside those of hypothesis.
    """
    return Path(".hypothesis") / "fuzz" / name
