"""Interfaces of a container: made in its namespace, taken out of it, and the routes between. Everything here blocks.

Raises OSError in the kernel's words.
"""

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from node.linux.netlink import Netlink
from node.network.held import Held
from node.network.model import NO_STRINGS, Endpoint
from node.network.namespace import entered, namespace_of, new_namespace, opened, set_all, sysctl
from node.network.options import endpoint_sysctls


@dataclass(frozen=True, slots=True)
class Plug:
    """An endpoint to be made."""

    held: Held
    end: Endpoint
    sysctls: Sequence[tuple[str, str]] = ()
    hairpin: bool = False


def plug(held: Held, end: Endpoint, driver_opts: dict[str, str], *, hairpin: bool) -> Plug:
    """Raises InvalidNetwork."""
    return Plug(held, end, endpoint_sysctls(driver_opts, end.interface), hairpin)


def build(
    plugs: Sequence[Plug], ends: Sequence[Endpoint], ready: int | None = None, sysctls: Mapping[str, str] = NO_STRINGS
) -> int:
    """A namespace with lo and these interfaces up, a new one or that which is `ready`; gives a descriptor of it.
    `ends`: the one with the default route first."""
    netns, inside = new_namespace() if ready is None else opened(ready)
    try:
        with inside, Netlink() as host:
            for one in plugs:
                _make(host, netns, inside, one)
            route(inside, ends, fresh=True)
        set_all(netns, sysctls)
    except BaseException:
        os.close(netns)
        raise
    return netns


def add(pid: int, one: Plug, ends: Sequence[Endpoint]) -> None:
    """One more, in the namespace of a process. Nothing stays when it fails."""
    with namespace_of(pid) as (netns, inside), Netlink() as host:
        try:
            _make(host, netns, inside, one)
            route(inside, ends)
        except BaseException:
            with contextlib.suppress(OSError):
                inside.delete(one.end.interface)
            raise


def take_out(pid: int, end: Endpoint, ends: Sequence[Endpoint]) -> None:
    """`ends`: those that stay."""
    with namespace_of(pid) as (_, inside):
        with contextlib.suppress(OSError):  # the container may have removed it itself
            inside.delete(end.interface)
        route(inside, ends)


def _make(host: Netlink, netns: int, inside: Netlink, one: Plug) -> None:
    assert one.held.driver is not None
    one.held.driver.plug(host, netns, inside, one.end, hairpin=one.hairpin)
    if one.sysctls:
        with entered(netns):
            for path, value in one.sysctls:
                sysctl(path, value)


def route(inside: Netlink, ends: Sequence[Endpoint], *, fresh: bool = False) -> None:
    """The default route of each IP version leads to the first that has a gateway. `fresh`: there is none yet."""
    for version in (4, 6):
        first = next((end for end in ends if (end.gateway if version == 4 else end.gateway6)), None)
        if first is not None:
            gateway = ip_address(first.gateway if version == 4 else first.gateway6)
            inside.set_default_route(inside.index(first.interface), gateway, version)
            continue
        if fresh:
            continue
        try:
            inside.delete_default_route(version)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EAFNOSUPPORT):
                raise
