"""
The paid create under everything that can go wrong at once: no id is charged twice, and nobody is told a lie.
"""

import math

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from kling_async import KlingError, Task, UnknownOutcomeError
from kling_async._exchange import log
from tests.submitting import ANY, COMET, CREATE, DIRECT, GET, LEASE, OPERATIONS, RELAY, Call, Trouble, Ways, World

EXAMPLES, LONG = 600, 10_000
DAY = 86_400.0


def one_of(*values):
    """
    One of these; what stands here twice comes twice as often.
    """
    return some.sampled_from(values)


@some.composite
def ways(draw):
    """
    A host, and how it is called.
    """
    doubt = draw(one_of(90.0, 90.0, 12.0, 2.0))
    return Ways(
        backend=draw(one_of("asyncio", "asyncio", "asyncio", "asyncio", "trio")),
        store=draw(one_of("memory", "memory", "memory", "sqlite")),
        base_url=draw(one_of(RELAY, DIRECT, COMET)),
        external_ids=draw(one_of("repeatable", "repeatable", "repeatable", "repeatable", "unique", "dropped")),
        envelope=draw(one_of("raw", "raw", "raw", "raw", "wrapped1", "flat")),
        finds=draw(one_of(True, True, True, False)),
        lag=draw(one_of(0.0, 5.0, 5.0, doubt + 50)),
        lists=draw(some.booleans()),
        proven=draw(some.booleans()),
        on_unknown=draw(one_of("raise", "resend")),
        doubt=doubt,
        attempts=draw(one_of(1, 3)),
        ahead=draw(one_of(0.0, 0.0, 200.0, -200.0)),
        two_keys=draw(one_of(*[False] * 7, True)),
    )


NTH = one_of(0, 0, 0, 0, 1, 2)
WHERE = some.one_of(
    some.tuples(some.just(ANY), some.integers(0, 15)),
    some.tuples(one_of(*OPERATIONS, "put sending", "POST", "POST done", "put unknown"), NTH),
)
WHAT = one_of("hold", "hold", "pause", "pause", "kill", "cancel", "cut", "fail", "down", "torn")
SECONDS = one_of(0.0, LEASE + 100, 100.0, 2000.0)
TROUBLES = some.builds(
    lambda where, what, seconds: Trouble(where[0], what, seconds=seconds, nth=where[1]), WHERE, WHAT, SECONDS
)
HOLDS = TROUBLES.map(lambda trouble: evolve(trouble, what="hold"))
CREATES = some.lists(one_of(None, None, "lost", "lost", "cut", *CREATE), max_size=3)
TURNS = some.lists(one_of(None, "lost", "cut", "1303", "1301", "unsent", "1302 in 2"), max_size=1)
GETS = some.one_of(
    some.just([]),
    some.just([]),
    some.lists(one_of(None, *GET), max_size=6),
    some.builds(lambda down, wrong: ["5000"] * down + ["missing"] * wrong, some.integers(0, 12), some.integers(1, 2)),
)
KEYS = one_of("order-0", "order-0", "order-0", "order-0", "order-1", None, "drawn")
GIVEN = one_of("order-0", "order-0", "order-1", "drawn")


def calls(what, keys=KEYS, troubles=TROUBLES, most=2):
    """
    Calls of one kind.
    """
    return some.builds(
        Call,
        what=some.just(what),
        slot=some.integers(0, 1),
        key=keys,
        other=one_of(*[False] * 15, True),
        patience=one_of(*[math.inf] * 7, 0.2, 3.0, 30.0),
        troubles=some.lists(troubles, max_size=most).map(tuple),
    )


def started(call, starts):
    """
    The same call, begun later.
    """
    call.starts = starts
    return call


FIRST = some.just("order-0")
AIMS = one_of(
    ("lost", "put unknown"),
    ("lost", "GET"),
    ("lost", "put accepted"),
    ("cut", "put unknown"),
    ("cut", "put absent"),
    ("1302", "put refused"),
    ("unsent", "put intent"),
    ("5000 done", "POST"),
    ("hang done", "POST"),
    ("taken done", "POST done"),
    (None, "POST done"),
    (None, "put sending"),
    (None, "put accepted"),
)
"""What becomes of a create, and where trouble then meets its call."""
SENDING = calls("create")
ASKING = some.one_of(calls("known", GIVEN), calls("reconcile", GIVEN), calls("hint", GIVEN), calls("wait", GIVEN))
AT_ONCE = some.lists(
    some.builds(started, some.one_of(SENDING, SENDING, ASKING), one_of(0.0, 0.0, 0.3, 3.0, 70.0, LEASE + 10)),
    min_size=2,
    max_size=3,
)


class Submit(RuleBasedStateMachine):
    """
    Processes in two slots with one store, and another place to go on at; the world judges each of their steps.
    """

    world = None

    @initialize(ways=ways())
    def begin(self, ways):
        self.world = World(ways)

    @rule(call=SENDING, create=CREATES, get=GETS)
    def send(self, call, create, get):
        self.world.step(call, create=create, get=get)

    @rule(call=calls("create", FIRST, most=1), create=CREATES, get=GETS)
    def send_again(self, call, create, get):
        self.world.step(call, create=create, get=get)

    @rule(calls=AT_ONCE, create=CREATES, get=GETS)
    def at_once(self, calls, create, get):
        self.world.step(*calls, create=create, get=get)

    @rule(call=ASKING, create=CREATES, get=GETS)
    def ask(self, call, create, get):
        self.world.step(call, create=create, get=get)

    @rule(aim=AIMS, trouble=TROUBLES, key=one_of("order-0", None), slot=some.integers(0, 1), get=GETS)
    def aim(self, aim, trouble, key, slot, get):
        """Trouble where it matters."""
        become, at = aim
        aimed = evolve(trouble, at=at, nth=trouble.nth % 2)
        self.world.step(Call(slot=slot, key=key, troubles=(aimed,)), create=[become], get=get)

    @rule(slot=some.integers(0, 1), wrong=some.integers(1, 2))
    def blind(self, slot, wrong):
        """Nobody sees a create whose reply is lost, but at last it seems not to be there."""
        self.world.step(Call(slot=slot), create=["lost"], get=self.world.blindness(wrong))

    @rule(slot=some.integers(0, 1), become=one_of("lost", "5000 done", "hang done"))
    def slow(self, slot, become):
        """A create is long on its way, and its reply is lost."""
        self.world.step(Call(slot=slot, troubles=(Trouble("POST", "pause", 2000.0),)), create=[become])

    @rule(hold=HOLDS, create=CREATES, call=calls("create", FIRST, most=1), then=CREATES, late=some.booleans())
    def overtake(self, hold, create, call, then, late):
        """A call is held, another takes over once its lease has run out, and perhaps the first goes on."""
        slow = Call(key="order-0", slot=1 - call.slot, troubles=(hold,))
        self.world.step(slow, create=create)
        self.world.pass_time(LEASE + 1)
        self.world.step(call, create=then)
        if late and slow in self.world.held:
            self.world.resume(self.world.held.index(slow))

    @precondition(lambda self: self.world.held)
    @rule(index=some.integers(0, 3), create=CREATES, get=GETS)
    def resume(self, index, create, get):
        self.world.resume(index, create=create, get=get)

    @rule(seconds=one_of(*[1.0, 8.0, 70.0, LEASE + 10, 1000.0] * 4, 2.0 * DAY, 30.0 * DAY))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @rule(slot=some.integers(0, 1), how=one_of("close", "kill", "vanish"))
    def restart(self, slot, how):
        self.world.restart(slot, how)

    @precondition(lambda self: self.world.ways.remembers)
    @rule(lose=some.booleans())
    def elsewhere(self, lose):
        self.world.elsewhere(lose=lose)

    @precondition(lambda self: self.world.ways.remembers)
    @rule(calls=some.tuples(*[calls("create", FIRST, most=1)] * 3), creates=some.tuples(*[TURNS] * 3), key=GIVEN)
    def commute(self, calls, creates, key):
        """Send at two machines in turn."""
        for call, create in zip(calls, creates, strict=True):
            call.key = key
            self.world.elsewhere(lose=False)
            self.world.step(call, create=create)

    def teardown(self):
        if self.world is None:
            return
        try:
            if not self.world.stage.failed:
                self.world.finish()
        finally:
            self.world.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_id_is_charged_twice_and_nobody_is_told_a_lie(request, monkeypatch):
    """
    Whatever is lost, cut, refused, paused, killed or repeated, in whichever order.
    """
    monkeypatch.setattr(log, "disabled", True)
    examples = LONG if request.config.getoption("--long") else EXAMPLES
    run_state_machine_as_test(
        Submit,
        settings=settings(
            max_examples=examples, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BOTH
@pytest.mark.parametrize(("refusal", "operation"), [("1302", "put refused"), ("unsent", "put intent")])
def test_what_the_store_did_not_note_is_not_waited_for(backend, refusal, operation):
    """
    A refusal that could not be written leaves the row as sent: the create lets go of it, and looks for its task.
    """
    with World(Ways(backend=backend, proven=True)) as world:
        outcome = world.step(Call(troubles=(Trouble(operation, "fail"),)), create=[refusal])[0]
        assert isinstance(outcome, UnknownOutcomeError)
        assert (True, 90.0) == (outcome.absent, pytest.approx(world.now, abs=2))
        assert [] == world.runs(outcome.external_task_id)
        world.finish()


@BOTH
@pytest.mark.parametrize("refusal", ["1303", "1301", "unsent"])
def test_what_was_refused_here_may_be_paid_elsewhere_meanwhile(backend, refusal):
    """
    An id that was not created is looked for again before it is sent, once the last look is over a minute old.
    """
    with World(Ways(backend=backend, attempts=1)) as world:
        assert isinstance(world.step(Call(key="order-0"), create=[refusal])[0], KlingError)
        world.elsewhere(lose=False)
        paid = world.step(Call(key="order-0"))[0]
        world.elsewhere(lose=False)
        assert paid.task_id == world.step(Call(key="order-0"))[0].task_id
        assert {"order-0": 1} == dict(world.simulator.charges)


@BOTH
def test_what_was_long_on_its_way_is_looked_for_as_long_as_any_other(backend):
    """
    Over half an hour after it was written down it is accepted, and its reply is lost: an index may lag behind it still.
    """
    with World(Ways(backend=backend, proven=True, lag=5.0)) as world:
        late = Call(key="order-0", troubles=(Trouble("POST", "pause", 2000.0),))
        assert "order-0" == world.step(late, create=["lost"])[0].external_task_id
        assert isinstance(late.outcome, Task)
        assert {"order-0": 1} == dict(world.simulator.charges)
