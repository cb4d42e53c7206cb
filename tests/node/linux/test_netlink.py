"""Raw rtnetlink against the kernel, in namespaces of the test's own."""

import errno
import os
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from node.linux import netlink
from node.linux.netlink import Netlink
from node.network.namespace import new_namespace

pytestmark = pytest.mark.root

MAC = "02:42:0a:63:00:02"
ADDRESS, GATEWAY, BROADCAST = IPv4Address("10.99.0.2"), IPv4Address("10.99.0.1"), IPv4Address("10.99.0.255")


@pytest.fixture
def host() -> Iterator[Netlink]:
    fd, inside = new_namespace()
    with inside:
        yield inside
    os.close(fd)


@pytest.fixture
def other() -> Iterator[tuple[int, Netlink]]:
    fd, inside = new_namespace()
    with inside:
        yield fd, inside
    os.close(fd)


def test_a_pair_is_made_with_one_end_elsewhere(host: Netlink, other: tuple[int, Netlink]) -> None:
    fd, there = other
    host.add_bridge("br", MAC)
    bridge = host.link("br")
    assert bridge.kind == "bridge"
    host.set_up(bridge.index)
    host.add_veth("here", master=bridge.index, peer="eth0", peer_mac=MAC, peer_netns=fd, mtu=1400)
    assert host.link("here").kind == "veth"
    host.set_hairpin("here")
    index = there.index("eth0")
    there.add_address(index, ADDRESS, 24, BROADCAST)
    there.set_up(index)
    there.set_default_route(there.index("eth0"), GATEWAY, 4)
    host.delete("here")
    for side, name in ((host, "here"), (there, "eth0")):
        with pytest.raises(OSError) as caught:
            side.index(name)
        assert caught.value.errno == errno.ENODEV


def test_hardware_and_loopback_have_no_kind(host: Netlink) -> None:
    assert host.link("lo") == netlink.Link(1, "", "lo")


def test_an_error_says_what_was_tried_and_the_kernels_reason(host: Netlink, other: tuple[int, Netlink]) -> None:
    _, there = other
    host.add_bridge("br", MAC)
    with pytest.raises(FileExistsError, match="add bridge br: "):
        host.add_bridge("br", MAC)
    with pytest.raises(OSError, match="delete interface none: ") as absent:
        host.delete("none")
    assert absent.value.errno == errno.ENODEV
    # Words that only an extended acknowledgement has; errno alone would say "Network is unreachable".
    with pytest.raises(OSError, match="add route via 10.99.0.1: Nexthop has invalid gateway"):
        there.set_default_route(1, GATEWAY, 4)
    host.add_address(host.index("br"), GATEWAY, 24, BROADCAST)
    with pytest.raises(FileExistsError, match="add address 10.99.0.1: "):
        host.add_address(host.index("br"), GATEWAY, 24, BROADCAST)


def test_all_addresses_are_listed_however_many(host: Netlink) -> None:
    host.add_bridge("br", MAC)
    added = [IPv4Address("10.99.0.0") + number for number in range(1, 1000)]
    for address in added:
        host.add_address(host.link("br").index, address, 16, IPv4Address("10.99.255.255"))
    assert set(host.addresses()) == {*added, IPv4Address("127.0.0.1")}
    assert host.link("br").kind == "bridge"  # the dump was read to its end


@pytest.mark.parametrize("name", ["", "sixteen-letters!", "a/b", "..", "with space"])
def test_a_bad_name_is_the_kernels_to_refuse(host: Netlink, name: str) -> None:
    if name:
        with pytest.raises(OSError):
            host.add_bridge(name, MAC)
    with pytest.raises(OSError):
        host.index(name)


def test_an_interface_is_not_seen_from_another_namespace(host: Netlink, other: tuple[int, Netlink]) -> None:
    host.add_bridge("br", MAC)
    with pytest.raises(OSError):
        other[1].index("br")


def test_answers_are_matched_to_their_questions(host: Netlink) -> None:
    """A request whose answer nobody took must not answer the next."""
    host._socket.send(netlink.struct.pack("=IHHII", 32, netlink.RTM_GETLINK, netlink.NLM_F_REQUEST, 0, 0)
                      + netlink._link(1))
    host.add_bridge("br", MAC)
    assert host.link("br").kind == "bridge"


def test_the_thread_is_back_in_its_own_namespace() -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    fd, inside = new_namespace()
    inside.close()
    assert os.readlink(f"/proc/self/fd/{fd}") != before
    os.close(fd)
    assert os.readlink("/proc/thread-self/ns/net") == before


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x03\x00\x01\x00", b"\x00\x00\x00\x00", b"\xff\xff\x01\x00ab"])
def test_attributes_that_are_cut_off_end_the_list(data: bytes) -> None:
    assert len(list(netlink.attributes(data))) <= 1
