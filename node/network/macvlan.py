"""The kernel's part of macvlan and ipvlan networks: interfaces that stand on one of the host's. Everything here blocks.

Without a parent they stand on a wire that leads nowhere, so that containers reach each other and nobody else.
"""

import contextlib
import errno
import os
import struct

from node.linux.netlink import Netlink, attribute, number
from node.network.bridge import address_interface, exists
from node.network.model import Endpoint, InvalidNetwork, Network, NetworkSpec
from node.network.namespace import new_namespace
from node.network.options import INTERFACE, mtu_of
from ocispec.errors import Unimplemented

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 1, 2


class Macvlan:
    """One network. Raises OSError in the kernel's words."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._data = driver_data(network.spec)
        self._mtu = mtu_of(network.spec.options)
        self.name = network.spec.options.get("parent", "") or f"dm-{network.id[:12]}"
        self._made = network.made_parent

    def prepare(self, *, ours: bool) -> None:  # noqa: ARG002 -- a parent may be anybody's
        if exists(self.name):
            return
        base, dot, tag = self.name.rpartition(".")
        with Netlink() as host:
            if not self._network.spec.options.get("parent"):
                host.add_wire(self.name, f"dp-{self._network.id[:12]}")
            elif dot and tag.isascii() and tag.isdigit() and 0 < int(tag) < 4095:
                host.add_vlan(self.name, host.index(base), int(tag))
            else:
                raise OSError(errno.ENODEV, f"invalid subinterface vlan name {self.name}, example formatting is "
                                            "eth0.10, and no interface of that name exists")

    def remove(self) -> None:
        """The parent goes where it was made for this network."""
        if self._made:
            with Netlink() as host, contextlib.suppress(OSError):
                host.delete(self.name)

    def plug(self, host: Netlink, netns: int, inside: Netlink, end: Endpoint, *, hairpin: bool = False) -> int:  # noqa: ARG002
        mac = end.mac if self._network.driver == "macvlan" else ""
        host.add_on(host.index(self.name), end.interface, self._network.driver, self._data, mac=mac, netns=netns,
                    mtu=self._mtu)
        return address_interface(netns, inside, end)

    def unplug(self, end: Endpoint) -> None:
        """It lies in the container's namespace and goes with it, or is deleted there."""


def driver_data(spec: NetworkSpec) -> bytes:
    """What goes to the kernel with each interface. Raises InvalidNetwork, Unimplemented."""
    options, parent = spec.options, spec.options.get("parent", "")
    if parent and not INTERFACE.fullmatch(parent):
        raise InvalidNetwork(f"invalid parent interface {parent[:50]!r}")
    if spec.driver == "macvlan":
        mode = options.get("macvlan_mode") or "bridge"
        if mode not in MACVLAN_MODES:
            raise InvalidNetwork(f"unknown macvlan mode: {mode[:50]} (bridge, private, vepa or passthru)")
        return number(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])
    mode, flag = options.get("ipvlan_mode") or "l2", options.get("ipvlan_flag") or "bridge"
    if mode not in IPVLAN_MODES:
        raise InvalidNetwork(f"unknown ipvlan mode: {mode[:50]} (l2, l3 or l3s)")
    if flag not in IPVLAN_FLAGS:
        raise InvalidNetwork(f"unknown ipvlan flag: {flag[:50]} (bridge, private or vepa)")
    return attribute(IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode])) + attribute(
        IFLA_IPVLAN_FLAGS, struct.pack("=H", IPVLAN_FLAGS[flag]))


def probe(spec: NetworkSpec) -> None:
    """Whether this kernel can: one is made in a namespace that nobody sees. Raises Unimplemented."""
    netns, inside = new_namespace()
    try:
        with inside:
            inside.add_wire("parent", "nowhere")
            inside.add_on(inside.index("parent"), "probe", spec.driver, driver_data(spec), mac="", netns=netns, mtu=0)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        option = f"CONFIG_{spec.driver.upper()}"
        raise Unimplemented(f"this kernel has no {spec.driver} ({option}): {error.strerror}") from error
    finally:
        os.close(netns)
