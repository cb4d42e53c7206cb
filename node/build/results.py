"""What steps made, in the content store: an image a result, under its cache key as tag in a repository of its own.

So a result is held by what holds images: its blobs and snapshots live as long as the tag does, a crash leaves a whole
result or none, and the collector needs to know nothing about builds.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from node.build.values import State
from node.images.archive.intake import Intake, Made, Taking, config_type, layer_type, manifest_of
from node.images.archive.making import LayerStream, Packed
from node.images.image import BUILDING, UNNAMED, Image, Pruned
from node.images.progress import Silent
from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition, NotFound
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import Reference, RepositoryName, Tag
from storage.repository.store import ContentStore


class Held(Protocol):
    """node.images.store.Images."""

    @property
    def intake(self) -> Intake: ...
    def changed(self) -> None: ...
    async def prune(self, wanted: Callable[[Image], bool], in_use: Mapping[str, Sequence[str]]) -> Pruned: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """One result: its key, the line of history, bytes of its layer as stored."""

    key: str
    line: str
    size: int
    updated: datetime


class Results:
    def __init__(self, content: ContentStore, images: Held) -> None:
        self._content = content
        self._images = images
        self._under_way = 0
        self._used: set[str] = set()

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """What is found or made meanwhile is not forgotten before the end."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._used.clear()

    async def find(self, key: str) -> State | None:
        """What a step of this key made. Its `config` is that of the image as it was kept."""
        self._used.add(key)
        return await self._read(key)

    async def _read(self, key: str) -> State | None:
        try:
            stored = await self._content.manifests.get(BUILDING, Tag(key))
            manifest = manifests.parse(stored.raw, stored.media_type)
            assert manifest.config is not None
            info = await self._content.blobs.stat(BUILDING, manifest.config.digest)
        except NotFound:
            return None
        config = ImageConfig.parse(b"".join([chunk async for chunk in self._content.blobs.read(info)]))
        return state_of(key, manifest, config)

    async def keep(self, state: State, key: str = "") -> Digest:
        """The image of a state that is whole, for containers to stand on and for a later build. Gives its id."""
        self._used.add(key or state.key)
        async with self._images.intake.taking("build") as taking:
            await taking.link(BUILDING, state.layers)
            manifest, config = await _documents(taking, BUILDING, state)
            await taking.name(BUILDING, manifest, (Tag(key or state.key),))
        self._images.changed()
        return config

    async def layer(self, state: State, key: str, entry: dict[str, object], stream: LayerStream,
                    root: str, size: int) -> State:
        """The state after a step that wrote `stream`, kept under its key. `root`: the snapshot it was written in, which
        becomes the layer's and is of no use afterwards (empty: it does not); `size`: bytes in it."""
        self._used.add(key)
        async with self._images.intake.taking("build") as taking:
            await taking.link(BUILDING, state.layers)
            told: list[Packed] = []

            async def digest() -> Digest:
                told.append(await stream.packed())
                return told[0].digest

            await taking.stream(BUILDING, stream.chunks(), digest)
            packed = told[0]
            like = _like(state)
            descriptor = Descriptor(layer_type(packed.compression, like), packed.digest, packed.size)
            after = state.layered(key, entry, descriptor, packed.diff_id)
            if root:
                await taking.adopt(root, after.chain, packed.diff_id, size)
            raw = after.document()
            config = Descriptor(config_type(docker=after.docker), await taking.document(BUILDING, raw), len(raw))
            manifest = manifest_of(config, after.layers, docker=after.docker)
            await taking.unpack(Made(BUILDING, manifest, ImageConfig.parse(raw)), Silent())
            await taking.name(BUILDING, manifest, (Tag(key),))
        self._images.changed()
        return after

    async def kept(self) -> Sequence[Kept]:
        """What is in the cache, oldest first."""
        found = []
        for row in sorted(await self._content.tags.all(), key=lambda row: row.updated):
            state = await self._read(str(row.tag)) if row.repo == BUILDING else None
            if state is not None:
                line = str(state.history[-1].get("created_by", "")) if state.history else ""
                told = state.history[-1] if state.history else {"empty_layer": True}
                size = state.layers[-1].size if state.layers and not told.get("empty_layer") else 0
                found.append(Kept(str(row.tag), line, size, row.updated))
        return found

    async def prune(self, *, before: datetime | None = None, keep: int = 0,
                    keys: Collection[str] = ()) -> tuple[Sequence[str], int]:  # fmt: skip
        """Forget results, oldest first: those of before a moment, of these `keys` if there are any, and only until
        `keep` bytes of layers are left. Gives the keys, and bytes that are free again."""
        held = await self.kept()
        left, gone, digests = sum(one.size for one in held), [], set[Digest]()
        for one in held:
            if (before is not None and one.updated >= before) or (keep and left <= keep) or one.key in self._used or (
                    keys and one.key not in keys):
                continue
            with contextlib.suppress(NotFound):
                digests.add((await self._content.manifests.get(BUILDING, Tag(one.key))).digest)
                await self._content.tags.delete(BUILDING, Tag(one.key), force=True)
            left -= one.size
            gone.append(one.key)
        await self._forget_unnamed(digests)
        self._images.changed()
        pruned = await self._images.prune(lambda _image: False, {})
        return gone, pruned.freed

    async def _forget_unnamed(self, gone: Collection[Digest]) -> None:
        """Two steps may have made the same. What lost its key to a later result of the same step goes, too, unless a
        build under way may stand on it."""
        rows = await self._content.manifests.all()
        # Names after what is named: what is new meanwhile is not among the rows.
        named = {row.digest for row in await self._content.tags.all() if row.repo == BUILDING}
        for row in rows:
            if row.repo == BUILDING and row.digest not in named and (row.digest in gone or not self._under_way):
                with contextlib.suppress(NotFound, FailedPrecondition):
                    await self._content.manifests.delete(BUILDING, row.digest, force=True)

    async def finish(self, state: State, targets: Sequence[Reference]) -> Digest:
        """The image under its names, or under none. Gives its id."""
        names = [target.with_default_tag() for target in targets]
        repositories: dict[RepositoryName, list[Tag]] = {}
        for name in names:
            assert name.tag is not None
            repositories.setdefault(name.repository, []).append(name.tag)
        identity: Digest | None = None
        async with self._images.intake.taking("build") as taking:
            for repository, tags in (repositories or {UNNAMED: []}).items():
                await taking.link(repository, state.layers)
                manifest, identity = await _documents(taking, repository, state)
                await taking.name(repository, manifest, tags)
        self._images.changed()
        assert identity is not None
        return identity


async def _documents(taking: Taking, repository: RepositoryName, state: State) -> tuple[Manifest, Digest]:
    raw = state.document()
    digest = await taking.document(repository, raw)
    config = Descriptor(config_type(docker=state.docker), digest, len(raw))
    return manifest_of(config, state.layers, docker=state.docker), digest


def _like(state: State) -> Manifest | None:
    if not state.docker:
        return None
    config = Descriptor(config_type(docker=True), Digest.of(b""), 0)
    return manifest_of(config, (), docker=True)


def state_of(key: str, manifest: Manifest, config: ImageConfig) -> State:
    """An image as a state to go on from."""
    return State(
        key, config.config, config.platform, tuple(manifest.layers), tuple(config.diff_ids),
        tuple(config.history), config.created, str(config.document.get("author", "")),
        docker=manifest.media_type == mediatype.DOCKER_MANIFEST,
    )  # fmt: skip


def of_image(image: Image) -> State:
    return state_of(f"image {image.id}", image.manifest, image.config)
