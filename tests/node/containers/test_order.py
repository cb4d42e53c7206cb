"""Who waits for whom, as a pure function of labels and namespaces."""

import pytest

from node.containers.live import Live
from node.containers.model import Container, CreateSpec, Namespaces, NetworkSpec
from node.containers.order import COMPLETED, HEALTHY, STARTED, Need, needs, parse


def live(name, **spec):
    return Live(Container(f"id-{name}", name, "", "alpine", "", CreateSpec("alpine", **spec), "sh", ()))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("db", [("db", STARTED)]),
        ("db:service_healthy:false,job:service_completed_successfully:true", [("db", HEALTHY), ("job", COMPLETED)]),
        ("db:healthy, job:completed_successfully", [("db", HEALTHY), ("job", COMPLETED)]),
        ("db:service_mad:x,,:::,../x:healthy,-,\x00", [("db", STARTED)]),
    ],
)
def test_labels(text, found):
    assert parse(text) == found


async def test_services_are_of_ones_own_project_and_all_their_replicas():
    def service(project, name, number, depends=""):
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": name}
        return live(f"{project}-{name}-{number}", labels=labels | {"com.docker.compose.depends_on": depends})

    everyone = [service("a", "web", 1, "db"), service("a", "db", 1), service("a", "db", 2), service("b", "db", 1)]
    assert needs(everyone)["id-a-web-1"] == (Need("id-a-db-1", STARTED), Need("id-a-db-2", STARTED))


async def test_joined_namespaces_are_needs():
    everyone = [
        live("a"),
        live("net", network=NetworkSpec("container:id-a")),
        live("pid", namespaces=Namespaces(pid="container:a", ipc="container:net")),
        live("lost", network=NetworkSpec("container:nobody")),
    ]
    found = needs(everyone)
    assert found["id-net"] == (Need("id-a", STARTED),)
    assert found["id-pid"] == (Need("id-a", STARTED), Need("id-net", STARTED))
    assert found["id-lost"] == ()


async def test_circles_and_long_chains_end():
    ring = [live(f"c{n}", labels={"seawall.depends-on": f"c{(n + 1) % 3}"}) for n in range(3)]
    found = needs(ring)
    assert [len(found[f"id-c{n}"]) for n in range(3)] == [1, 1, 0]
    chain = [live(f"c{n}", labels={"seawall.depends-on": f"c{n + 1}"}) for n in range(3000)]
    assert len(needs(chain)["id-c0"]) == 1
