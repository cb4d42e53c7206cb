"""A network namespace from outside: made, entered for a moment, looked up by a process. Everything here blocks."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
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


def opened(netns: int) -> tuple[int, Netlink]:
    """A descriptor of our own, and a socket inside."""
    copy = os.dup(netns)
    try:
        with entered(copy):
            return copy, Netlink()
    except BaseException:
        os.close(copy)
        raise


def prepare(netns: int) -> None:
    """What `new_namespace` does, for one that is there, and what every container may do in it: have ports below 1024.
    """
    with entered(netns):
        no_ipv6("default")
        sysctl("net/ipv4/ip_unprivileged_port_start", "0")
        inside = Netlink()
    with inside:
        inside.set_up(1)


def set_all(netns: int, values: Mapping[str, str]) -> None:
    """Sysctls of a network namespace, `net.…`, as sysctl(8) names them. Raises OSError naming the one that is wrong."""
    if not values:
        return
    with entered(netns):
        top = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, value in values.items():
                _set(top, name, value)
        finally:
            os.close(top)


def _set(top: int, name: str, value: str) -> None:
    parts = name.replace(".", "/").split("/")
    try:
        if parts[0] != "net" or not all(parts[1:]):
            raise OSError(errno.EPERM, "")  # "net//../kernel": the host's
        file = syscalls.openat2(top, "/".join(parts), os.O_WRONLY, resolve=syscalls.RESOLVE_BENEATH
                                | syscalls.RESOLVE_NO_SYMLINKS)
        with os.fdopen(file, "w") as opened:
            opened.write(value)
    except OSError as error:
        raise OSError(error.errno, f"sysctl {name}: {os.strerror(error.errno or 0).lower()}") from error


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


def open_namespace(pid: int) -> int:
    """A descriptor of the namespace of a container's process. One in ours is none of a container that we care for: its
    number has been given to somebody else, or it is not yet where it is going. Raises OSError."""
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        refuse_ours(netns)
    except OSError:
        os.close(netns)
        raise
    return netns


def refuse_ours(netns: int) -> None:
    """What is meant for a container must never be done to the host. Raises OSError."""
    there, here = os.fstat(netns), Path(HERE).stat()
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        raise ProcessLookupError(errno.ESRCH, "the container's network namespace is the host's")


@contextmanager
def namespace_of(pid: int) -> Iterator[tuple[int, Netlink]]:
    """The namespace of a running process: its descriptor and a socket inside, both closed at the end."""
    netns = open_namespace(pid)
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
