"""Who refers to a manifest: signatures, attestations, SBOMs (distribution-spec, "Listing Referrers")."""

from ocispec import manifest as manifests
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from storage.metadata import manifests as rows
from storage.metadata.engine import Database


class Referrers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, repo: RepositoryName, digest: Digest, artifact_type: str | None) -> list[Descriptor]:
        """Descriptors of the manifests of `repo` whose subject is `digest`, with their annotations, oldest first;
        empty when there are none, whether or not the subject exists."""
        async with self._database.read() as tx:
            found = await rows.referrers(tx, repo, digest, artifact_type)
        return [manifests.parse(stored.raw, stored.media_type).descriptor(stored.digest) for stored in found]
