"""What the image room remembers: how large layers are when unpacked, and which downloads may be taken up again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from node.state.database import State
from node.state.tables import downloads, layer_sizes
from ocispec.digest import Digest
from ocispec.reference import RepositoryName


class LayerSizeRows:
    """Bytes of the files of a layer, by diff_id. Kept when the layer goes: a size never changes."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def put(self, diff_id: Digest, size: int) -> None:
        async with self._state.write() as connection:
            statement = insert(layer_sizes).values(diff_id=str(diff_id), size=size)
            await connection.execute(statement.on_conflict_do_nothing())

    async def get(self, diff_ids: Iterable[Digest]) -> Mapping[Digest, int]:
        wanted = {str(diff_id): diff_id for diff_id in diff_ids}
        found: dict[Digest, int] = {}
        async with self._state.read() as connection:
            # One statement binds so many values; an image of more layers cannot be mounted anyway.
            statement = select(layer_sizes).where(layer_sizes.c.diff_id.in_(list(wanted)[:1000]))
            for row in await connection.execute(statement):
                found[wanted[row.diff_id]] = row.size
        return found


@dataclass(frozen=True, slots=True)
class Download:
    """An upload session of the content store that a pull began for this blob."""

    repository: RepositoryName
    upload_id: str


class DownloadRows:
    def __init__(self, state: State) -> None:
        self._state = state

    async def get(self, digest: Digest) -> Download | None:
        async with self._state.read() as connection:
            row = (await connection.execute(select(downloads).where(downloads.c.digest == str(digest)))).one_or_none()
        return None if row is None else Download(RepositoryName(row.repository), row.upload_id)

    async def put(self, digest: Digest, download: Download) -> None:
        values = {"repository": str(download.repository), "upload_id": download.upload_id}
        statement = insert(downloads).values(digest=str(digest), **values)
        async with self._state.write() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=values))

    async def drop(self, digest: Digest) -> None:
        async with self._state.write() as connection:
            await connection.execute(delete(downloads).where(downloads.c.digest == str(digest)))
