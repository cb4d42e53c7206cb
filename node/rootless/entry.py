"""What `seawalld` calls first: an ordinary user's node enters its namespaces and is executed again inside them."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.errors import MissingPrivilege
from node.rootless import link, namespaces
from node.rootless.link import HolderGone, HostSockets
from ocispec.errors import Unavailable

MARK = "SEAWALL_ROOTLESS"
"""Set for the program inside: descriptor of its connection to the holder, whether the user has one id alone, and the
way out, with colons between."""


class HolderEnded(Unavailable):
    """Somebody killed it."""


@dataclass(frozen=True, slots=True)
class Rootless:
    """How a daemon came to be root."""

    channel: int
    single: bool
    """Root is the only user there is inside."""

    uplink: str
    """pasta or slirp4netns; empty: nothing outside is reached."""

    host_sockets: HostSockets


def defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the folders of the XDG base directory specification for a user who names no others."""
    made = dict(environment)
    named = ("SEAWALL_HOME", "SEAWALL_NODE_HOME")
    if os.geteuid() == 0 or MARK in made or any(made.get(name) for name in named):
        return made
    data = made.get("XDG_DATA_HOME") or str(Path(made.get("HOME") or Path.home(), ".local", "share"))
    made["SEAWALL_NODE_HOME"] = str(Path(data, "seawall"))
    if not made.get("SEAWALL_NODE_SOCKET") and made.get("XDG_RUNTIME_DIR"):
        made["SEAWALL_NODE_SOCKET"] = str(Path(made["XDG_RUNTIME_DIR"], "seawall.sock"))
    return made


def enter(run: Path, wanted: str, complain: Callable[[str], None]) -> None:
    """Does not come back for an ordinary user: the program is executed again. Nothing happens for root.

    `run`: the node's folder for what lives as long as it runs. `wanted`: the way out. Raises MissingPrivilege.
    """
    if os.geteuid() == 0:
        return
    environment = defaults(os.environ)
    try:
        channel = link.find_or_start(run, wanted)
        about, held = link.namespaces_of(channel)
        if about["single"]:
            complain(f"{about['single']}. Until then containers have one user, root, and files of others are root's")
        if about["isolated"]:
            complain(about["isolated"])
        link.ask(channel, {"op": "stay"})
        namespaces.enter(held)
    except (HolderGone, OSError) as error:
        raise MissingPrivilege(f"seawalld as an ordinary user: {error}") from error
    for fd in held.values():
        os.close(fd)
    channel.setblocking(True)
    os.set_inheritable(channel.fileno(), True)
    mark = f"{channel.fileno()}:{int(bool(about['single']))}:{about['uplink']}"
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environment, MARK: mark})


def entered(environment: MutableMapping[str, str], run: Path) -> Rootless | None:
    """What `enter` left for this program, taken out of its environment; None where it is simply root."""
    mark = environment.pop(MARK, "")
    if not mark:
        return None
    channel, single, uplink = mark.split(":")
    os.set_inheritable(int(channel), False)
    asking = link.find(run)
    if asking is None:
        raise MissingPrivilege("the holder of the node's namespaces ended")
    return Rootless(int(channel), single == "1", uplink, HostSockets(asking))


@contextmanager
def watched(rootless: Rootless | None, stop: Callable[[], None]) -> Iterator[None]:
    """`stop` is called when the holder ends: no port can be published any more, nothing outside be reached. Then raises
    HolderEnded at the end of the block."""
    if rootless is None:
        yield
        return
    loop, channel, lost = asyncio.get_running_loop(), rootless.channel, False

    def ended() -> None:
        nonlocal lost
        lost = True
        loop.remove_reader(channel)
        stop()

    loop.add_reader(channel, ended)
    try:
        yield
    finally:
        loop.remove_reader(channel)
    if lost:
        raise HolderEnded("the holder of this node's namespaces was ended; containers go on, and the next start of "
                          "seawalld makes another one")
