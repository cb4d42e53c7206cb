"""What of one repository lives, and why. A pure function: no clock, no store.

A manifest lives when it is tagged, was touched within the grace, is leased, or where untagged manifests are kept (for
ever those that are pinned, or for a time); with it live its children, and the manifests that refer to it as their
subject. A subject is not kept by its referrers: a signature points at an image, it does not hold it. A blob's
membership lives when a living manifest names it, or it is leased, or was touched within the grace.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from ocispec.digest import Digest
from storage.metadata.garbage import HeldBlob, HeldManifest, RepositoryContent

IN_GRACE = "used within the grace"
LEASED = "leased"


@dataclass(frozen=True, slots=True)
class Rules:
    """`cutoff`, a `grace` ago: what was touched then or later lives. `keep_untagged`: pinned manifests live without a
    tag; otherwise, where `untagged_since` is given, those that were touched since. `rule`: who says so, for reports."""

    cutoff: datetime
    leased: frozenset[Digest] = frozenset()
    keep_untagged: bool = False
    untagged_since: datetime | None = None
    rule: str = ""
    grace: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Verdict:
    lives: bool
    why: str


Reason = tuple[str, object]
"""Words, and what they are about: made into text only for reports."""


@dataclass(frozen=True)
class Marked:
    """Of each manifest and of each blob's membership whether it lives. `look`: something that lives now may be dead
    a grace after this without any further change; None: nothing is."""

    content: RepositoryContent
    rules: Rules
    living: Mapping[Digest, Reason] = field(repr=False)
    named: Mapping[Digest, Digest] = field(repr=False)
    look: datetime | None

    @cached_property
    def dead_manifests(self) -> list[Digest]:
        return [manifest.digest for manifest in self.content.manifests if manifest.digest not in self.living]

    @cached_property
    def dead_blobs(self) -> list[Digest]:
        return [blob.digest for blob in self.content.blobs
                if blob.digest not in self.named and not _blob_root(blob, self.rules)]

    @property
    def manifests(self) -> Mapping[Digest, Verdict]:
        return {manifest.digest: self.manifest(manifest) for manifest in self.content.manifests}

    @property
    def blobs(self) -> Mapping[Digest, Verdict]:
        return {blob.digest: self.blob(blob) for blob in self.content.blobs}

    def manifest(self, manifest: HeldManifest) -> Verdict:
        reason = self.living.get(manifest.digest)
        if reason is not None:
            return Verdict(lives=True, why=f"{reason[0]} {reason[1]}".strip())
        return Verdict(lives=False, why=_why_dead(manifest, self.rules))

    def blob(self, blob: HeldBlob) -> Verdict:
        holder = self.named.get(blob.digest)
        why = f"part of {holder}" if holder is not None else _blob_root(blob, self.rules)
        return Verdict(lives=True, why=why) if why else Verdict(lives=False, why="no manifest here names it")


def mark(content: RepositoryContent, rules: Rules) -> Marked:
    known = {manifest.digest: manifest for manifest in content.manifests}
    referrers: dict[Digest, list[Digest]] = defaultdict(list)
    for manifest in content.manifests:
        if manifest.subject is not None:
            referrers[manifest.subject].append(manifest.digest)
    living: dict[Digest, Reason] = {}
    # What lives for good first: then the others are those that time alone may kill.
    _spread(known, referrers, living, lambda manifest: _for_good(manifest, rules))
    passing = _spread(known, referrers, living, lambda manifest: _for_now(manifest, rules))
    named = {blob: digest for digest in living for blob in known[digest].blobs}
    looks = [_look(known[digest], rules) for digest in passing]
    looks += [_look(blob, rules) for blob in content.blobs if blob.digest not in named and _blob_root(blob, rules)]
    return Marked(content, rules, living, named, min(looks, default=None))


def _spread(known: Mapping[Digest, HeldManifest], referrers: Mapping[Digest, list[Digest]],
            living: dict[Digest, Reason], root: Callable[[HeldManifest], Reason | None]) -> list[Digest]:
    """Adds the roots and what lives with them; gives the roots. Loops end: a digest is spread from once."""
    roots = {digest: why for digest, manifest in known.items() if digest not in living and (why := root(manifest))}
    living.update(roots)
    pending = list(roots)
    while pending:
        digest = pending.pop()
        for followers, words in ((known[digest].children, "child of"), (referrers.get(digest, ()), "refers to")):
            for follower in followers:
                if follower in known and follower not in living:
                    living[follower] = (words, digest)
                    pending.append(follower)
    return list(roots)


def _for_good(manifest: HeldManifest, rules: Rules) -> Reason | None:
    if manifest.tags:
        return "tagged", manifest.tags[0]
    if rules.keep_untagged and manifest.pinned:
        return ("untagged, kept by rule", rules.rule) if rules.rule else ("untagged manifests are kept", "")
    return None


def _for_now(manifest: HeldManifest, rules: Rules) -> Reason | None:
    if manifest.touched >= rules.cutoff:
        return IN_GRACE, ""
    if manifest.digest in rules.leased:
        return LEASED, ""
    if rules.untagged_since is not None and manifest.touched >= rules.untagged_since:
        return "untagged, kept a while by rule", rules.rule
    return None


def _blob_root(blob: HeldBlob, rules: Rules) -> str:
    if blob.touched >= rules.cutoff:
        return IN_GRACE
    return LEASED if blob.digest in rules.leased else ""


def _look(item: HeldManifest | HeldBlob, rules: Rules) -> datetime:
    """A grace after this it is dead, unless something changes."""
    if item.digest in rules.leased:
        return rules.cutoff + rules.grace  # now: nobody knows when the lease ends
    if isinstance(item, HeldManifest) and rules.untagged_since is not None:
        return item.touched + max(rules.cutoff - rules.untagged_since, timedelta(0))
    return item.touched


def _why_dead(manifest: HeldManifest, rules: Rules) -> str:
    longer = f" for longer than rule {rules.rule} keeps it" if rules.rule else ""
    if manifest.subject is not None:
        return f"untagged{longer}, and its subject {manifest.subject} does not live here"
    return f"untagged{longer}, and no living index names it"
