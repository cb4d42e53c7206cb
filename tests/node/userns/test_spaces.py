"""Namespaces made ahead, by a real launcher."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.containers.launcher import Launcher, LauncherFailed
from node.linux.netlink import Netlink
from node.network.namespace import entered, prepare
from node.userns.ranges import SIZE, NoFreeIds, Ranges
from node.userns.spaces import READY, Space, Spaces, open_spaces
from tests.conftest import Until

pytestmark = pytest.mark.root
FIRST = 0x7000_0000


@contextlib.asynccontextmanager
async def opened(folder: Path, ranges: int = 16) -> AsyncIterator[Spaces]:
    async with (
        Launcher() as launcher,
        open_spaces(Ranges(folder / "ids", [(FIRST, ranges * SIZE)]), launcher, prepare) as spaces,
    ):
        yield spaces


def owner_of(netns: int) -> int:
    """Inode of the user namespace that owns it (ioctl_ns(2), NS_GET_USERNS)."""
    user = fcntl.ioctl(netns, 0xB701)
    try:
        return os.fstat(user).st_ino
    finally:
        os.close(user)


async def test_a_network_namespace_that_its_user_namespace_owns(tmp_path: Path) -> None:
    async with opened(tmp_path) as spaces:
        space = await spaces.take()
        assert owner_of(space.network) == os.fstat(space.user).st_ino
        assert FIRST <= space.ids.first < FIRST + 16 * SIZE
        with entered(space.network):
            assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == "0\n"
            with Netlink() as inside:
                assert inside.index("lo") == 1
        space.close()


async def test_every_group_may_ping(tmp_path: Path) -> None:
    async with opened(tmp_path) as spaces:
        space = await spaces.take()
        seen = subprocess.run([sys.executable, "-c", _PING, str(space.user), str(space.network)], check=True, timeout=10,
                              capture_output=True, text=True, pass_fds=[space.user, space.network]).stdout
        space.close()
        assert seen.split() == ["0", "65535", "True"]


_PING = """
import os, socket, sys
from node.linux import syscalls
user, network = map(int, sys.argv[1:])
syscalls.setns(user, syscalls.CLONE_NEWUSER)
os.setresgid(1000, 1000, 1000)
os.setgroups([])
syscalls.setns(network, syscalls.CLONE_NEWNET)
os.setresuid(1000, 1000, 1000)
print(open("/proc/sys/net/ipv4/ping_group_range").read(), end="")
print(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).fileno() > 2)
"""


async def test_some_wait_and_are_made_again(tmp_path: Path, until: Until) -> None:
    async with opened(tmp_path) as spaces:
        await until(lambda: len(spaces._ready) == READY)
        taken = [await spaces.take() for _ in range(READY + 1)]
        assert len({space.ids.first for space in taken}) == READY + 1
        await until(lambda: len(spaces._ready) == READY)
        for space in taken:
            space.close()


async def test_nothing_stays_of_what_nobody_took(tmp_path: Path, until: Until) -> None:
    before = descriptors()
    async with opened(tmp_path) as spaces:
        await until(lambda: len(spaces._ready) == READY)
        (await spaces.take(2 * SIZE)).close()
    assert descriptors() == before


async def test_when_all_ids_are_in_use(tmp_path: Path, until: Until) -> None:
    async with opened(tmp_path, ranges=1) as spaces:
        await until(lambda: len(spaces._ready) == 1)
        space = await spaces.take()
        with pytest.raises(NoFreeIds):
            await spaces.take()
        space.close()


async def test_many_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path, ranges=40) as spaces:
        taken: list[Space] = await asyncio.gather(*(spaces.take() for _ in range(16)))
        assert len({space.ids.first for space in taken}) == 16
        for space in taken:
            space.close()


async def test_ids_that_the_host_refuses(tmp_path: Path) -> None:
    async with Launcher() as launcher:
        with pytest.raises(LauncherFailed, match="namespaces cannot be made: .*invalid argument"):
            await launcher.make_namespaces(0xFFFF_FFF0, SIZE)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
