"""The keys of our own bearer tokens: made at the first start, kept in the database, so that every worker and replica
signs and checks with the same ones; changed by `rotate`, without a token becoming void before its time."""

import json
import logging
from datetime import timedelta

from joserfc.jwk import OKPKey

from storage.metadata import accounts, topics
from storage.metadata import signing_keys as rows
from storage.metadata.engine import Database, Transaction
from storage.metadata.signing_keys import TOPIC, KeyRow

ALGORITHM = "Ed25519"
"""RFC 9864's name; short keys and signatures, no random number needed to sign."""

log = logging.getLogger(__name__)


class Keyring:
    """`lifetime`: of the longest-lived token; a retired key is forgotten twice that later."""

    def __init__(self, database: Database, lifetime: timedelta) -> None:
        self._database = database
        self._lifetime = lifetime
        self._mark: int | None = None
        self._keys: dict[str, OKPKey] = {}
        self._newest = ""

    async def prepare(self) -> None:
        """Make the first key when there is none, and read them."""
        async with self._database.write() as tx:
            if not await rows.all_rows(tx):
                await self.make(tx)
        await self.refresh()

    async def rotate(self, *, revoke: bool = False) -> str:
        """Sign with a new key from now on; gives its name. `revoke`: what the old ones signed is void at once."""
        now = self._database.now()
        async with self._database.write() as tx:
            kid = await self.make(tx)
            await rows.retire(tx, kid, now, now + self._lifetime if revoke else now - 2 * self._lifetime)
            if revoke:
                await topics.outdate(tx, accounts.TOPIC)  # tokens that were found good are remembered under it
        await self.refresh()
        return kid

    async def refresh(self) -> None:
        """Read them again if they have changed."""
        mark = self._database.changes.mark(f"!{TOPIC}")
        if self._keys and mark is not None and mark == self._mark:
            return
        async with self._database.read() as tx:
            found = [row for row in await rows.all_rows(tx) if row.algorithm == ALGORITHM]
        self._keys = {row.kid: OKPKey.import_key(json.loads(row.private)) for row in found}
        self._newest = next((row.kid for row in found if row.retired is None), "")
        self._mark = mark

    def signing(self) -> tuple[str, OKPKey]:
        return self._newest, self._keys[self._newest]

    def checking(self, kid: str) -> OKPKey | None:
        """The key itself: what a token says about keys (`jwk`, `x5c`, `jku`) is not looked at."""
        return self._keys.get(kid)

    async def make(self, tx: Transaction) -> str:
        """A new key, in a transaction that is open; gives its name."""
        key = OKPKey.generate_key("Ed25519")
        kid = key.thumbprint()[:16]
        private = json.dumps(key.as_dict(private=True))
        await rows.insert(tx, KeyRow(kid, ALGORITHM, private, self._database.now(), None))
        return kid
