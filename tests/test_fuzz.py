"""
The fuzz targets, briefly: every seed, and a few hundred changed ones. `python -m tests.fuzz` goes on for minutes.
"""

import sys

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import __main__ as command
from tests.fuzz import engines
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_ends_well(name):
    """
    What samples hold is a value or an error of ours.
    """
    with TARGETS[name].opened() as run:
        for seed in TARGETS[name].seeds:
            run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_becomes_of_a_seed_ends_well(name):
    """
    The same with stretches of it cut out, doubled, or replaced.
    """
    with TARGETS[name].opened() as run:

        @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(engines.mutated(TARGETS[name]))
        def once(data):
            run(data)

        once()


def test_the_command_line_takes_each_target(monkeypatch, capfd):
    """
    And tells how often it ran; here it only changes samples, whatever is installed.
    """
    assert tuple(TARGETS) == command.NAMES
    monkeypatch.setattr(sys, "argv", ["fuzz", "webhook-body", "--minutes", "0", "--engine", "hypothesis"])
    command.main()
    assert "runs in 0 second(s)" in capfd.readouterr().err


def test_a_finding_can_be_replayed(monkeypatch, tmp_path):
    """
    From the file that the engine left.
    """
    found = tmp_path / "crash"
    found.write_bytes(TARGETS["mask"].seeds[0])
    monkeypatch.setattr(sys, "argv", ["fuzz", "mask", "--engine", "hypothesis", "--replay", str(found)])
    command.main()
    monkeypatch.setattr("tests.fuzz.pictures.read", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main()


@pytest.mark.parametrize("bound", ["SLOW", "LARGE"])
def test_what_costs_too_much_is_a_finding(bound, monkeypatch):
    """
    Time of work and growth of memory are bounded for each input.
    """
    run = engines.guarded(len)
    run(b"")
    monkeypatch.setattr(engines, bound, -1)
    with pytest.raises(engines.FoundError, match="4 bytes"):
        run(b"1234")
    assert 2 == run.count
