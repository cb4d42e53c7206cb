"""What of one repository lives, and why. A pure function: no clock, no store.

A manifest lives when it is tagged, was touched within the grace, is leased, or (where untagged manifests are kept)
is pinned; with it live its children, and the manifests that refer to it as their subject. A subject is not kept by
its referrers: a signature points at an image, it does not hold it. A blob's membership lives when a living manifest
names it, or it is leased, or was touched within the grace.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from storage.metadata.garbage import HeldBlob, HeldManifest, RepositoryContent

IN_GRACE = "used within the grace"
LEASED = "leased"


@dataclass(frozen=True, slots=True)
class Rules:
    """`cutoff`: what was touched then or later lives. `keep_untagged`: pinned manifests live without a tag."""

    cutoff: datetime
    leased: frozenset[Digest] = frozenset()
    keep_untagged: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    lives: bool
    why: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A verdict for each manifest, and for each blob's membership."""

    manifests: Mapping[Digest, Verdict]
    blobs: Mapping[Digest, Verdict]

    @property
    def dead_manifests(self) -> list[Digest]:
        return [digest for digest, verdict in self.manifests.items() if not verdict.lives]

    @property
    def dead_blobs(self) -> list[Digest]:
        return [digest for digest, verdict in self.blobs.items() if not verdict.lives]


def mark(content: RepositoryContent, rules: Rules) -> Marked:
    living = _living(content.manifests, rules)
    named = {blob: f"part of {manifest.digest}" for manifest in content.manifests if manifest.digest in living
             for blob in manifest.blobs}
    return Marked(
        manifests={manifest.digest: _verdict(living.get(manifest.digest), _why_dead(manifest))
                   for manifest in content.manifests},
        blobs={blob.digest: _verdict(named.get(blob.digest) or _blob_root(blob, rules), "no manifest here names it")
               for blob in content.blobs},
    )


def _living(manifests: tuple[HeldManifest, ...], rules: Rules) -> dict[Digest, str]:
    """Digest → why, spread from the roots; loops end because a digest is spread from once."""
    known = {manifest.digest: manifest for manifest in manifests}
    referrers: dict[Digest, list[Digest]] = defaultdict(list)
    for manifest in manifests:
        if manifest.subject is not None:
            referrers[manifest.subject].append(manifest.digest)
    living = {digest: why for digest, manifest in known.items() if (why := _root(manifest, rules))}
    pending = list(living)
    while pending:
        manifest = known[pending.pop()]
        followed = [(child, f"child of {manifest.digest}") for child in manifest.children]
        followed += [(referrer, f"refers to {manifest.digest}") for referrer in referrers[manifest.digest]]
        for digest, why in followed:
            if digest in known and digest not in living:
                living[digest] = why
                pending.append(digest)
    return living


def _root(manifest: HeldManifest, rules: Rules) -> str:
    if manifest.tags:
        return f"tagged {manifest.tags[0]}"
    if manifest.touched >= rules.cutoff:
        return IN_GRACE
    if manifest.digest in rules.leased:
        return LEASED
    if rules.keep_untagged and manifest.pinned:
        return "pulled by digest"
    return ""


def _blob_root(blob: HeldBlob, rules: Rules) -> str:
    if blob.touched >= rules.cutoff:
        return IN_GRACE
    return LEASED if blob.digest in rules.leased else ""


def _why_dead(manifest: HeldManifest) -> str:
    if manifest.subject is not None:
        return f"untagged, and its subject {manifest.subject} does not live here"
    return "untagged, and no living index names it"


def _verdict(alive: str | None, dead: str) -> Verdict:
    return Verdict(lives=True, why=alive) if alive else Verdict(lives=False, why=dead)
