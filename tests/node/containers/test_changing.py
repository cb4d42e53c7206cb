"""Update: what may be changed beside what is set, what the kernel is told, and that it is still so after a restart."""

from dataclasses import replace

import pytest

from node.containers.changing import Change, difference, merge
from node.containers.errors import InvalidSpec, WrongState
from node.containers.freezer import CgroupFailed
from node.containers.model import CreateSpec, Port, PublishedPort, Resources, RestartMode, RestartPolicy
from node.containers.pruning import AlreadyPruning, PruneFilter
from node.network.model import PortBinding
from ocispec.errors import FailedPrecondition
from tests.node.containers.fakes import PortTaken

MB = 1 << 20


def test_what_is_not_named_stays():
    now = Resources(memory=64 * MB, cpu_shares=5, pids_limit=9)
    merged = merge(now, Change(Resources(cpu_shares=7)))
    assert merged == replace(now, cpu_shares=7)
    assert merge(now, Change(pids_limit=-1)).pids_limit == -1


def test_swap_keeps_what_it_meant():
    assert merge(Resources(memory=64 * MB), Change(Resources(memory=32 * MB))).memory_swap == 128 * MB
    assert merge(Resources(), Change(Resources(memory=32 * MB))).memory_swap == 64 * MB
    assert merge(Resources(memory=9 * MB, memory_swap=-1), Change(Resources(memory=32 * MB))).memory_swap == -1
    with pytest.raises(WrongState, match="update the memoryswap at the same time"):
        merge(Resources(memory=64 * MB), Change(Resources(memory=256 * MB)))


@pytest.mark.parametrize(
    ("now", "wanted", "words"),
    [
        (Resources(cpu_period=5000), Resources(nano_cpus=1), "Nano CPUs cannot be updated as CPU Period has already"),
        (Resources(cpu_quota=5000), Resources(nano_cpus=1), "Nano CPUs cannot be updated as CPU Quota has already"),
        (Resources(nano_cpus=1), Resources(cpu_quota=5000), "CPU Quota cannot be updated as NanoCPUs has already"),
        (Resources(nano_cpus=1), Resources(cpu_period=5000), "CPU Period cannot be updated as NanoCPUs has already"),
    ],
)
def test_conflicts_are_dockers(now, wanted, words):
    with pytest.raises(WrongState, match=words):
        merge(now, Change(wanted))


def test_the_kernel_is_told_what_changed_and_what_is_lifted():
    before = Resources(memory=64 * MB, pids_limit=5, cpu_shares=7)
    assert difference(before, before) == {}
    assert difference(before, replace(before, pids_limit=0)) == {"pids": {"limit": -1}}
    assert difference(before, replace(before, cpu_shares=9)) == {"cpu": {"shares": 9}}
    assert difference(before, Resources(pids_limit=5, cpu_shares=7)) == {"memory": {"limit": -1, "swap": -1}}
    assert difference(Resources(), Resources(nano_cpus=5 * 10**8)) == {"cpu": {"quota": 50_000, "period": 100_000}}


async def test_a_running_container_is_changed_at_once_and_for_good(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run(labels={"a": "1", "b": "2"})
        warnings = await node.containers.update("box", Change(
            Resources(memory=64 * MB, cpu_shares=3), pids_limit=4,
            restart=RestartPolicy(RestartMode.ON_FAILURE, 3), labels={"a": None, "c": "3"},
        ))
        assert warnings == ()
        assert node.freezer.limits[container_id] == [
            {"memory": {"limit": 64 * MB, "swap": 128 * MB}, "cpu": {"shares": 3}, "pids": {"limit": 4}}
        ]
        assert node.actions()[-1] == "update"
    async with cold_node.opened() as node:
        spec = (await node.containers.get("box")).spec
        assert (spec.resources.memory, spec.resources.pids_limit) == (64 * MB, 4)
        assert spec.restart == RestartPolicy(RestartMode.ON_FAILURE, 3)
        assert spec.labels == {"b": "2", "c": "3"}


async def test_a_stopped_one_is_changed_on_paper(node):
    created = await node.containers.create(CreateSpec("alpine", name="box"))
    await node.containers.update("box", Change(Resources(memory=64 * MB)))
    assert created.id not in node.freezer.limits
    assert (await node.containers.get("box")).spec.resources.memory == 64 * MB


async def test_what_cannot_be_changes_nothing(node, monkeypatch):
    await node.run(auto_remove=True)
    before = (await node.containers.get("box")).spec
    for change, words in (
        (Change(Resources(memory=5)), "Minimum memory limit allowed is 6MB"),
        (Change(restart=RestartPolicy(RestartMode.ALWAYS)), "AutoRemove is enabled"),
        (Change(restart=RestartPolicy(RestartMode.NO, 5)), "maximum retry count can only be used with 'on-failure'"),
    ):
        with pytest.raises((InvalidSpec, WrongState), match=words):
            await node.containers.update("box", change)

    async def refuse(_container_id, _limits):
        raise CgroupFailed("the kernel refused")

    monkeypatch.setattr(node.freezer, "update", refuse)
    with pytest.raises(CgroupFailed):
        await node.containers.update("box", Change(Resources(memory=64 * MB)))
    assert (await node.containers.get("box")).spec == before


async def test_prune_takes_what_has_ended_and_no_other(node):
    await node.run("up")
    for name, labels in (("old", {"k": "v"}), ("kept", {"keep": ""})):
        await node.containers.create(CreateSpec("alpine", name=name, labels=labels))
    assert await node.containers.prune(PruneFilter(until=1)) == ([], 0)
    gone, space = await node.containers.prune(PruneFilter(not_labels=("keep",)))
    assert (len(gone), space) == (1, 42)
    names = {container.name for container in await node.containers.list(all=True)}
    assert names == {"up", "kept"}
    assert await node.containers.prune(PruneFilter(labels=("keep=other",))) == ([], 0)
    gone, _ = await node.containers.prune(PruneFilter(labels=("keep",)))
    assert len(gone) == 1
    assert node.actions()[-1] == "prune"


async def test_two_prunes_at_once_are_one_too_many(node):
    async with node.containers._pruner._lock:
        with pytest.raises(AlreadyPruning, match="a prune operation is already running"):
            await node.containers.prune(PruneFilter())


async def test_a_set_of_processors_that_is_none(node):
    await node.run()
    for text in ("x", "\0", "0-", "a" * 5000):
        with pytest.raises(InvalidSpec, match="Invalid value"):
            await node.containers.update("box", Change(Resources(cpuset_cpus=text)))


async def test_ports_of_a_living_container(cold_node):
    async with cold_node.opened() as node:
        container_id = await node.run()
        asked = (PublishedPort(Port(80), "", 8080),)
        await node.containers.update("box", Change(bindings=asked))
        container = await node.containers.get("box")
        assert node.networks.republished == [
            (container_id, (PortBinding("tcp", 80, "", 8080),), container.state.pid)
        ]
        assert container.network.ports == (PublishedPort(Port(80), "0.0.0.0", 8080),)
        assert container.spec.exposed_ports == (Port(80),)
        node.networks.publish_failure = PortTaken("port is already allocated")
        with pytest.raises(PortTaken):
            await node.containers.update(
                "box", Change(Resources(memory=64 * MB), bindings=(PublishedPort(Port(80), "", 8081),))
            )
        assert await node.containers.get("box") == container
        assert node.freezer.limits[container_id][-1] == {"memory": {"limit": -1, "swap": -1}}, "undone"
    async with cold_node.opened() as node:
        after = await node.containers.get("box")
        assert (after.spec.network.bindings, after.network.ports) == (asked, container.network.ports)


async def test_a_record_that_cannot_be_written_undoes_it_all(node, monkeypatch):
    container_id = await node.run()
    before = await node.containers.get("box")

    async def full(_id, _spec):
        raise FailedPrecondition("the disk is full")

    monkeypatch.setattr(node.rows, "set_spec", full)
    with pytest.raises(FailedPrecondition):
        await node.containers.update(
            "box", Change(Resources(memory=64 * MB), bindings=(PublishedPort(Port(80), "", 8080),))
        )
    assert await node.containers.get("box") == before
    assert node.networks.republished[-1][1] == ()
    assert node.freezer.limits[container_id][-1] == {"memory": {"limit": -1, "swap": -1}}
