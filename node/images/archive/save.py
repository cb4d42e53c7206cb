"""`docker save`: images as one archive that is both an OCI layout and what `docker load` has read since 1.10.

Blobs go out as they are stored, compressed as they were pulled; nothing is built up on disk or in memory.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.images.archive import headers
from node.images.archive.headers import DIRECTORY, Member, header, padding
from node.images.catalog import Catalog, Top
from node.images.image import UNNAMED
from ocispec import mediatype
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.manifest import Manifest
from ocispec.reference import Reference, RepositoryName, Tag, familiar_repository
from storage.repository.store import ContentStore

_NAME, _REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image to save: `top` as its repository holds it, or the one `manifest` of it."""

    top: Top
    digest: Digest
    manifest: Manifest
    tags: tuple[tuple[RepositoryName, Tag], ...]
    parts: tuple[tuple[Digest, Manifest], ...]
    """Images, ours first."""


def choose(catalog: Catalog, names: Sequence[str], platform: Platform | None) -> list[Wanted]:
    """What was asked for, each image once. Raises ImageNotFound, AmbiguousImage, PlatformMissing."""
    if not names:
        raise InvalidArgument("no image was named")
    found: dict[Digest, Wanted] = {}
    for name in names:
        for top, tags in _named(catalog, name):
            one = _wanted(catalog, name, top, tags, platform)
            known = found.get(one.digest)
            kept = tuple(dict.fromkeys((*(known.tags if known else ()), *one.tags)))
            found[one.digest] = Wanted(one.top, one.digest, one.manifest, kept, one.parts)
    return list(found.values())


def _named(catalog: Catalog, name: str) -> list[tuple[Top, tuple[tuple[RepositoryName, Tag], ...]]]:
    """A name without a tag stands for every tag of the repository; an id for the image without any name."""
    named = catalog.named(name)
    if named is not None and isinstance(named.name, Tag) and not _has_tag(name):
        tags = [key for key in catalog.tags if key[0] == named.repository]
        return [(catalog.tags[key], (key,)) for key in tags]
    if named is None:
        repository = _repository(name)
        tags = [key for key in catalog.tags if key[0] == repository]
        if tags:
            return [(catalog.tags[key], (key,)) for key in tags]
    tagged = named is not None and isinstance(named.name, Tag)
    return [(catalog.top_of(name), ((named.repository, named.name),) if tagged and named else ())]  # type: ignore[list-item]


def _repository(name: str) -> RepositoryName | None:
    try:
        reference = Reference.parse(name)
    except InvalidArgument:
        return None
    return reference.repository if reference.tag is None and reference.digest is None else None


def _has_tag(name: str) -> bool:
    reference = Reference.parse(name)
    return reference.tag is not None or reference.digest is not None


def _wanted(catalog: Catalog, name: str, top: Top, tags: tuple[tuple[RepositoryName, Tag], ...],
            platform: Platform | None) -> Wanted:  # fmt: skip
    if tags:  # a name without a tag stands for each of them
        name = f"{tags[0][0]}:{tags[0][1]}"
    if platform is not None:
        image = catalog.find(name, platform)
        return Wanted(top, image.manifest_digest, image.manifest, tags, ((image.manifest_digest, image.manifest),))
    asked = catalog.find(name)
    if asked.manifest_digest in {digest for digest, _ in top.images} and asked.manifest_digest != top.image:
        return Wanted(top, asked.manifest_digest, asked.manifest, tags, ((asked.manifest_digest, asked.manifest),))
    parts = sorted(top.images, key=lambda part: part[0] != top.image)
    return Wanted(top, top.digest, top.manifest, tags, tuple(parts))


class Saver:
    def __init__(self, content: ContentStore) -> None:
        self._content = content

    async def chunks(self, wanted: Sequence[Wanted]) -> AsyncIterator[bytes]:
        """Raises BlobUnknown when an image was removed meanwhile."""
        now = int(time.time())
        documents = {
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "index.json": {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": _index(wanted)},
            "manifest.json": [_docker(one) for one in wanted],
        }
        for name, document in documents.items():
            raw = json.dumps(document, separators=(",", ":")).encode()
            yield _file(name, len(raw), now) + raw + padding(len(raw))
        yield header(Member(b"blobs/", DIRECTORY, 0o755, mtime=now))
        yield header(Member(b"blobs/sha256/", DIRECTORY, 0o755, mtime=now))
        written: set[Digest] = set()
        for one in wanted:
            async for chunk in self._image(one, written, now):
                yield chunk
        yield headers.END

    async def _image(self, wanted: Wanted, written: set[Digest], now: int) -> AsyncIterator[bytes]:
        raws = {wanted.digest: wanted.manifest.raw} | {digest: manifest.raw for digest, manifest in wanted.parts}
        for digest, raw in raws.items():
            if digest not in written:
                written.add(digest)
                yield _file(_path(digest), len(raw), now) + raw + padding(len(raw))
        for _, manifest in wanted.parts:
            for blob in manifest.blobs:
                if blob.digest in written:
                    continue
                written.add(blob.digest)
                info = await self._content.blobs.stat(wanted.top.repository, blob.digest)
                yield _file(_path(blob.digest), info.size, now)
                async for chunk in self._content.blobs.read(info):
                    yield chunk
                yield padding(info.size)


def _index(wanted: Sequence[Wanted]) -> list[Mapping[str, Any]]:
    entries: list[Mapping[str, Any]] = []
    for one in wanted:
        names: Sequence[tuple[RepositoryName, Tag] | None] = one.tags or (None,)
        for name in names:
            annotations = {} if name is None else {_NAME: f"{name[0]}:{name[1]}", _REF: str(name[1])}
            media_type = one.manifest.media_type
            entries.append(Descriptor(media_type, one.digest, len(one.manifest.raw), annotations).to_json())
    return entries


def _docker(wanted: Wanted) -> Mapping[str, Any]:
    _, manifest = wanted.parts[0]
    assert manifest.config is not None
    names = [f"{familiar_repository(repository)}:{tag}" for repository, tag in wanted.tags if repository != UNNAMED]
    return {"Config": _path(manifest.config.digest), "RepoTags": names or None,
            "Layers": [_path(layer.digest) for layer in manifest.layers]}  # fmt: skip


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _file(name: str, size: int, now: int) -> bytes:
    return header(Member(name.encode(), size=size, mode=0o644, mtime=now))
