"""The members of an archive that was taken apart: found by the name they had in it, through links, and read whole when
they are small. Names are only compared, never given to the file system."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from node.images.archive.errors import NotAnArchive
from ocispec.digest import Digest

MAX_DOCUMENT = 8 * 1024 * 1024
MAX_DOCUMENTS = 32 * 1024 * 1024
"""Of all that is read of one archive, however often: parsed it takes a multiple of that."""

_MAX_LINKS = 40
_CHUNK = 1024 * 1024


class Spool:
    """`folder` holds the numbered files. Of two members with one name the later counts, as in tar."""

    def __init__(self, folder: Path, members: Sequence[Any]) -> None:
        self._folder = folder
        self._left = MAX_DOCUMENTS
        self._members: dict[str, Any] = {clean(member.name): member for member in members}

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def get(self, name: str) -> Any:
        """The regular file behind a name. Raises NotAnArchive."""
        found = self._find(name)
        if found is None:
            raise NotAnArchive(f"the archive has no {name[:200]!r}")
        return found

    def blob(self, digest: Digest) -> Any:
        """A member of an OCI layout by its digest, which its bytes have. Raises NotAnArchive."""
        member = self.get(f"blobs/{digest.algorithm}/{digest.encoded}")
        if digest.algorithm == "sha256" and member.digest != digest.encoded:
            raise NotAnArchive(f"the archive's bytes of {digest} have the digest sha256:{member.digest}")
        return member

    async def read(self, name: str) -> bytes:
        """A small file. Raises NotAnArchive."""
        return await self.bytes_of(self.get(name))

    async def bytes_of(self, member: Any) -> bytes:
        if member.size > MAX_DOCUMENT:
            raise NotAnArchive(f"{member.name[:200]!r} has {member.size} bytes, more than {MAX_DOCUMENT}")
        self._left -= member.size
        if self._left < 0:
            raise NotAnArchive(f"the archive's manifests and configurations have more than {MAX_DOCUMENTS} bytes")
        return b"".join([chunk async for chunk in self.chunks(member)])

    async def document(self, name: str) -> Any:
        """A JSON file. Raises NotAnArchive."""
        try:
            return json.loads(await self.read(name))
        except (ValueError, RecursionError) as error:
            raise NotAnArchive(f"{name[:200]!r} is not JSON: {error}") from error

    async def chunks(self, member: Any) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread((self._folder / member.file).open, "rb")
        try:
            while data := await asyncio.to_thread(file.read, _CHUNK):
                yield data
        finally:
            file.close()

    def _find(self, name: str) -> Any:
        path = clean(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(path)
            if member is None or member.kind == "file":
                return member
            above = path.rpartition("/")[0] if member.kind == "symlink" and not member.link.startswith("/") else ""
            path = clean(f"{above}/{member.link}")
        return None


def clean(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
