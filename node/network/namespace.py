"""A network namespace from outside: made, entered for a moment, looked up by a process. Everything here blocks."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.linux import syscalls
from node.linux.netlink import Netlink

HERE = "/proc/thread-self/ns/net"


def new_namespace() -> tuple[int, Netlink]:
    """A network namespace with lo up: its descriptor, and a netlink socket inside it.

    This thread enters the new namespace and comes back; the namespace lives by its descriptor.
    """
    home = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            netns = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
            no_ipv6("default")  # of the interfaces to come; lo keeps ::1
            inside = Netlink()
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
    inside.set_up(1)
    return netns, inside


def prepare(netns: int) -> None:
    """What `new_namespace` does, for one that is there, and what every container may do in it: have ports below 1024,
    and send echo requests without CAP_NET_RAW. Written by us: in a user namespace the kernel takes no range of groups
    that is larger than the namespace's."""
    with entered(netns):
        no_ipv6("default")
        for path, value in CONTAINERS.items():
            sysctl(path, value)
        inside = Netlink()
    with inside:
        inside.set_up(1)


CONTAINERS = {"net/ipv4/ip_unprivileged_port_start": "0", "net/ipv4/ping_group_range": "0\t2147483647"}


@contextmanager
def entered(netns: int) -> Iterator[None]:
    """This thread is in that namespace within the block: /proc/sys/net is that one's."""
    home = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


@contextmanager
def namespace_of(pid: int) -> Iterator[tuple[int, Netlink]]:
    """The namespace of a running process: its descriptor and a socket inside, both closed at the end."""
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(netns):
            inside = Netlink()
        with inside:
            yield netns, inside
    finally:
        os.close(netns)


def no_ipv6(interface: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")


def sysctl(path: str, value: str) -> None:
    """Written only where it differs: a read-only /proc/sys that is right already is no error."""
    file = Path("/proc/sys", path)
    if file.read_text().strip() != value:
        file.write_text(value)
