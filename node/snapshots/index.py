"""The layout on disk that every snapshotter shares, and what is true about layers in memory.

    <root>/l/<number>/            the tree of one layer; short numbers keep overlayfs' options below a page
    <root>/chains/<hex>           a symbolic link to the number: the layer is published exactly while it exists
    <root>/c/<container id>/      a container's own files
    <root>/c/<container id>/layers   the numbers it stands on, topmost first

A published layer is unlinked like an open file: `forget` takes the name away at once, the tree goes when no container
stands on it. What no link and no container names (a crash left it) is removed by `load`. State in memory changes only
on the event loop; threads do nothing but file work.
"""

import asyncio
import contextlib
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from node.linux import syscalls
from node.snapshots.store import NoSpace, SnapshotExists, SnapshotMissing
from node.snapshots.trees import disk_usage, remove_tree
from ocispec.digest import Digest

_T = TypeVar("_T")


@contextlib.contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into NoSpace."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("no space left on the disk that holds the snapshots") from error
        raise


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run file work in a thread. A cancelled caller still waits for it: nobody may clean up under a running thread."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    with full_disk_named():
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise


class Index:
    def __init__(self, root: Path) -> None:
        self.layers = root / "l"
        self._chains = root / "chains"
        self._containers = root / "c"
        self._numbers: dict[Digest, int] = {}
        self._published: set[Digest] = set()
        self._users: Counter[int] = Counter()
        self._next = 1
        self._measured: dict[int, int] = {}
        self._publishing = asyncio.Lock()

    async def load(self) -> None:
        await in_thread(self._load)

    def _load(self) -> None:
        for folder in (self.layers, self._chains, self._containers):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # setuid files and devices of images lie below: nobody but root may reach them
        for link in self._chains.iterdir():
            number = str(link.readlink())
            if link.name.startswith(".") or not (self.layers / number).is_dir():
                link.unlink()
                continue
            chain_id = Digest.parse(link.name.replace("-", ":", 1))
            self._numbers[chain_id] = int(number)
            self._published.add(chain_id)
        for folder in self._containers.iterdir():
            if folder.name.startswith("."):
                remove_tree(folder)
            else:
                self._users.update(self._stack(folder))
        self._sweep()

    def _sweep(self) -> None:
        kept = {*self._numbers.values(), *self._users}
        for folder in self.layers.iterdir():
            number = folder.name
            if number.isdecimal() and int(number) in kept:
                self._next = max(self._next, int(number) + 1)
            else:
                remove_tree(folder)

    # -- layers

    def has(self, chain_id: Digest) -> bool:
        return chain_id in self._numbers

    def published(self) -> list[Digest]:
        return sorted(self._published)

    def number(self, chain_id: Digest) -> int:
        try:
            return self._numbers[chain_id]
        except KeyError:
            raise SnapshotMissing(f"layer snapshot {chain_id} is not here") from None

    def directory(self, number: int) -> Path:
        return self.layers / str(number)

    async def reserve(self) -> int:
        number = self._next
        self._next += 1
        await in_thread(lambda: self.directory(number).mkdir(mode=0o755))
        return number

    async def filling(self, number: int, fill: Callable[[], None]) -> None:
        """Fill a reserved directory in a thread; when that fails the directory goes."""
        try:
            await in_thread(fill)
        except BaseException:
            await self.drop(number)
            raise

    async def settle(self, chain_id: Digest, number: int) -> None:
        if self._numbers.setdefault(chain_id, number) != number:
            await self.drop(number)

    async def publish(self, chain: Sequence[Digest]) -> None:
        async with self._publishing:
            fresh = [(chain_id, self.number(chain_id)) for chain_id in chain if chain_id not in self._published]
            if fresh:
                await in_thread(lambda: self._publish(fresh))
                self._published.update(chain_id for chain_id, number in fresh if self._numbers.get(chain_id) == number)

    def _publish(self, fresh: Iterable[tuple[Digest, int]]) -> None:
        folder = os.open(self._chains, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Bytes before names: with delayed allocation a link may reach the disk before the files it names.
            syscalls.syncfs(folder)
            for chain_id, number in fresh:
                name = f"{chain_id.algorithm}-{chain_id.encoded}"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f".{name}", dir_fd=folder)
                os.symlink(str(number), f".{name}", dir_fd=folder)
                os.rename(f".{name}", name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    async def forget(self, chain_id: Digest) -> None:
        async with self._publishing:
            number = self._numbers.pop(chain_id, None)
            self._published.discard(chain_id)
            if number is None:
                return
            link = self._chains / f"{chain_id.algorithm}-{chain_id.encoded}"
            await in_thread(lambda: link.unlink(missing_ok=True))
        if not self._users[number]:
            await self.drop(number)

    async def usage(self, number: int) -> int:
        """Measured once: layers never change."""
        if number not in self._measured:
            self._measured[number] = await in_thread(lambda: disk_usage(self.directory(number)))
        return self._measured[number]

    def present(self) -> dict[int, Digest | None]:
        """Every layer on disk that somebody needs: its chain id, or None when only containers stand on it."""
        names: dict[int, Digest | None] = dict.fromkeys(self._users)
        return names | {number: chain_id for chain_id, number in self._numbers.items() if chain_id in self._published}

    async def drop(self, number: int) -> None:
        self._measured.pop(number, None)
        await in_thread(lambda: remove_tree(self.directory(number)))

    @contextlib.asynccontextmanager
    async def held(self, numbers: Sequence[int]) -> AsyncIterator[None]:
        """Keep these trees whatever `forget` says meanwhile."""
        self._users.update(numbers)
        try:
            yield
        finally:
            await self._leave(numbers)

    # -- containers

    def container(self, container_id: str) -> Path:
        """The folder of an existing container. Raises SnapshotMissing (also for an id that is no plain name)."""
        folder = self._place(container_id)
        if not folder.is_dir():
            raise SnapshotMissing(f"container {container_id[:64]} has no root file system")
        return folder

    def stack(self, container_id: str) -> list[int]:
        """The layers a container stands on, topmost first."""
        return self._stack(self.container(container_id))

    async def add_container(self, container_id: str, chain: Sequence[Digest], fill: Callable[[Path], None]) -> None:
        """Make the folder; `fill` (in a thread) puts the driver's own files into it before it becomes visible."""
        final = self._place(container_id)
        if final.exists():
            raise SnapshotExists(f"container {container_id} has a root file system already")
        stack = [self.number(chain_id) for chain_id in reversed(chain)]
        self._users.update(stack)
        try:
            await in_thread(lambda: _make_container(final, stack, fill))
        except BaseException:
            await self._leave(stack)
            raise

    async def remove_container(self, container_id: str) -> None:
        final = self._place(container_id)
        if not final.is_dir():
            return
        stack = self._stack(final)
        doomed = final.with_name(f".{container_id}")
        await in_thread(lambda: remove_tree(final.rename(doomed)))
        await self._leave(stack)

    async def _leave(self, stack: Sequence[int]) -> None:
        self._users.subtract(stack)
        named = set(self._numbers.values())
        for number in stack:
            if self._users[number] <= 0:
                del self._users[number]
                if number not in named:
                    await self.drop(number)

    def _place(self, container_id: str) -> Path:
        if not container_id.isalnum():
            raise SnapshotMissing("a container id has letters and digits only")
        return self._containers / container_id

    def _stack(self, folder: Path) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return [int(number) for number in (folder / "layers").read_text().split()]
        return []


def _make_container(final: Path, stack: Sequence[int], fill: Callable[[Path], None]) -> None:
    folder = final.with_name(f".{final.name}")
    remove_tree(folder)
    try:
        folder.mkdir(mode=0o700)
        (folder / "layers").write_text(" ".join(map(str, stack)))
        fill(folder)
        folder.rename(final)
    except BaseException:
        remove_tree(folder)
        raise
