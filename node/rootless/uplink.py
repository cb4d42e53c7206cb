"""The way out of the node's network namespace: pasta or slirp4netns, which carry packets in user space."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.linux import syscalls

PASTA_DNS = "169.254.1.1"
SLIRP_DNS = "10.0.2.3"
TUN = "/dev/net/tun"
HOST_RESOLV = Path("/etc/resolv.conf")


class NoUplink(Exception):
    """Why there is none; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """`nameserver` is answered by the program, which asks the host's own."""

    name: str
    program: str = ""
    nameserver: str = ""

    def command(self, held: Mapping[str, int]) -> list[str]:
        """Descriptors are passed on; the program opens them by /proc."""
        user, net = (f"/proc/self/fd/{held[kind]}" for kind in ("user", "net"))
        if self.name == "pasta":
            return [self.program, "--foreground", "--quiet", "--config-net", "--no-map-gw", "--dns-forward", PASTA_DNS,
                    *("-t", "none", "-u", "none", "-T", "none", "-U", "none"), "--userns", user, "--netns", net]
        return [self.program, "--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path",
                f"--userns-path={user}", net, "tap0"]


def choose(wanted: str) -> Uplink:
    """`wanted` is of node.settings.UPLINKS. Raises NoUplink."""
    if wanted == "none":
        raise NoUplink("asked for none")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise NoUplink(f"{TUN} is not there or not open to this user: containers reach nothing outside")
    names = ("pasta", "slirp4netns") if wanted == "auto" else (wanted,)
    for name in names:
        if program := shutil.which(name):
            return Uplink(name, program, PASTA_DNS if name == "pasta" else SLIRP_DNS)
    raise NoUplink(f"{' or '.join(names)} is not installed: containers reach nothing outside")


def start(uplink: Uplink, held: Mapping[str, int], complaints: int) -> "subprocess.Popen[bytes]":
    """Ends with this process, however that ends. Raises OSError."""
    # A process of one thread: what is called between fork and exec is safe.
    return subprocess.Popen(uplink.command(held), stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints,
                            pass_fds=[held["user"], held["net"]], start_new_session=True,
                            preexec_fn=lambda: syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL))  # noqa: PLW1509


def resolv_conf(uplink: Uplink | None, host: Path = HOST_RESOLV) -> bytes:
    """The host's, asked by way of the uplink; empty: the host's stays as it is."""
    if uplink is None or not uplink.nameserver:
        return b""
    try:
        text = host.read_text(errors="replace")
    except OSError:
        text = ""
    others = [line for line in text.splitlines() if not re.match(r"\s*nameserver\b", line)]
    return "".join(f"{line}\n" for line in (f"nameserver {uplink.nameserver}", *others)).encode()
