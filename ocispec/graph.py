"""The only traversal of a manifest tree: pull, push, garbage collection, export and search call `walk`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition
from ocispec.manifest import Manifest

Load = Callable[[Descriptor], Awaitable[Manifest | None]]
"""Gives the manifest behind a descriptor; None means "do not descend" (absent in a sparse index, or unwanted)."""

MAX_DEPTH = 16


class TooDeep(FailedPrecondition):
    """Indexes nested deeper than MAX_DEPTH: nobody builds that, an attacker may."""


@dataclass(frozen=True, slots=True)
class Node:
    """`manifest` is None for a blob, and for a manifest that `load` declined."""

    descriptor: Descriptor
    manifest: Manifest | None
    depth: int


async def walk(roots: Iterable[Descriptor], load: Load) -> AsyncIterator[Node]:
    """Yield every manifest and blob reachable from `roots`, parents before children, each digest once.

    Subjects are not followed: a referrer points at its subject, it does not contain it. Loops (an index that lists
    itself) end because a digest is visited once. Raises TooDeep, and whatever `load` raises.
    """
    seen: set[Digest] = set()
    pending = [(descriptor, 0) for descriptor in roots]
    pending.reverse()
    while pending:
        descriptor, depth = pending.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if descriptor.media_type not in mediatype.MANIFESTS:
            yield Node(descriptor, None, depth)
            continue
        if depth > MAX_DEPTH:
            raise TooDeep(f"indexes are nested deeper than {MAX_DEPTH} at {descriptor.digest}")
        manifest = await load(descriptor)
        yield Node(descriptor, manifest, depth)
        if manifest is not None:
            pending.extend((child, depth + 1) for child in reversed((*manifest.children, *manifest.blobs)))
