"""Networks of users by the unmodified docker command of two generations: made, joined, left, known after a kill."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Docker, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SERVE = "mkdir /www; echo {0} > /www/index.html; exec httpd -f -p 80 -h /www"


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


@pytest.fixture
def back(docker: Docker, platform: Platform) -> Iterator[str]:
    made = docker.ok("network", "create", "--subnet", "10.67.0.0/24", "--gateway", "10.67.0.1", "--ip-range",
                     "10.67.0.128/25", "--label", "team=a", "back").strip()  # fmt: skip
    yield made
    platform.remove_containers()
    docker.ok("network", "prune", "-f")


def test_a_network_of_ones_own(docker: Docker, platform: Platform, back: str) -> None:
    docker.ok("run", "-d", "--name", "web", "--network", "back", "--ip", "10.67.0.9", "--network-alias", "www",
              platform.image(), "sh", "-c", SERVE.format("hello"))  # fmt: skip
    assert docker.ok("run", "--rm", "--network", "back", platform.image(), "wget", "-qO-", "http://10.67.0.9/") == "hello\n"
    assert docker.inspect("web", "{{.NetworkSettings.Networks.back.IPAddress}}") == "10.67.0.9"
    assert docker.ok("network", "ls", "--filter", "label=team=a", "-q", "--no-trunc").strip() == back
    on = json.loads(docker.ok("network", "inspect", "back"))[0]
    assert [entry["Name"] for entry in on["Containers"].values()] == ["web"]
    assert on["IPAM"]["Config"] == [{"Subnet": "10.67.0.0/24", "IPRange": "10.67.0.128/25", "Gateway": "10.67.0.1"}]
    assert docker.ok("ps", "-q", "--filter", "network=back").strip() == docker.inspect("web", "{{.Id}}")[:12]
    refused = docker("network", "rm", "back")
    assert "has active endpoints" in refused.stderr
    assert "already exists" in docker("network", "create", "back").stderr
    assert "pre-defined network" in docker("network", "rm", "bridge").stderr


def test_connect_and_disconnect(docker: Docker, platform: Platform, back: str) -> None:
    docker.ok("run", "-d", "--name", "web", "--network", "back", platform.image(), "sh", "-c", SERVE.format("hello"))
    docker.ok("run", "-d", "--name", "box", platform.image(), "sleep", "600")
    docker.ok("network", "connect", "--ip", "10.67.0.20", "--alias", "b", "back", "box")
    address = docker.inspect("web", "{{.NetworkSettings.Networks.back.IPAddress}}")
    assert docker.ok("exec", "box", "wget", "-qO-", f"http://{address}/") == "hello\n"
    assert "10.67.0.20\t" in docker.ok("exec", "box", "cat", "/etc/hosts")
    assert "already exists in network back" in docker("network", "connect", "back", "box").stderr
    # A killed daemon changes nothing, and the next one goes on from there.
    platform.kill_node()
    platform.start_node()
    docker.ok("network", "disconnect", "back", "box")
    assert "10.67.0.20" not in docker.ok("exec", "box", "sh", "-c", "cat /etc/hosts; ip addr")
    assert "is not connected to network back" in docker("network", "disconnect", "back", "box").stderr
    docker.ok("stop", "-t", "0", "box")
    docker.ok("network", "connect", "back", "box")
    docker.ok("start", "box")
    assert docker.ok("exec", "box", "wget", "-qO-", f"http://{address}/") == "hello\n"
    docker.ok("run", "--rm", "--network", "container:box", platform.image(), "wget", "-qO-", f"http://{address}/")


def test_links_of_the_default_network(docker: Docker, platform: Platform) -> None:
    docker.ok("run", "-d", "--name", "db", "--expose", "5432", "-e", "KEY=v", platform.image(), "sleep", "600")
    text = docker.ok("run", "--rm", "--name", "app", "--cap-add", "NET_RAW", "--link", "db:store", platform.image(), "sh", "-c",
                     "cat /etc/hosts; env; ping -c1 -W2 store")  # fmt: skip
    address = docker.inspect("db", "{{.NetworkSettings.IPAddress}}")
    assert f"{address}\tstore " in text
    assert f"STORE_PORT=tcp://{address}:5432\n" in text
    assert "STORE_NAME=/app/store\n" in text
    assert "STORE_ENV_KEY=v\n" in text
    docker.ok("kill", "db")
    refused = docker("run", "--rm", "--link", "db:store", platform.image(), "true")
    assert "Cannot link to a non running container: /db" in refused.stderr
