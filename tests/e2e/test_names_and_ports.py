"""Names and published ports as a docker user has them: both docker commands, a node that is killed, a busy port."""

import re
import signal
import socket
import urllib.request

import pytest

from tests.conftest import WaitFor
from tests.e2e.conftest import Docker, Platform, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(autouse=True)
def pulled(platform: Platform) -> None:
    platform.pull()


def served(port: int, host: str = "127.0.0.1") -> str:
    """What the server says; nothing while it is not there yet."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/hostname", timeout=5) as answer:
            return str(answer.read().decode().strip())
    except OSError:
        return ""


def addresses(docker: Docker, who: str, name: str) -> set[str]:
    """What `nslookup` says within that container."""
    done = docker("exec", who, "nslookup", name)
    return set(re.findall(r"^Address: (\d[\d.]+)$", done.stdout, re.MULTILINE))


def ip_of(docker: Docker, name: str, network: str) -> str:
    return docker.ok("inspect", "-f", f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}', name).strip()


def test_names_while_the_daemon_comes_and_goes(docker: Docker, platform: Platform, wait_for: WaitFor) -> None:
    image = platform.image()
    docker.ok("network", "create", "names")
    try:
        for name in ("one", "two"):
            docker.ok("run", "-d", "--name", name, "--network", "names", "--network-alias", "both", image, "sleep", "600")
        docker.ok("run", "-d", "--name", "apart", image, "sleep", "600")
        both = {ip_of(docker, name, "names") for name in ("one", "two")}
        assert addresses(docker, "one", "both") == both
        assert addresses(docker, "one", "two.names") == {ip_of(docker, "two", "names")}
        assert addresses(docker, "apart", "one") == set()
        docker.ok("network", "connect", "--alias", "late", "names", "apart")
        assert addresses(docker, "one", "late") == {ip_of(docker, "apart", "names")}
        assert addresses(docker, "apart", "both") == both
        docker.ok("rename", "two", "second")
        assert addresses(docker, "one", "second") == {ip_of(docker, "second", "names")}
        platform.kill_node(signal.SIGKILL)
        platform.start_node()
        assert addresses(docker, "one", "both") == both
        docker.ok("rm", "-f", "second")
        assert addresses(docker, "one", "both") == {ip_of(docker, "one", "names")}
    finally:
        docker("rm", "-f", "one", "two", "second", "apart")
        docker("network", "rm", "names")


def test_ports_of_both_families_one_of_a_range_and_a_busy_one(docker: Docker, platform: Platform, wait_for: WaitFor) -> None:
    image, port = platform.image(), free_port()
    docker.ok("run", "-d", "--name", "web", "-p", f"{port}:80", "-p", "[::1]::80", "-p", "127.0.0.1:20100-20110:81",
              image, "httpd", "-f", "-p", "80", "-h", "/etc")  # fmt: skip
    try:
        name = docker.ok("inspect", "-f", "{{.Config.Hostname}}", "web").strip()
        for host in ("127.0.0.1", "[::1]"):
            assert wait_for(lambda host=host: served(port, host)) == name  # type: ignore[misc]
        shown = docker.ok("port", "web", "80").replace(":::", "[::]:").splitlines()  # as docker 20 writes it
        assert {f"0.0.0.0:{port}", f"[::]:{port}"} <= set(shown) and len(shown) == 3
        assert re.fullmatch(r"127\.0\.0\.1:201\d\d", docker.ok("port", "web", "81").strip())
        again = docker("run", "--rm", "-p", f"{port}:80", image, "true")
        assert again.returncode == 125 and f"Bind for 0.0.0.0:{port} failed: port is already allocated" in again.stderr
        platform.kill_node(signal.SIGKILL)
        assert served(port) == name
        platform.start_node()
        assert served(port) == name
    finally:
        docker("rm", "-f", "web")
    with socket.create_server(("127.0.0.1", port)):  # given back
        pass
