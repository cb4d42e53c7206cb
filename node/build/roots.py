"""Writable and readable trees for steps that are no containers.

Each is a root of the snapshotter under an id of its own. A file in `folder` names it for as long as it is there, so
that the next daemon removes what a killed one left.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from node.snapshots.store import RootSnapshots
from ocispec.digest import Digest


class Roots:
    def __init__(self, folder: Path, snapshots: RootSnapshots) -> None:
        self._folder = folder
        self._snapshots = snapshots

    async def clear(self) -> None:
        """Before anything is built."""
        for name in await asyncio.to_thread(self._left):
            await self._snapshots.remove(name)
            await asyncio.to_thread((self._folder / name).unlink)

    def _left(self) -> list[str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [path.name for path in self._folder.iterdir()]

    @asynccontextmanager
    async def upon(self, chain: Sequence[Digest]) -> AsyncIterator[str]:
        """The id of a root upon these layers, removed at the end."""
        name = secrets.token_hex(32)
        note = self._folder / name
        await asyncio.to_thread(note.touch)
        try:
            await self._snapshots.create(name, chain)
            yield name
        finally:
            # Whoever is cancelled meanwhile: nothing is left behind.
            await asyncio.shield(self._remove(name, note))

    async def _remove(self, name: str, note: Path) -> None:
        await self._snapshots.remove(name)
        await asyncio.to_thread(note.unlink)
