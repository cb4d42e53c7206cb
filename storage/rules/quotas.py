"""Charging the namespaces of quotas, in the transaction of the change.

A blob counts once for a namespace, however many of its repositories hold it; a manifest counts for each repository,
as it is stored for each. Bytes on their way count when they are committed; each upload alone is stopped when it has
outgrown what is left. Those who change what one namespace holds wait for each other (`claim`; SQLite's writers do
anyway), so the limit is exact; namespaces without a quota wait for nobody.
"""

from collections.abc import Collection, Mapping

from ocispec.reference import RepositoryName
from storage.metadata import usage
from storage.metadata.dialect import lock_name
from storage.metadata.engine import Transaction
from storage.rules.book import Quota
from storage.rules.refusals import QuotaExceeded
from storage.rules.service import Rules

FOLD_AT = 200
"""Rows of a namespace; the sum of so many costs a push less than 100 µs."""


class Quotas:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def room(self, tx: Transaction, repo: RepositoryName, size: int) -> None:
        """Whether `size` more bytes could be kept. Raises QuotaExceeded."""
        for quota in await self._quotas(tx, repo):
            await _admit(tx, quota, size)

    async def claim(self, tx: Transaction, repo: RepositoryName) -> None:
        """To come first in a transaction that is going to call anything below, before it locks any row."""
        for namespace in sorted({quota.namespace for quota in await self._quotas(tx, repo)}):
            await lock_name(tx, namespace)

    async def blob(self, tx: Transaction, repo: RepositoryName, blob: int, size: int) -> None:
        """The blob is about to become part of the repository. Raises QuotaExceeded."""
        for quota in await self._quotas(tx, repo):
            if not await usage.held(tx, quota.namespace, [blob]):
                await _charge(tx, quota, size)

    async def manifest(self, tx: Transaction, repo: RepositoryName, size: int) -> None:
        """The manifest is about to be added. Raises QuotaExceeded."""
        for quota in await self._quotas(tx, repo):
            await _charge(tx, quota, size)

    async def blobs_gone(self, tx: Transaction, repo: RepositoryName, sizes: Mapping[int, int]) -> None:
        """These blobs (row to size) are no longer part of the repository."""
        for quota in await self._quotas(tx, repo) if sizes else ():
            left = await usage.held(tx, quota.namespace, sizes.keys())
            await usage.add(tx, quota.namespace, -sum(size for blob, size in sizes.items() if blob not in left))

    async def manifests_gone(self, tx: Transaction, repo: RepositoryName, sizes: Collection[int]) -> None:
        for quota in await self._quotas(tx, repo) if sizes else ():
            await usage.add(tx, quota.namespace, -sum(sizes))

    async def _quotas(self, tx: Transaction, repo: RepositoryName) -> Collection[Quota]:
        return (await self._rules.book(tx)).quotas(repo)


async def _admit(tx: Transaction, quota: Quota, size: int) -> None:
    used = await usage.used(tx, quota.namespace)
    if used + size > quota.limit:
        raise QuotaExceeded(quota, used, size)


async def _charge(tx: Transaction, quota: Quota, size: int) -> None:
    await _admit(tx, quota, size)
    await usage.add(tx, quota.namespace, size)
