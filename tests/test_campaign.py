"""
F51: a thousand edits through everything that goes wrong at once, and through two kills.

The simulator in this process has the truth; the edits are done by a child of its own (tests/crashing.py), which is
killed twice and started again with the same order. The service pays no heed to repeated ids.
"""

import sys
from collections import Counter
from math import log
from random import Random

import pytest
from attrs import define, field

from kling_async.simulator import Fault, Shape, Simulator
from tests.commanding import serving
from tests.crashing import Order, job
from tests.test_crash import child

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is sure that an owner has ended"),
]

EDITS = 1000
RATE = 0.05
"""Share of the requests that meet a fault."""
LOST = {"kind": "lost"}
CUT = {"kind": "cut"}
HELD = {"kind": "hang"}
HELD_ACCEPTED = {"kind": "hang", "handled": True}
BROKEN = {"kind": "status", "status": 503}
BROKEN_ACCEPTED = {"kind": "status", "status": 500, "handled": True}
PROXY_ACCEPTED = {"kind": "html", "handled": True}
HURRIED = {"kind": "code", "code": 1302}
FULL = {"kind": "code", "code": 1303}
HALF = {"kind": "truncated"}

CALLS = [LOST, CUT, HELD, HELD_ACCEPTED, BROKEN, BROKEN_ACCEPTED, PROXY_ACCEPTED, HURRIED]
KINDS = {
    "init": CALLS,
    "add": CALLS,
    "create": [*CALLS, FULL],
    "get": CALLS,
    "list": CALLS,
    "media": [LOST, CUT, BROKEN, HALF],
}
"""What goes wrong where, each kind as often as the others."""


def troubles(seed, calls):
    """
    Faults at so many calls of each endpoint, at distances drawn by chance.
    """
    chance = Random(seed)
    for endpoint, kinds in KINDS.items():
        left = calls
        while left > 0:
            passing = int(log(1 - chance.random()) / log(1 - RATE))
            yield Fault(endpoint, after=passing, **chance.choice(kinds))
            left -= passing + 1


@define
class Campaign:
    """
    What was said of it.
    """

    simulator: Simulator
    order: Order
    edited: dict = field(factory=dict)
    """The tasks that each key was reported with."""
    failed: Counter = field(factory=Counter)
    replayed: Counter = field(factory=Counter)
    adopted: int = 0
    passes: int = 0
    absent: int = 0
    """Keys that were left for the passes which may send again."""

    def run(self, until=None):
        """
        Start the command, and kill it once so much is charged; what it left, if it came to its end.
        """
        with child(self.order) as one:
            while True:
                said = one.heard()
                self.take(said)
                if said.get("end"):
                    return said["left"]
                if until is not None and sum(self.simulator.charges.values()) >= until:
                    one.kill()
                    return None

    def take(self, said):
        """
        Note one line.
        """
        if "edited" in said:
            self.edited.setdefault(said["edited"], set()).add(said["task_id"])
        elif "failed" in said:
            self.failed[said["error"]] += 1
        elif "replayed" in said:
            self.replayed[said["error"]] += 1
        elif "begun" in said:
            self.passes += 1
            self.adopted += len(said["adopted"])
            self.absent = max(self.absent, said["begun"] if said["policy"] == "resend" else 0)

    def figures(self, kills):
        """
        What it came to, for the reader.
        """
        log = self.simulator.log
        charges = Counter(self.simulator.charges.values())
        met = sum(seen.fault is not None for seen in log)
        methods = Counter(seen.method for seen in log)
        return {
            "edits": len(self.edited),
            "kills": kills,
            "passes": self.passes,
            "requests": len(log),
            "POST": methods["POST"],
            "of these creates": sum(seen.endpoint == "create" for seen in log),
            "GET": methods["GET"],
            "faults met": f"{met} ({met / len(log):.1%})",
            "replays": self.replayed.total(),
            "adopted by reconcile()": self.adopted,
            "sent again, proven absent": self.absent,
            "failures on the way": dict(self.failed),
            "charged once": charges[1],
            "charged twice or more": charges.total() - charges[1] - charges[0],
            "lost": self.order.edits - len(self.edited),
            "running at once, most": self.simulator.most_running,
        }


@pytest.mark.parametrize(
    "edits, backend, external_ids, seed", [(EDITS, "asyncio", "repeatable", 51), (EDITS // 10, "trio", "unique", 52)]
)
def test_f51_edits_with_faults_and_two_kills_are_each_paid_once(tmp_path, edits, backend, external_ids, seed):
    """
    Nothing is lost and nothing is paid twice: each key has one task, which is the one that was charged.
    """
    settings = {"quota": 50, "task_seconds": 0.2, "shape": Shape(external_ids=external_ids)}
    with serving(**settings, faults=troubles(seed, 10 * edits)) as served:
        paths = {"base_url": served.base_url, "store": str(tmp_path / "intents.sqlite"), "folder": str(tmp_path)}
        order = Order(flow="batch", edits=edits, backend=backend, doubt=0.3, total=1.0, **paths)
        campaign = Campaign(served.simulator, order)
        kills = [edits // 3, 2 * edits // 3]
        assert [None, None] == [campaign.run(until) for until in kills]
        assert [] == campaign.run()
        sys.stdout.writelines(f"{name:26} {value}\n" for name, value in campaign.figures(len(kills)).items())
        keys = [str(number) for number in range(edits)]
        assert sorted(keys) == sorted(campaign.edited)
        assert {1} == {len(tasks) for tasks in campaign.edited.values()}
        assert {job(key).external_task_id: 1 for key in keys} == dict(served.simulator.charges)
        assert 50 >= served.simulator.most_running
        sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.mp4*")}
        assert ({f"{key}.mp4" for key in keys}, 1) == (set(sizes), len(set(sizes.values())))
