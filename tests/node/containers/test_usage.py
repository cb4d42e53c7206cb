"""Counters are the kernel's; a container that does not run has none."""

from node.containers.model import CreateSpec
from node.containers.usage import Gauge, Machine, Traffic, machine, traffic

STAT = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 0 1 2 3 4 5 6 7 9 10\nintr 5\ncpu9 no\n"
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
  eth0:    10 11 12 13 0 0 0 0 14 15 16 17 0 0 0 0
a:b: 1 1 1 1 0 0 0 0 2 2 2 2 0 0 0 0
 bad: x
"""


def test_the_machine():
    assert machine(STAT, "MemTotal:  1000 kB\nMemFree: 1 kB\n") == Machine(36 * 10**7, 2, 1024_000)
    assert machine("", "") == Machine()


def test_interfaces():
    found = traffic(DEV)
    assert found == {"eth0": Traffic(10, 11, 12, 13, 14, 15, 16, 17), "a:b": Traffic(1, 1, 1, 1, 2, 2, 2, 2)}
    assert traffic("") == {}


async def test_nothing_runs(node):
    await node.containers.create(CreateSpec("alpine", name="box"))
    container, look = await node.containers.usage("box")
    assert (container.name, look) == ("box", None)


async def test_a_running_one(node, tmp_path):
    await node.run()
    _, look = await node.containers.usage("box")
    assert look.machine.processors >= 1
    assert look.machine.memory > 0
    live = node.containers._index.all()[0]
    (tmp_path / str(live.state.pid) / "net").mkdir(parents=True)
    (tmp_path / str(live.state.pid) / "net" / "dev").write_text(DEV)
    look = await Gauge(node.freezer, tmp_path).read(live)
    assert set(look.networks) == {"eth0", "a:b"}
    assert look.machine == Machine()
