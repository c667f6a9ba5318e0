"""
Processes that are killed, stopped and woken in the middle of a paid create, disks that are full, stores that are gone.

What the simulator has charged is the judge. It serves real sockets from this process; who pays is a child of its own
(tests/crashing.py), which stands still exactly where it is told. Mostly the service pays no heed to repeated ids, so
that only the client's own care stands between a customer and a second charge.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import orjson
import pytest
from attrs import define, evolve

from kling_async import ApiKey, KlingClient, SqliteStore, edit
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.stores import Abilities
from tests.commanding import KNOWN, serving
from tests.crashing import EDIT, NAMES, Order, job
from tests.simulating import Caller

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is sure that an owner has ended"),
]

ROOT = Path(__file__).parents[1]
POINTS = ["before intent", "after intent", "after send", "after reply", "after commit"]
REPEATABLE = Shape(external_ids="repeatable")
LEASE = 0.5


@define
class Child:
    """
    A process that carries out an order.
    """

    process: subprocess.Popen

    def heard(self):
        """
        What it says next.
        """
        line = self.process.stdout.readline()
        assert line, "the child has ended without a word"
        return orjson.loads(line)

    def reached(self, point):
        """
        Return when it stands at this point.
        """
        assert {"at": point} == self.heard()

    def go_on(self):
        """
        Let it leave the point where it stands.
        """
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def stop(self):
        """
        Return when it runs no more, for now.
        """
        self.process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(self.process.pid, os.WUNTRACED)[1])

    def wake(self):
        """
        Let it run again.
        """
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """
        Return when it is gone. Before its parent has taken note, its process id still stands for it.
        """
        self.process.kill()
        self.process.wait()


@contextmanager
def child(order):
    """
    A child that does not outlive the block.
    """
    environment = {name: value for name, value in os.environ.items() if name not in KNOWN}
    command = [sys.executable, "-m", "tests.crashing", order.argument()]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def ended(order):
    """
    How a child ends that nobody disturbs.
    """
    with child(order) as one:
        return one.heard()


@define
class Shop:
    """
    A simulator, and orders to it on one file of intents.
    """

    simulator: Simulator
    order: Order

    @property
    def name(self):
        return NAMES[self.order.flow]

    @property
    def charges(self):
        """
        How often the id was charged; nothing else ever is.
        """
        charges = dict(self.simulator.charges)
        assert {self.name} >= set(charges)
        return charges.get(self.name, 0)

    @property
    def posts(self):
        """
        How many paid creates have reached the service.
        """
        return [seen.endpoint for seen in self.simulator.log].count("create")

    @property
    def task_id(self):
        """
        The task, of which there is one.
        """
        [task_id] = self.simulator._desk.machine.tasks._all
        return task_id

    def learn(self, **abilities):
        """
        Let the store know what the host can do, as from earlier tasks.
        """

        async def learn():
            store = SqliteStore(self.order.store)
            await store.open()
            await store.learn(self.order.base_url, Abilities(**abilities))
            await store.aclose()

        anyio.run(learn)


@contextmanager
def shop(folder, flow, *faults, shape=REPEATABLE, **more):
    """
    A service that works but for these faults, with a marked clip.
    """
    with serving(shape=shape, faults=faults) as served:
        session_id = anyio.run(Caller(served.simulator.transport()).marked)
        known = {"base_url": served.base_url, "store": str(folder / "intents.sqlite"), **more}
        yield Shop(served.simulator, Order(flow=flow, session_id=session_id, **known))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("flow, external_ids", [("create", "unique"), ("create", "repeatable"), ("edit", "repeatable")])
@pytest.mark.parametrize("point", POINTS)
def test_f23_a_create_that_was_killed_is_paid_once_by_its_next_run(tmp_path, point, flow, external_ids, backend):
    """
    Killed before or after its intent, its sending, its reply or its commit: the same order again is the one task.
    """
    faults = [Fault("create", "hang", handled=True)] if point == "after send" else []
    with shop(tmp_path, flow, *faults, shape=Shape(external_ids=external_ids), backend=backend) as open_shop:
        sent = POINTS.index(point) >= POINTS.index("after send")
        with child(evolve(open_shop.order, point=point)) as one:
            one.reached(point)
            one.kill()
        assert (sent, sent) == (open_shop.posts, open_shop.charges)
        end = ended(open_shop.order)
        assert {"end": "succeed", "task_id": open_shop.task_id} == end
        assert (1, 1) == (open_shop.posts, open_shop.charges)


def killed_before_it_was_sent(open_shop):
    """
    A row says that a create may have left, and it has not.
    """
    with child(evolve(open_shop.order, point="before send")) as one:
        one.reached("before send")
        one.kill()


@pytest.mark.parametrize("known", [{}, {"finds": True}, {"finds": True, "enforces": True}], ids=len)
def test_f23_a_kill_between_row_and_bytes_is_no_leave_to_send_again(tmp_path, known):
    """
    Nobody saw the bytes stay, so it is paid again where the host surely refuses a second one, and nowhere else.
    """
    shape = Shape(external_ids="unique" if "enforces" in known else "repeatable")
    with shop(tmp_path, "create", shape=shape) as open_shop:
        open_shop.learn(**known)
        killed_before_it_was_sent(open_shop)
        end = ended(open_shop.order)
        if "enforces" in known:
            assert {"end": "succeed", "task_id": open_shop.task_id} == end
        else:
            assert {"end": "UnknownOutcomeError", "absent": bool(known)} == end
        assert ("enforces" in known,) * 2 == (open_shop.posts, open_shop.charges)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("flow", ["create", "edit"])
def test_f25_an_owner_stopped_before_it_sends_finds_that_another_has_sent(tmp_path, flow, backend):
    """
    Its lease runs out, another pays; woken, it may not write its row any more, and returns the other's task.
    """
    with shop(tmp_path, flow, lease=LEASE, backend=backend) as open_shop:
        with child(evolve(open_shop.order, point="after intent")) as first:
            first.reached("after intent")
            first.stop()
            first.go_on()
            end = ended(open_shop.order)
            assert {"end": "succeed", "task_id": open_shop.task_id} == end
            assert (1, 1) == (open_shop.posts, open_shop.charges)
            first.wake()
            assert end == first.heard()
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("flow", ["create", "edit"])
def test_f25_an_owner_stopped_while_it_sends_is_not_paid_for_twice(tmp_path, flow, backend):
    """
    Whoever takes over cannot know whether it was sent, and says so; woken, the first one sends, and is paid once.
    """
    with shop(tmp_path, flow, lease=LEASE, backend=backend) as open_shop:
        with child(evolve(open_shop.order, point="before send")) as first:
            first.reached("before send")
            first.stop()
            first.go_on()
            assert {"end": "UnknownOutcomeError", "absent": False} == ended(open_shop.order)
            assert (0, 0) == (open_shop.posts, open_shop.charges)
            first.wake()
            end = first.heard()
        assert {"end": "succeed", "task_id": open_shop.task_id} == end == ended(open_shop.order)
        assert (1, 1) == (open_shop.posts, open_shop.charges)


def test_f25_where_the_host_refuses_a_second_one_the_takeover_sends(tmp_path):
    """
    The task is proven not to be there, and is paid; the first one, woken, is refused its id and returns that task.
    """
    with shop(tmp_path, "create", shape=Shape(), lease=LEASE) as open_shop:
        open_shop.learn(finds=True, enforces=True)
        with child(evolve(open_shop.order, point="before send")) as first:
            first.reached("before send")
            first.stop()
            first.go_on()
            end = ended(open_shop.order)
            assert {"end": "succeed", "task_id": open_shop.task_id} == end
            first.wake()
            assert end == first.heard()
        assert (2, 1) == (open_shop.posts, open_shop.charges)


def test_f25_a_woken_owner_that_is_refused_does_not_send_again(tmp_path):
    """
    What it writes over the row of the one that took over is not taken, so it looks first and finds the task.
    """
    faults = [Fault("create", "hang", handled=True), Fault("create", "code", code=1302)]
    with shop(tmp_path, "create", *faults, lease=LEASE, on_unknown="resend") as open_shop:
        open_shop.learn(finds=True)
        with child(evolve(open_shop.order, point="before send")) as first:
            first.reached("before send")
            first.stop()
            first.go_on()
            with child(evolve(open_shop.order, point="after send")) as second:
                second.reached("after send")
                assert (1, 1) == (open_shop.posts, open_shop.charges)
                first.wake()
                end = first.heard()
        assert {"end": "succeed", "task_id": open_shop.task_id} == end
        assert (2, 1) == (open_shop.posts, open_shop.charges)


@contextmanager
def unwritable():
    """
    A folder with intents that anybody may read and nobody may write.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def begin():
            store = SqliteStore(folder / "intents.sqlite")
            await store.open()
            await store.aclose()

        anyio.run(begin)
        for path, mode in [*((path, 0o444) for path in folder.iterdir()), (folder, 0o555)]:
            path.chmod(mode)
        try:
            yield folder
        finally:
            folder.chmod(0o755)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_f26_nothing_is_sent_where_the_store_cannot_be_written(backend):
    """
    File and folder are read-only: the client does not even open, and no request is made.
    """
    with unwritable() as folder, shop(folder, "create", backend=backend, nobody=True) as open_shop:
        before = len(open_shop.simulator.log)
        assert "StoreError" == ended(open_shop.order)["end"]
        assert before == len(open_shop.simulator.log)


@pytest.mark.parametrize("point", ["before intent", "after intent"])
@pytest.mark.parametrize("flow", ["create", "edit"])
@pytest.mark.parametrize("how", ["disk", "pages"])
def test_f26_nothing_is_sent_while_the_disk_is_full(tmp_path, how, flow, point):
    """
    Neither without an intent nor without the note that it is about to be sent; with room again, it is paid once.
    """
    with shop(tmp_path, flow) as open_shop:
        assert "StoreError" == ended(evolve(open_shop.order, full=(how, point)))["end"]
        assert (0, 0) == (open_shop.posts, open_shop.charges)
        end = ended(open_shop.order)
        assert {"end": "succeed", "task_id": open_shop.task_id} == end
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.parametrize("flow", ["create", "edit"])
async def test_f27_a_task_whose_intent_is_lost_is_found_and_not_paid_again(tmp_path, flow):
    """
    The file of intents is deleted after the create: the same id is asked of the service before anything is sent.
    """
    simulator, tasks = Simulator(task_seconds=0, shape=REPEATABLE), []
    session_id = await Caller(simulator.transport()).marked()
    for _ in range(2):
        before = simulator.log
        store = SqliteStore(tmp_path / "intents.sqlite")
        async with KlingClient(ApiKey("any"), transport=simulator.transport(), store=store) as client:
            if flow == "edit":
                tasks.append(await edit(client, job("order-1")))
            else:
                tasks.append(await client.create_task(session_id, EDIT, external_task_id="order-1"))
        for path in tmp_path.glob("intents.sqlite*"):
            path.unlink()
    assert ["GET"] == sorted({seen.method for seen in simulator.log[len(before) :]})
    assert tasks[0].task_id == tasks[1].task_id
    assert {NAMES[flow]: 1} == dict(simulator.charges)


@pytest.mark.parametrize("flow, processes", [("create", 2), ("edit", 2), ("create", 8)])
def test_w8_processes_with_one_key_at_the_same_moment_pay_once(tmp_path, flow, processes):
    """
    On one file one of them owns the create; the others wait for it, and all get the same task.
    """
    with shop(tmp_path, flow, point="start") as open_shop, ExitStack() as stack:
        backends = ["asyncio", "trio"] * processes
        orders = [evolve(open_shop.order, backend=backend) for backend in backends[:processes]]
        children = [stack.enter_context(child(order)) for order in orders]
        for one in children:
            one.reached("start")
        for one in children:
            one.go_on()
        ends = [one.heard() for one in children]
        assert [{"end": "succeed", "task_id": open_shop.task_id}] * processes == ends
        assert (1, 1) == (open_shop.posts, open_shop.charges)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_f53_a_client_is_refused_after_a_fork_and_on_another_loop(tmp_path, backend):
    """
    A RuntimeError at once names both processes, or both loops; where it was opened, the client works on.
    """
    with shop(tmp_path, "fork", backend=backend) as open_shop, child(open_shop.order) as one:
        opened, forked = one.heard()["process"], one.heard()
        assert opened != forked["process"]
        assert f"opened in process {opened} and is used in {forked['process']}" in forked["refused"]
        for other in ("asyncio", "trio"):
            heard = one.heard()
            assert other == heard["backend"]
            named = re.fullmatch(r".* was opened on (.*) and is used on (.*): open one on each loop", heard["refused"])
            assert named[1] != named[2]
        assert {"end": "NotFoundError"} == one.heard()
