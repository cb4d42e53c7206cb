"""Whether this node can give containers ids of their own, found out once when it starts."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from node.containers.identity import Identities, TellsOrigins
from node.linux import idmapped, usernamespaces
from node.network.namespace import prepare
from node.settings import UserSettings
from node.userns.ranges import SIZE, Ranges, pools
from node.userns.spaces import MakesNamespaces, Spaces, open_spaces
from node.userns.tenants import Tenants
from ocispec.errors import SeawallError

OVERLAY_ON_MAPPED = (5, 19)
"""Linux from which overlayfs stands on id-mapped folders."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_identities(
    settings: UserSettings, home: Path, maker: MakesNamespaces, tenants: Tenants, volumes: TellsOrigins
) -> AsyncIterator[Identities]:
    """A node that cannot says so in its log, and containers have the host's ids unless they name others."""
    if not usernamespaces.initial():
        # Rootless, or in a container: its containers share the user namespace that it has itself, and no warning.
        yield Identities(None, tenants, volumes, why_not="this node has no ids to give away: it has a user namespace")
        return
    ranges = Ranges(settings.register, pools(settings.ids))
    async with open_spaces(ranges, maker, prepare, ahead=settings.own) as spaces:
        reason = await _why_not(ranges, spaces, home)
        if reason and settings.own:
            log.warning("containers have the host's user namespace: %s", reason)
        yield Identities(None if reason else spaces, tenants, volumes, why_not=reason, default=settings.own)


async def _why_not(ranges: Ranges, spaces: Spaces, home: Path) -> str:
    if ranges.largest < SIZE:
        return "all ids that could be theirs are given to others in /etc/subuid or /etc/subgid"
    release = os.uname().release
    if _version(release) < OVERLAY_ON_MAPPED:
        return f"Linux {release} has no overlayfs on id-mapped mounts (5.19 has)"
    try:
        if not await asyncio.to_thread(idmapped.can_map, str(home), await spaces.probe()):
            return f"the file system of {home} has no id-mapped mounts"
    except (SeawallError, OSError) as error:
        return str(error)
    return ""


def _version(release: str) -> tuple[int, ...]:
    words = release.partition("-")[0].split(".")[:2]
    return tuple(int(word) for word in words if word.isdigit())
