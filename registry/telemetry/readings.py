"""Numbers that are looked up when somebody asks for the metrics."""

import platform
from collections.abc import Sequence
from importlib import metadata

from ocispec.errors import SeawallError
from registry.telemetry import exposition
from registry.telemetry.exposition import Reading
from storage.metadata import uploads
from storage.metadata import webhooks as hooks
from storage.metadata.engine import Database


class Readings:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._build = Reading(exposition.BUILD.name, 1, (
            ("version", _version()), ("python", platform.python_version())))

    async def read(self) -> Sequence[Reading]:
        """Without those of the database when it does not answer: the others are wanted then more than ever."""
        try:
            return [self._build, *await self._stored()]
        except SeawallError:
            return [self._build]

    async def _stored(self) -> Sequence[Reading]:
        now = self._database.now()
        async with self._database.read() as tx:
            found = [Reading(exposition.UPLOADS.name, await uploads.count(tx))]
            for state in await hooks.backlogs(tx):
                endpoint = (("endpoint", state.name),)
                age = (now - state.oldest).total_seconds() if state.oldest else 0.0
                found += [Reading(exposition.QUEUE.name, state.waiting, endpoint),
                          Reading(exposition.AGE.name, max(age, 0.0), endpoint),
                          Reading(exposition.DEAD.name, state.dead, endpoint)]
        return found


def _version() -> str:
    try:
        return metadata.version("seawall")
    except metadata.PackageNotFoundError:
        return "unknown"
