"""Images as archives, and images made of containers: save, load, import, commit."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from node.api import progress
from node.api.answers import reply
from node.api.archives import TAR, send_tar
from node.api.call import Call, InvalidQuery
from node.api.parts import Commits, ImageArchives
from node.api.progress import Lines
from node.api.streams import connection_of
from node.api.types.imageconfig import parse_config
from node.api.types.imageparts import parse_platform
from node.containers import clock
from node.containers.commit import CommitSpec
from node.dockerfile.changes import apply
from node.events import Event, EventBus
from node.images.archive.download import download
from node.images.archive.making import Recipe
from node.images.progress import Progress, Silent
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.reference import Reference


class ImageFileRoutes:
    def __init__(self, archives: ImageArchives, commits: Commits, events: EventBus) -> None:
        self._archives = archives
        self._commits = commits
        self._events = events

    async def save(self, call: Call) -> web.StreamResponse:
        return await self._save(call, [call.path["name"]])

    async def save_all(self, call: Call) -> web.StreamResponse:
        names = [name for text in call.texts("names") for name in text.split(",") if name]
        if not names:
            raise InvalidQuery("no images to save: names must be given")
        return await self._save(call, names)

    async def _save(self, call: Call, names: Sequence[str]) -> web.StreamResponse:
        wanted = await self._archives.choose(names, parse_platform(call.text("platform")))
        for name in names:
            self._tell("save", name, name)
        stream = _Plain(self._archives.save(wanted))
        return await connection_of(call.request).while_here(send_tar(call.request, stream, {}, content_type=TAR))

    async def load(self, call: Call) -> web.StreamResponse:
        platform = parse_platform(call.text("platform"))
        quiet = call.flag("quiet")

        async def load(lines: Lines) -> None:
            told: Progress = Silent() if quiet else lines
            for image in await self._archives.load(call.stream(), told, platform):
                for name in image.names:
                    lines.stream(f"Loaded image: {name}\n")
                if not image.names:
                    lines.stream(f"Loaded image ID: {image.id}\n")
                self._tell("load", str(image.id), image.names[0] if image.names else str(image.id))

        return await progress.stream(call.request, load)

    async def take_in(self, call: Call) -> web.StreamResponse:
        """`POST /images/create` with `fromSrc`: docker import."""
        source, target = call.text("fromSrc"), _target(call)
        message = call.text("message") or f"Imported from {source}"
        config, platform = apply({}, call.texts("changes")), call.text("platform")
        created = clock.now()
        recipe = Recipe(created, config, {"created": created, "comment": message}, comment=message)

        async def take(lines: Lines) -> None:
            if source != "-":
                lines.status(f"Downloading from {source}")
            async with _source(call, source) as body:
                wanted = Platform.parse(platform) if platform else None
                image = await self._archives.from_tar(body, recipe, target, wanted)
            lines.status(str(image))
            self._named("import", image, target)

        return await progress.stream(call.request, take)

    async def commit(self, call: Call) -> web.StreamResponse:
        target = _target(call)
        spec = CommitSpec(
            call.text("container"),
            target,
            call.text("author"),
            call.text("comment"),
            pause=call.flag("pause", default=True),
            config=parse_config(await call.fields()),
            changes=tuple(call.texts("changes")),
        )
        image = await connection_of(call.request).while_here(self._commits.commit(spec))
        if target is not None:
            self._named("tag", image, target)
        return reply({"Id": str(image)}, 201)

    def _named(self, action: str, image: Digest, target: Reference | None) -> None:
        self._tell(action, str(image), target.with_default_tag().familiar() if target else str(image))

    def _tell(self, action: str, actor: str, name: str) -> None:
        self._events.publish(Event("image", action, actor, {"name": name}))


class _Plain:
    """A stream whose end says nothing more."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def chunks(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def done(self) -> None:
        pass


@asynccontextmanager
async def _source(call: Call, source: str) -> AsyncIterator[AsyncIterator[bytes]]:
    if source == "-":
        yield call.stream()
        return
    async with download(source) as body:
        yield body


def _target(call: Call) -> Reference | None:
    """`repo` and `tag`. Raises InvalidReference, InvalidQuery."""
    repository, tag = call.text("repo"), call.text("tag")
    if not repository:
        return None
    reference = Reference.parse(f"{repository}:{tag}" if tag else repository)
    if reference.digest is not None:
        raise InvalidQuery("cannot use digest reference")
    return reference
