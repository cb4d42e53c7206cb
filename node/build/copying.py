"""COPY, ADD and WORKDIR: files of a context, a stage or an image put into a tree, by workers that are shut into each.

What is chosen is known by its digest before anything is copied, so that a step whose files did not change is not
carried out, whatever their times.
"""

import asyncio
import hashlib
import posixpath
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiofiles

from node.build.roots import Roots
from node.build.values import StepFailed
from node.containers.bundle.users import resolve_user
from node.dockerfile.typed import Files
from node.files.errors import NotADirectory, PathMissing
from node.files.gathering import mode_of
from node.files.trees import Stopped
from node.files.workers import Choice, Extraction, Workers
from node.images.archive import headers
from node.images.archive.download import download
from node.images.archive.headers import END, Member, header, padding
from node.snapshots.mounts import RootMount
from node.snapshots.store import RootSnapshots
from ocispec.digest import Digest
from ocispec.errors import NotFound, Unimplemented

ACCOUNTS = ("/etc/passwd", "/etc/group")
MAX_DOWNLOAD = 16 * 1024 * 1024 * 1024
_GIT = re.compile(r"(git://|git@|https?://[^?#]+\.git([?#]|$)|github\.com/)")
_URL = re.compile(r"https?://", re.IGNORECASE)
_DIR_BIT = 1 << 31
"""Of Go's fs.FileMode."""


@dataclass(frozen=True, slots=True)
class Context:
    """A folder that files come from; paths that are `hidden` are as if they were not there."""

    folder: Path
    hidden: tuple[str, ...] = ()

    def tree(self) -> Stopped:
        return Stopped(RootMount("bind", str(self.folder), ("ro", "rbind")))


@dataclass(frozen=True, slots=True)
class Layers:
    """A stage or an image that files come from."""

    chain: tuple[Digest, ...]


From = Context | Layers
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A download of ADD: spooled, with its digest."""

    file: Path
    name: str
    digest: str
    size: int


class Copier:
    def __init__(self, workers: Workers, snapshots: RootSnapshots, roots: Roots, scratch: Path) -> None:
        self._workers = workers
        self._snapshots = snapshots
        self._roots = roots
        self._scratch = scratch

    async def digest(self, source: From, files: Files) -> str:
        """Of the files that a COPY takes; its target and owner are no part of it. Raises StepFailed."""
        async with AsyncExitStack() as stack:
            tree = await self._tree(stack, source)
            choice = Choice(_paths(files), "t", folder=True, parents=files.parents, exclude=files.exclude,
                            hidden=_hidden(source))
            return await self._told(files, self._workers.digest(tree, choice))

    async def copy(self, source: From | None, files: Files, target: str, stack: AsyncExitStack,
                   fetched: Sequence[Fetched] = ()) -> None:
        """Into root `target`, which nobody else writes. Raises StepFailed, Misfit, NoSpace."""
        into = Stopped(await self._snapshots.mount(target), writable=True)
        destination, folder, there = await self._destination(Stopped(await self._snapshots.view(target)), files)
        owner = await self._owner(Stopped(await self._snapshots.view(target)), files.chown)
        plain = Choice((), destination, folder, files.parents, files.exclude, owner, files.chmod, there,
                       _hidden(source))
        if source is not None and files.sources:
            tree = await self._tree(stack, source)
            await self._told(files, self._from_tree(tree, files, plain, into))
        for doc in files.inline:
            name = posixpath.join(destination, doc.name) if folder else destination
            await self._put(into, _one_file(name, doc.content.encode("utf-8", "surrogateescape"), owner or (0, 0),
                                            files.chmod), owner)
        for one in fetched:
            await self._put_fetched(into, one, files, destination, owner or (0, 0), folder=folder)

    async def folder(self, target: str, path: str, owner: tuple[int, int]) -> None:
        """Make a folder in root `target`, as WORKDIR does."""
        into = Stopped(await self._snapshots.mount(target), writable=True)
        await self._put(into, _tar(Member(_relative(path) + b"/", headers.DIRECTORY, 0o755, *owner)), owner)

    async def is_folder(self, chain: Sequence[Digest], path: str) -> bool:
        async with self._roots.upon(chain) as root:
            return await self._is_folder(Stopped(await self._snapshots.view(root)), path)

    async def owner(self, chain: Sequence[Digest], chown: str) -> tuple[int, int]:
        async with self._roots.upon(chain) as root:
            return await self._owner(Stopped(await self._snapshots.view(root)), chown) or (0, 0)

    async def fetch(self, url: str, checksum: str, stack: AsyncExitStack) -> Fetched:
        """A file that lasts as long as `stack`. Raises StepFailed for a wrong checksum, Unreachable."""
        if _GIT.match(url):
            raise Unimplemented(f"ADD {url[:200]}: git repositories are not fetched yet")
        name = posixpath.basename(urlsplit(url).path)
        hasher, size = hashlib.sha256(usedforsecurity=False), 0
        file = self._scratch / f"download-{secrets.token_hex(16)}"
        stack.callback(file.unlink, missing_ok=True)
        async with download(url) as body, aiofiles.open(file, "wb") as out:
            async for chunk in body:
                size += len(chunk)
                if size > MAX_DOWNLOAD:
                    raise StepFailed(f"{url} has more than {MAX_DOWNLOAD} bytes")
                await asyncio.to_thread(hasher.update, chunk)
                await out.write(chunk)
        digest = f"sha256:{hasher.hexdigest()}"
        if checksum and checksum != digest:
            raise StepFailed(f"digest mismatch {digest}: {checksum}")
        return Fetched(file, name, digest, size)

    # -- parts

    async def _tree(self, stack: AsyncExitStack, source: From) -> Stopped:
        if isinstance(source, Context):
            return source.tree()
        root = await stack.enter_async_context(self._roots.upon(source.chain))
        return Stopped(await self._snapshots.view(root))

    async def _from_tree(self, tree: Stopped, files: Files, plain: Choice, into: Stopped) -> None:
        sources = _paths(files)
        archives: Sequence[str] = ()
        if files.add and files.unpack is not False:
            archives = await self._workers.archives(tree, replace(plain, sources=sources))
        if archives:
            # What is unpacked keeps the owners and modes that it has in the archive, unless --chown says otherwise.
            for path in archives:
                async with self._workers.raw(tree, path) as stream:
                    await self._unpack(into, plain, stream.chunks())
                    await stream.done()
        choice = replace(plain, sources=sources, done=tuple(archives), there=plain.there or bool(archives))
        async with self._workers.gather(tree, choice) as stream:
            # Folders on the way that are not there are made for the same owner.
            await self._workers.write(into, "/", stream.chunks(), Extraction(owner=plain.owner))
            await stream.done()

    async def _unpack(self, into: Stopped, plain: Choice, body: AsyncIterator[bytes]) -> None:
        if plain.target and not await self._is_folder(into, "/" + plain.target):
            await self._put(into, _tar(Member(_relative(plain.target) + b"/", headers.DIRECTORY, 0o755,
                                              *(plain.owner or (0, 0)))), plain.owner)
        await self._workers.write(into, "/" + plain.target, body, Extraction(owner=plain.owner))

    async def _put(self, into: Stopped, data: bytes, owner: tuple[int, int] | None) -> None:
        await self._workers.write(into, "/", _once(data), Extraction(owner=owner))

    async def _put_fetched(self, into: Stopped, one: Fetched, files: Files, destination: str, owner: tuple[int, int],
                           *, folder: bool) -> None:
        if folder and not one.name:
            raise StepFailed(f"cannot tell a file name from the address: give {files.destination} without a slash")
        if files.unpack:
            await self._unpack(into, Choice((), destination, folder=True, owner=owner), _read(one.file))
            return
        name = posixpath.join(destination, one.name) if folder else destination
        member = Member(_relative(name), headers.REGULAR, _mode(files.chmod, 0o600), *owner, one.size)

        async def body() -> AsyncIterator[bytes]:
            yield header(member)
            async for chunk in _read(one.file):
                yield chunk
            yield padding(member.size) + END

        await self._workers.write(into, "/", body(), Extraction(owner=owner))

    async def _destination(self, tree: Stopped, files: Files) -> tuple[str, bool, bool]:
        """Where to, without its leading slash, whether that is to be a folder, and whether it is one already."""
        path = files.destination
        folder = path.endswith(("/", "/.")) or path in (".", "..")
        cleaned = posixpath.normpath("/" + path).lstrip("/")
        there = not cleaned or await self._is_folder(tree, "/" + cleaned)
        several = len(files.sources) + len(files.inline) > 1
        return cleaned, folder or several or there, there

    async def _is_folder(self, tree: Stopped, path: str) -> bool:
        try:
            stat = await self._workers.stat(tree, path.rstrip("/") + "/.")
        except (NotFound, NotADirectory):
            return False
        return bool(stat.mode & _DIR_BIT)

    async def _owner(self, tree: Stopped, chown: str) -> tuple[int, int] | None:
        """Raises UnknownUser."""
        if not chown:
            return None
        texts = await self._workers.texts(tree, ACCOUNTS)
        user = resolve_user(chown, (), texts.get)
        name, colon, _ = chown.partition(":")
        # A number alone is the group too.
        return user.uid, user.uid if name.isdecimal() and not colon else user.gid

    async def _told(self, files: Files, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except PathMissing as error:
            what = "ADD" if files.add else "COPY"
            raise StepFailed(f'{what} failed: "{error.message}": not found') from error


def is_remote(source: str) -> bool:
    return bool(_URL.match(source) or _GIT.match(source))


def _paths(files: Files) -> tuple[str, ...]:
    return tuple(source for source in files.sources if not (files.add and is_remote(source)))


def _relative(path: str) -> bytes:
    return path.strip("/").encode("utf-8", "surrogateescape")


def _hidden(source: From | None) -> tuple[str, ...]:
    return source.hidden if isinstance(source, Context) else ()


def _mode(text: str, default: int) -> int:
    """Raises Misfit."""
    return mode_of(text)(default, False)


def _one_file(name: str, data: bytes, owner: tuple[int, int], mode: str) -> bytes:
    member = Member(_relative(name), headers.REGULAR, _mode(mode, 0o644), *owner, len(data))
    return header(member) + data + padding(len(data)) + END


def _tar(*members: Member) -> bytes:
    return b"".join(header(member) for member in members) + END


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _read(file: Path) -> AsyncIterator[bytes]:
    async with aiofiles.open(file, "rb") as opened:
        while data := await opened.read(1 << 20):
            yield data
