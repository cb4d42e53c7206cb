"""Whether a blob store takes bytes."""

import time

from storage.blobs.store import BlobStore


class StoreProbe:
    """`believed`: seconds for which a success is not tried again, because each try costs the store a few calls."""

    def __init__(self, blobs: BlobStore, believed: float = 30.0) -> None:
        self._blobs = blobs
        self._believed = believed
        self._succeeded = float("-inf")

    async def check(self) -> None:
        """Writes a byte and removes it. Raises what the store raises."""
        if time.monotonic() - self._succeeded < self._believed:
            return
        writer = await self._blobs.create()
        try:
            await writer.write([b"\0"])
        finally:
            await writer.close()
            await self._blobs.delete(writer.key)
        self._succeeded = time.monotonic()
