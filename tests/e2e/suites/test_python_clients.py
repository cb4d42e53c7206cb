"""docker-py and testcontainers, unmodified."""

import io
import tarfile
import urllib.request
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

from tests.e2e.conftest import Platform

IMAGE = "alpine:3.10"


@pytest.fixture
def client(famous: Platform) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{famous.socket}", timeout=60)
    yield made
    made.close()
    famous.remove_containers()


@pytest.fixture
def testcontainers(famous: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{famous.socket}")
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield
    famous.remove_containers()


def test_run_and_its_output(client: docker.DockerClient) -> None:
    assert client.containers.run(IMAGE, "echo hello", remove=True) == b"hello\n"
    with pytest.raises(ContainerError) as raised:
        client.containers.run(IMAGE, "sh -c 'echo bad >&2; exit 3'", remove=True)
    assert raised.value.exit_status == 3
    assert b"bad" in raised.value.stderr


def test_the_life_of_a_container(client: docker.DockerClient) -> None:
    made = client.containers.run(IMAGE, "sleep 60", detach=True, name="py", labels={"a": "b"}, environment={"X": "1"},
                                 mem_limit="32m", volumes={"pyvol": {"bind": "/v", "mode": "rw"}})  # fmt: skip
    assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["py"]
    assert made.exec_run("cat /proc/self/cgroup").exit_code == 0
    code, output = made.exec_run("sh -c 'echo out; echo err >&2; exit 5'", demux=True)
    assert (code, output) == (5, (b"out\n", b"err\n"))
    made.pause()
    made.reload()
    assert made.status == "paused"
    made.unpause()
    assert made.stats(stream=False)["memory_stats"]["limit"] == 32 * 1024 * 1024
    assert "sleep 60" in str(made.top()["Processes"])
    made.rename("py2")
    made.update(mem_limit="48m", memswap_limit="96m")
    made.reload()
    assert made.attrs["HostConfig"]["Memory"] == 48 * 1024 * 1024
    made.restart(timeout=1)
    made.stop(timeout=1)
    assert made.wait()["StatusCode"] in (137, 143)
    made.remove(v=True)
    client.volumes.get("pyvol").remove()
    with pytest.raises(NotFound):
        client.containers.get("py2")


def test_files_in_and_out(client: docker.DockerClient) -> None:
    made = client.containers.create(IMAGE, "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("words")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"words"))
    assert made.put_archive("/srv", packed.getvalue())
    stream, stat = made.get_archive("/srv/words")
    assert stat["size"] == 5
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.extractfile("words")
        assert member is not None
        assert member.read() == b"words"
    assert {"Path": "/srv/words", "Kind": 1} in made.diff()


def test_images(client: docker.DockerClient) -> None:
    image = client.images.get(IMAGE)
    assert image.tag("of-py", "one")
    assert "of-py:one" in client.images.get(IMAGE).tags
    saved = b"".join(client.images.get("of-py:one").save(named="of-py:one"))
    client.images.remove("of-py:one")
    with pytest.raises(ImageNotFound):
        client.images.get("of-py:one")
    assert client.images.load(saved)[0].id == image.id
    made = client.containers.run(IMAGE, "touch /made", detach=True)
    made.wait()
    committed = made.commit("of-py", "two")
    assert client.containers.run("of-py:two", "ls /made", remove=True) == b"/made\n"
    assert committed.history()
    client.images.remove("of-py:one")
    made.remove()
    client.images.remove("of-py:two")


def test_networks_and_names(client: docker.DockerClient) -> None:
    network = client.networks.create("py-net", driver="bridge", labels={"of": "py"})
    try:
        server = client.containers.run("nginx:latest", detach=True, name="py-server", network="py-net")
        asked = client.containers.run(IMAGE, "wget -qO- http://py-server", network="py-net", remove=True)
        assert asked.strip() == server.id[:12].encode()
        network.disconnect(server)
        network.connect(server, aliases=["other"])
        assert client.containers.run(IMAGE, "wget -qO- http://other", network="py-net", remove=True).strip()
        with pytest.raises(APIError) as raised:
            network.remove()
        assert raised.value.response is not None
        assert raised.value.response.status_code == 403
        server.remove(force=True)
    finally:
        network.remove()
    assert client.networks.list(names=["py-net"]) == []


def test_events_and_system(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"type": "container", "event": ["create", "die"]})
    client.containers.run(IMAGE, "true", remove=True)
    assert [next(events)["Action"], next(events)["Action"]] == ["create", "die"]
    events.close()
    assert client.ping()
    assert client.df()["Images"]
    assert client.info()["OSType"] == "linux"
    assert client.version()["ApiVersion"]


def test_testcontainers_waits_for_logs_and_http(testcontainers: None) -> None:
    started = DockerContainer("nginx:latest").with_exposed_ports(80).waiting_for(LogMessageWaitStrategy("ready for connections"))
    with started as running:
        url = f"http://{running.get_container_host_ip()}:{running.get_exposed_port(80)}/"
        assert urllib.request.urlopen(url, timeout=10).read().strip()
        assert running.exec(["echo", "in"]).output == b"in\n"
    with DockerContainer("registry:2").with_exposed_ports(5000).waiting_for(HttpWaitStrategy(5000).for_status_code(200)):
        pass


def test_testcontainers_networks(testcontainers: None) -> None:
    with Network() as network:
        server = DockerContainer("nginx:latest").with_network(network).with_network_aliases("site")
        with server, DockerContainer(IMAGE).with_network(network).with_command("sleep 60") as asking:
            assert asking.exec("wget -qO- http://site").exit_code == 0
