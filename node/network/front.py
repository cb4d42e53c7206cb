"""The pair of interfaces by which the first packet of a connection to a published port comes back after the host's
firewall let it pass (node.network.published). Everything here blocks.

Nothing else uses them: no address, no route. They have one MAC address and no ARP, so that whatever is sent to any
address by the one arrives at the other.
"""

import contextlib
import errno
import struct
from pathlib import Path

from node.linux.netlink import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWLINK,
    VETH_INFO_PEER,
    Netlink,
    attribute,
    number,
    text,
)

IFF_NOARP = 0x80
MAC = b"\x02\x53\x57\x00\x00\x01"
MTU = 65535
STRICT = "1"


class Front:
    """`out` is where copies are sent, `back` where they arrive. Raises OSError in the kernel's words."""

    def __init__(self, tag: str) -> None:
        self.out, self.back = f"swo{tag}", f"swi{tag}"

    @property
    def names(self) -> tuple[str, str]:
        return self.out, self.back

    def prepare(self) -> bool:
        """Make the pair, or take over the one that an earlier daemon left.

        False: this host checks the way of every packet on all interfaces (rp_filter 1 of `all`), and would drop what
        comes back here.
        """
        if Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip() == STRICT:
            return False
        peer = _head(0) + _about(self.back)
        info = text(IFLA_INFO_KIND, "veth") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
        body = _head(IFF_NOARP) + _about(self.out) + attribute(IFLA_LINKINFO, info)
        with Netlink() as host, contextlib.suppress(FileExistsError):
            host.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add interface {self.out}")
        with Netlink() as host:
            for name in self.names:
                host.set_up(host.index(name))
        for path, value in ((f"net/ipv4/conf/{self.back}/rp_filter", "0"),
                            (f"net/ipv4/conf/{self.back}/forwarding", "1"),
                            (f"net/ipv6/conf/{self.back}/accept_ra", "0"),
                            (f"net/ipv6/conf/{self.out}/accept_ra", "0"),
                            (f"net/ipv6/conf/{self.out}/disable_ipv6", "0"),
                            (f"net/ipv6/conf/{self.back}/disable_ipv6", "0")):  # fmt: skip
            _sysctl(path, value)
        return True

    def remove(self) -> None:
        with Netlink() as host:
            try:
                host.delete(self.out)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise


def _head(flags: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, 0, flags, flags)


def _about(name: str) -> bytes:
    return text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, MAC) + number(IFLA_MTU, MTU)


def _sysctl(path: str, value: str) -> None:
    file = Path("/proc/sys", path)
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        if file.read_text().strip() != value:
            file.write_text(value)
