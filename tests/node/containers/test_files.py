"""hostname, hosts and resolv.conf as a container finds them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.containers import files
from node.containers.model import Container, CreateSpec, NetworkSpec
from node.network.model import Endpoint, Sandbox

BRIDGED = Sandbox("/proc/1/fd/3", endpoints=(Endpoint("172.16.0.2", 16, "172.16.0.1", "02:42:ac:10:00:02", "n", "e", "bridge"),))
ALONE = Sandbox("/proc/1/fd/3")
HOSTS_OWN = Sandbox(None)

HOST = """\
# made by hand
nameserver 127.0.0.53
nameserver 10.1.1.1
nameserver ::1
nameserver fd00::53
search corp.example lan
options edns0 trust-ad
"""


def conf(**asked: tuple[str, ...]) -> list[str]:
    return files.resolv_conf(HOST, NetworkSpec(**asked), own_namespace=True).splitlines()  # type: ignore[arg-type]


def test_only_servers_that_the_container_reaches_are_kept() -> None:
    assert conf() == ["nameserver 10.1.1.1", "search corp.example lan", "options edns0 trust-ad"]


def test_on_the_hosts_network_all_of_them_are() -> None:
    text = files.resolv_conf(HOST, NetworkSpec(), own_namespace=False)
    assert [line for line in text.splitlines() if "nameserver" in line] == [
        "nameserver 127.0.0.53", "nameserver 10.1.1.1", "nameserver ::1", "nameserver fd00::53"]


def test_what_the_user_asks_for_takes_the_hosts_place_whatever_it_is() -> None:
    assert conf(dns=("127.0.0.1", "fd00::1"), dns_search=("a.example",), dns_options=("ndots:2",)) == [
        "nameserver 127.0.0.1", "nameserver fd00::1", "search a.example", "options ndots:2"]
    assert not any(line.startswith("search") for line in conf(dns_search=(".",)))


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's files, for the test to write."""
    for name, place in (("HOST_RESOLV", "resolv"), ("HOST_HOSTS", "hosts"), ("UPSTREAM_RESOLV", "upstream")):
        monkeypatch.setattr(files, name, tmp_path / place)
    (tmp_path / "resolv").write_text("nameserver 127.0.0.53\noptions edns0\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n10.9.9.9 printer")
    return tmp_path


@pytest.fixture
def container(tmp_path: Path) -> Container:
    directory = tmp_path / "container"
    directory.mkdir()
    spec = CreateSpec("alpine", hostname="hal", domainname="example")
    return Container("a" * 64, "n", "2026-01-01T00:00:00Z", "alpine", "sha256:x", spec, "sh", (),
                     directory=str(directory))


def written(container: Container, sandbox: Sandbox, joined: Path | None = None) -> dict[str, str]:
    files.write(container, sandbox, joined)
    return {name: Path(container.directory, name).read_text() for name in ("hostname", "hosts", "resolv.conf")}


def test_behind_a_resolver_of_the_hosts_own_its_servers_are_used(etc: Path, container: Container) -> None:
    (etc / "upstream").write_text("nameserver 10.2.2.2\nsearch home\n")
    assert written(container, BRIDGED)["resolv.conf"] == "nameserver 10.2.2.2\nsearch home\n"
    assert "127.0.0.53" in written(container, HOSTS_OWN)["resolv.conf"]
    (etc / "resolv").write_text("nameserver 10.3.3.3\n")
    assert written(container, BRIDGED)["resolv.conf"] == "nameserver 10.3.3.3\n"


def test_a_host_without_any_of_these_files(etc: Path, container: Container) -> None:
    for name in ("resolv", "hosts"):
        (etc / name).unlink()
    assert written(container, BRIDGED)["resolv.conf"] == ""
    assert written(container, HOSTS_OWN)["hosts"] == "\n"


def test_hosts_name_the_container_and_what_was_added(etc: Path, container: Container) -> None:
    spec = replace(container.spec, network=NetworkSpec(extra_hosts=("db:10.1.2.3", "me:host-gateway", "six:fd00::6")))
    text = written(replace(container, spec=spec), BRIDGED)["hosts"]
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.1.2.3\tdb\n172.16.0.1\tme\nfd00::6\tsix\n172.16.0.2\thal.example hal\n")
    assert "printer" not in text
    assert written(container, HOSTS_OWN)["hosts"] == "127.0.0.1 localhost\n10.9.9.9 printer\n"
    assert "172.16" not in written(container, ALONE)["hosts"]


def test_one_that_joins_another_has_the_others_names(etc: Path, container: Container, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "hosts").write_text("10.0.0.1 theirs\n")
    (other / "resolv.conf").write_text("nameserver 10.0.0.2\n")
    assert written(container, ALONE, other) == {
        "hostname": "hal\n", "hosts": "10.0.0.1 theirs\n", "resolv.conf": "nameserver 10.0.0.2\n"}


def test_what_a_container_made_of_its_files_costs_the_daemon_nothing(etc: Path, container: Container) -> None:
    """A hole of 64 GB is written in no time; who reads it whole is gone."""
    folder, end = Path(container.directory), BRIDGED.endpoints[0]
    for name in ("hosts", "resolv.conf"):
        (folder / name).touch()
        os.truncate(folder / name, 64 << 30)
    files.add_host(folder, container.spec, end)
    files.drop_host(folder, end)
    files.rewrite_resolv(container, (), (replace(end, network_name="net"),))
    with (folder / "hosts").open("rb") as file:
        file.seek(64 << 30)
        assert end.ip.encode() in file.read()
    other = replace(container, directory=str(etc / "second"))
    Path(other.directory).mkdir()
    files.write(other, BRIDGED, folder)
    assert Path(other.directory, "hosts").stat().st_size <= files.LARGEST
