"""Who refers to a manifest, a page at a time and without reading the manifests themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag, referrers_tag
from storage.metadata.engine import Transaction
from storage.metadata.tables import manifest_annotations, manifest_references, manifests, repositories, tags

SMALL = 4096
"""Bytes of annotations up to which they come with the first query, since nearly all are smaller; what is larger comes
one by one, when there is room for it."""

FRAME = 120
"""Bytes of a descriptor as JSON without its values, rounded up."""


@dataclass(frozen=True, slots=True)
class Referrer:
    """What the descriptor of a referrer says. `annotations` is a JSON object as bytes, empty when there are none."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str
    annotations: bytes = b""

    def weight(self, annotations: int) -> int:
        """Bytes of its JSON when it has so many of annotations."""
        return FRAME + len(self.media_type) + len(self.artifact_type) + len(self.digest.encoded) + annotations


@dataclass(frozen=True, slots=True)
class Wanted:
    """`after`: the digest that the page before ended with."""

    subject: Digest
    artifact_type: str | None = None
    after: Digest | None = None


async def page(tx: Transaction, name: RepositoryName, wanted: Wanted, limit: int,
               room: int) -> tuple[Sequence[Referrer], bool]:
    """The next referrers by digest, at most `limit` and as far as their descriptors take no more than `room` bytes of
    JSON, but at least one; and whether others follow.

    They are the manifests that name the subject, and those without any that an index tagged by the old scheme lists
    (distribution-spec, "Referrers Tag Schema"): what clients found there before, they find here.
    """
    found = (await tx.execute(await _query(tx, name, wanted, limit + 1))).all()
    taken: dict[int, Referrer] = {}
    large = []
    for number, digest, media_type, size, artifact_type, length, annotations in found[:limit]:
        item = Referrer(digest, media_type, size, artifact_type, annotations or b"")
        room -= item.weight(length or 0)
        if taken and room < 0:
            break
        taken[number] = item
        if (length or 0) > SMALL:
            large.append(number)
    for number in large:
        query = sa.select(manifest_annotations.c.annotations).where(manifest_annotations.c.manifest_id == number)
        taken[number] = replace(taken[number], annotations=(await tx.scalars(query)).one())
    return [*taken.values()], len(found) > len(taken)


async def _query(tx: Transaction, name: RepositoryName, wanted: Wanted, limit: int) -> Any:
    repository = sa.select(repositories.c.id).where(repositories.c.name == name.value).scalar_subquery()
    direct = _manifests(repository, wanted).where(manifests.c.subject == wanted.subject)
    index = await _tagged(tx, name, referrers_tag(wanted.subject))
    if index is None:
        return direct.order_by(manifests.c.digest).limit(limit)
    listed = sa.select(manifest_references.c.digest).where(manifest_references.c.manifest_id == index,
                                                           manifest_references.c.is_manifest)
    adopted = _manifests(repository, wanted).where(
        manifests.c.subject.is_(None), manifests.c.digest != wanted.subject, manifests.c.digest.in_(listed))
    both = sa.union_all(direct, adopted).subquery()
    return sa.select(both).order_by(both.c.digest).limit(limit)


def _manifests(repository: sa.ScalarSelect[Any], wanted: Wanted) -> sa.Select[Any]:
    annotations = manifest_annotations.c.annotations
    length = sa.func.length(annotations)
    query = sa.select(
        manifests.c.id, manifests.c.digest, manifests.c.media_type, manifests.c.size, manifests.c.artifact_type,
        length.label("length"), sa.case((length <= SMALL, annotations)).label("annotations"),
    ).outerjoin(manifest_annotations, manifest_annotations.c.manifest_id == manifests.c.id)
    query = query.where(manifests.c.repository_id == repository)
    if wanted.artifact_type is not None:
        query = query.where(manifests.c.artifact_type == wanted.artifact_type)
    return query if wanted.after is None else query.where(manifests.c.digest > wanted.after)


async def _tagged(tx: Transaction, name: RepositoryName, tag: Tag) -> int | None:
    found: int | None = await tx.scalar(
        sa.select(tags.c.manifest_id).join(repositories, repositories.c.id == tags.c.repository_id)
        .where(repositories.c.name == name.value, tags.c.name == tag.value))
    return found
