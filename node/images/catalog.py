"""Which images are here: the content store's manifests and tags, read as images.

A repository row is either what a name or digest was pulled as (a top) or the platform's part of an index. Tops are what
Docker shows: as RepoTags when a tag points at them, as RepoDigests always.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from node.images.errors import AmbiguousImage, ImageNotFound, NotAnImage, PlatformMissing
from node.images.image import BUILDING, UNNAMED, Image
from node.state.snapshots import LayerSizeRows
from ocispec import manifest as manifests
from ocispec import mediatype
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument, NotFound
from ocispec.image import ImageConfig
from ocispec.manifest import Manifest
from ocispec.reference import InvalidReference, Reference, RepositoryName, Tag, familiar_repository
from storage.repository.store import ContentStore

_CONFIGS = frozenset({mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG})
_SHORTEST_PREFIX = 1
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Top:
    """A manifest that a repository holds for its own sake. `parts` are the manifests of the same repository that belong
    to it (itself, and for an index what of it is here); `image` is the one for our platform, `images` are all that are
    here."""

    repository: RepositoryName
    digest: Digest
    manifest: Manifest
    image: Digest
    image_manifest: Manifest
    parts: tuple[Digest, ...]
    images: tuple[tuple[Digest, Manifest], ...]

    @property
    def ids(self) -> tuple[Digest, ...]:
        """Of its images, ours first."""
        others = [_config(manifest) for digest, manifest in self.images if digest != self.image]
        return tuple(dict.fromkeys((_id(self), *others)))


@dataclass(frozen=True, slots=True)
class NamedBy:
    """A name of an image: a tag, or the digest of a top."""

    repository: RepositoryName
    name: Tag | Digest

    def familiar(self) -> str:
        mark = ":" if isinstance(self.name, Tag) else "@"
        return f"{familiar_repository(self.repository)}{mark}{self.name}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All images at one moment. `others` are here beside `images`, for further platforms of the same names: found by
    their id, and never listed."""

    images: Mapping[Digest, Image]
    tags: Mapping[tuple[RepositoryName, Tag], Top]
    tops: Mapping[tuple[RepositoryName, Digest], Top]
    references: Mapping[Digest, Sequence[NamedBy]] = field(default_factory=dict)
    others: Mapping[Digest, Image] = field(default_factory=dict)

    def find(self, name: str, platform: Platform | None = None) -> Image:
        """By reference, `sha256:<id>`, id or a prefix of it. Raises ImageNotFound, AmbiguousImage, PlatformMissing."""
        named = self.named(name)
        if platform is None:
            return self.by_id(name) if named is None else self._image(self.top(named))
        top = self.top_of(name)
        for digest, manifest in sorted(top.images, key=lambda one: one[0] != top.image):
            image = self.held(_config(manifest))
            if image.platform.satisfies(platform):
                return replace(image, manifest_digest=digest, manifest=manifest, repository=top.repository)
        raise PlatformMissing(name, platform)

    def top_of(self, name: str) -> Top:
        """What a name or id stands for. Raises ImageNotFound, AmbiguousImage."""
        named = self.named(name)
        if named is not None:
            return self.top(named)
        image = self.by_id(name)
        if image.id in self.references:
            return self.top(self.references[image.id][0])
        for top in self.tops.values():
            if image.id in top.ids:
                return top
        # A result of builds: containers stand on it, nobody names it.
        raise ImageNotFound(name)

    def held(self, image_id: Digest) -> Image:
        return self.images.get(image_id) or self.others[image_id]

    def chains(self) -> set[Digest]:
        """The chain id of every layer that an image needs."""
        return {chain_id for images in (self.images, self.others) for image in images.values()
                for chain_id in image.chain}

    def named(self, text: str) -> NamedBy | None:
        """The name that a reference spells; None when it is no reference, or nothing has this name."""
        try:
            reference = Reference.parse(text).with_default_tag()
        except InvalidReference:
            return None
        if reference.digest is None:
            assert reference.tag is not None
            here = (reference.repository, reference.tag) in self.tags
            return NamedBy(reference.repository, reference.tag) if here else None
        for (repository, digest), top in self.tops.items():
            if repository == reference.repository and reference.digest in (digest, *top.parts):
                return NamedBy(repository, digest)
        return None

    def top(self, name: NamedBy) -> Top:
        if isinstance(name.name, Tag):
            return self.tags[name.repository, name.name]
        return self.tops[name.repository, name.name]

    def by_id(self, text: str) -> Image:
        prefix = text.removeprefix("sha256:")
        found = [image for images in (self.images, self.others) for image_id, image in images.items()
                 if image_id.encoded.startswith(prefix)]
        if not _SHORTEST_PREFIX <= len(prefix) <= 64 or not _HEX.issuperset(prefix) or not found:
            raise ImageNotFound(_with_tag(text))
        if len(found) > 1:
            raise AmbiguousImage(text)
        return found[0]

    def _image(self, top: Top) -> Image:
        """The image, with the manifest of the repository that was asked for."""
        assert top.image_manifest.config is not None
        image = self.images[top.image_manifest.config.digest]
        return replace(image, manifest_digest=top.image, manifest=top.image_manifest, repository=top.repository)

    def repositories_with(self, digest: Digest) -> Iterable[RepositoryName]:
        """Repositories one of whose images has this blob."""
        return {top.repository for top in self.tops.values()
                if any(blob.digest == digest for _, manifest in top.images for blob in manifest.blobs)}


class CatalogReader:
    """Reads the catalog; parsed manifests and configs are kept, as they never change."""

    def __init__(self, content: ContentStore, sizes: LayerSizeRows, platform: Platform) -> None:
        self._content = content
        self._sizes = sizes
        self._platform = platform
        self._manifests: dict[Digest, Manifest] = {}
        self._configs: dict[Digest, ImageConfig] = {}

    async def read(self) -> Catalog:
        held: dict[RepositoryName, dict[Digest, Manifest]] = {}
        for row in await self._content.manifests.all():
            held.setdefault(row.repo, {})[row.digest] = await self._manifest(row.repo, row.digest)
        building = [*self._tops(BUILDING, held.pop(BUILDING, {}))]
        tops = {(top.repository, top.digest): top for repository, rows in held.items()
                for top in self._tops(repository, rows)}
        rows = [row for row in await self._content.tags.all() if (row.repo, row.digest) in tops]
        tags = {(row.repo, row.tag): tops[row.repo, row.digest] for row in rows}
        tagged = {_id(tops[row.repo, row.digest]): row.updated for row in sorted(rows, key=lambda row: row.updated)}
        references: dict[Digest, list[NamedBy]] = {}
        for (repository, tag), top in sorted(tags.items()):
            references.setdefault(_id(top), []).append(NamedBy(repository, tag))
        for (repository, digest), top in sorted(tops.items()):
            references.setdefault(_id(top), []).append(NamedBy(repository, digest))
        images: dict[Digest, Image] = {}
        for top in tops.values():
            if _id(top) not in images:
                images[_id(top)] = replace(
                    await self._image(top, top.image, top.image_manifest, references[_id(top)]),
                    tagged=_moment(tagged.get(_id(top))))
            else:
                variants = dict.fromkeys((*images[_id(top)].variants, *top.ids[1:]))
                images[_id(top)] = replace(images[_id(top)], variants=tuple(variants))
        others = await self._others([*tops.values(), *building], images, references)
        for top in building:
            held.setdefault(BUILDING, {})[top.digest] = top.manifest
        self._forget(held, {*images, *others})
        return Catalog(images, tags, tops, references, others)

    async def _others(self, tops: Iterable[Top], images: Mapping[Digest, Image],
                      references: Mapping[Digest, Sequence[NamedBy]]) -> dict[Digest, Image]:
        others: dict[Digest, Image] = {}
        for top in tops:
            for digest, manifest in top.images:
                if _config(manifest) not in images and _config(manifest) not in others:
                    others[_config(manifest)] = await self._image(top, digest, manifest, references.get(_id(top), ()))
        return others

    def _tops(self, repository: RepositoryName, rows: Mapping[Digest, Manifest]) -> Iterable[Top]:
        inside = {child.digest for manifest in rows.values() for child in manifest.children}
        for digest, manifest in rows.items():
            if digest in inside:
                continue
            parts = tuple(child.digest for child in manifest.children if child.digest in rows)
            image = digest if not manifest.is_index else self._pick(manifest, rows)
            if image is not None and is_image(rows[image]):
                images = tuple((one, rows[one]) for one in (digest, *parts) if is_image(rows[one]))
                yield Top(repository, digest, manifest, image, rows[image], (digest, *parts), images)

    def _pick(self, index: Manifest, rows: Mapping[Digest, Manifest]) -> Digest | None:
        here = [child for child in index.children if child.digest in rows and is_image(rows[child.digest])]
        chosen = pick_platform(here, self._platform) or (here[0] if here else None)
        return chosen.digest if chosen else None

    async def _manifest(self, repository: RepositoryName, digest: Digest) -> Manifest:
        known = self._manifests.get(digest)
        if known is None:
            stored = await self._content.manifests.get(repository, digest)
            known = self._manifests[digest] = manifests.parse(stored.raw, stored.media_type)
        return known

    async def _image(self, top: Top, digest: Digest, manifest: Manifest, references: Sequence[NamedBy]) -> Image:
        config = await self.config(top.repository, manifest)
        sizes = await self._sizes.get(config.diff_ids)
        return Image(
            id=_config(manifest), config=config, manifest_digest=digest, manifest=manifest, repository=top.repository,
            variants=tuple(one for one in top.ids if one != _config(manifest)),
            repo_tags=tuple(one.familiar() for one in references if isinstance(one.name, Tag)),
            repo_digests=tuple(one.familiar() for one in references
                               if isinstance(one.name, Digest) and one.repository != UNNAMED),
            size=sum(sizes.get(diff_id, 0) for diff_id in config.diff_ids), chain=config.chain_ids(),
        )

    async def config(self, repository: RepositoryName, manifest: Manifest) -> ImageConfig:
        assert manifest.config is not None
        known = self._configs.get(manifest.config.digest)
        if known is None:
            info = await self._content.blobs.stat(repository, manifest.config.digest)
            raw = b"".join([chunk async for chunk in self._content.blobs.read(info)])
            known = self._configs[manifest.config.digest] = ImageConfig.parse(raw)
        return known

    def _forget(self, held: Mapping[RepositoryName, Mapping[Digest, Manifest]], images: Collection[Digest]) -> None:
        for digest in set(self._manifests).difference(*held.values()):
            del self._manifests[digest]
        for digest in set(self._configs).difference(images):
            del self._configs[digest]


def is_image(manifest: Manifest) -> bool:
    """A container image, not another artifact in an image manifest's clothes."""
    return manifest.config is not None and manifest.config.media_type in _CONFIGS and not manifest.is_index


def pick_platform(descriptors: Iterable[Descriptor], wanted: Platform) -> Descriptor | None:
    """The first whose platform is named and satisfies; an exact variant before an unsaid one. Attestations
    (`unknown/unknown`) are nobody's platform."""
    fitting = [one for one in descriptors if one.platform is not None and one.platform.satisfies(wanted)]
    exact = [one for one in fitting if one.platform == wanted]
    return next(iter(exact or fitting), None)


def check_image(manifest: Manifest, config: ImageConfig) -> None:
    """Raises NotAnImage when manifest and config do not belong together."""
    if len(manifest.layers) != len(config.diff_ids):
        raise NotAnImage(f"the manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)} diff_ids")


def _id(top: Top) -> Digest:
    return _config(top.image_manifest)


def _config(manifest: Manifest) -> Digest:
    assert manifest.config is not None
    return manifest.config.digest


def _moment(when: datetime | None) -> str:
    return "" if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _with_tag(text: str) -> str:
    try:
        return Reference.parse(text).with_default_tag().familiar()
    except (InvalidReference, InvalidArgument, NotFound):
        return text
