"""Between the node and registries: pull, push, login, search."""

from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from node.api import progress
from node.api.answers import reply
from node.api.call import Call, InvalidQuery
from node.api.dispatch import Handler
from node.api.filters import parse_filters
from node.api.parts import ImageExchange, Searches
from node.api.progress import Lines
from node.api.types.auth import parse_auth, parse_header, read_header, registry_host
from node.api.types.imageparts import parse_platform
from node.api.types.imageparts import platform as platform_view
from node.api.version import ApiVersion
from node.events import Event, EventBus
from ocispec.descriptor import Platform
from ocispec.errors import FailedPrecondition, InvalidArgument
from ocispec.reference import Reference, Tag
from storage.remote.search import Found

_PUSHES_PLATFORM = ApiVersion(1, 46)
MAX_FOUND = 100
_SEARCH_FILTERS = frozenset({"is-official", "is-automated", "stars"})


class NoSearchRegistry(FailedPrecondition):
    """A search names no registry and the node has no default one."""


class TransferRoutes:
    def __init__(
        self,
        exchange: ImageExchange,
        searches: Searches,
        events: EventBus,
        imports: Handler,
        *,
        search_registry: str,
    ) -> None:
        self._exchange = exchange
        self._searches = searches
        self._events = events
        self._imports = imports
        self._search_registry = search_registry

    async def create(self, call: Call) -> web.StreamResponse:
        """`POST /images/create`: a pull, or with `fromSrc` an import."""
        if call.text("fromSrc"):
            return await self._imports(call)
        reference = _pulled(call.text("fromImage"), call.text("tag"))
        every = not call.text("tag") and reference.tag is None and reference.digest is None
        platform = Platform.parse(call.text("platform")) if call.text("platform") else None
        auth = read_header(call.request.headers.get("X-Registry-Auth", ""))

        async def pull(lines: Lines) -> None:
            if every:  # docker pull -a
                for image in await self._exchange.pull_all(reference, platform=platform, auth=auth, progress=lines):
                    self._tell("pull", str(image.id), reference)
                return
            image = await self._exchange.pull(reference, platform=platform, auth=auth, progress=lines)
            self._tell("pull", str(image.id), reference)

        return await progress.stream(call.request, pull)

    async def push(self, call: Call) -> web.StreamResponse:
        platform = parse_platform(call.text("platform")) if call.version >= _PUSHES_PLATFORM else None
        name, tag = call.path["name"], call.text("tag")
        auth = read_header(call.request.headers.get("X-Registry-Auth", ""))
        # Without a tag (`docker push -a`) every tag of the repository that the node has.
        reference = Reference.parse(name)
        if tag:
            reference = replace(reference, tag=Tag.parse(tag))

        async def push(lines: Lines) -> None:
            await self._exchange.push(reference, platform=platform, auth=auth, progress=lines)
            self._tell("push", reference.familiar_name, reference)

        return await progress.stream(call.request, push)

    async def distribution(self, call: Call) -> web.StreamResponse:
        """What a registry says of an image, without pulling it."""
        auth = parse_header(call.request.headers.get("X-Registry-Auth", ""))
        found = await self._exchange.distribution(Reference.parse(call.path["name"]), auth=auth)
        return reply({
            "Descriptor": found.descriptor.to_json(),
            "Platforms": [platform_view(one) for one in found.platforms],
        })

    async def login(self, call: Call) -> web.StreamResponse:
        body = await call.fields()
        credentials = parse_auth(body)
        if credentials.empty:
            raise InvalidArgument("no credentials: username and password, or an identity token, are needed")
        await self._exchange.check_login(registry_host(body.text("serveraddress")), credentials)
        return reply({"IdentityToken": "", "Status": "Login Succeeded"})

    async def search(self, call: Call) -> web.StreamResponse:
        term, limit = call.text("term"), call.number("limit")
        filters = parse_filters(call.text("filters"))
        limit = 25 if limit is None or limit == 0 else limit
        if not term:
            raise InvalidQuery("no search term was given")
        if not 0 < limit <= MAX_FOUND:
            raise InvalidQuery(f"limit {limit} is outside the range of [1, {MAX_FOUND}]")
        for name in filters:
            if name not in _SEARCH_FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        host, rest, prefix = self._where(term)
        auth = parse_header(call.request.headers.get("X-Registry-Auth", ""))
        found = await self._searches.search(host, rest, limit=limit, auth=auth)
        kept = [item for item in found if _passes(item, filters)]
        return reply([
            {
                "star_count": item.stars,
                "is_official": item.official,
                "name": prefix + item.name,
                "is_automated": item.automated,
                "description": item.description,
            }
            for item in kept
        ])

    def _where(self, term: str) -> tuple[str, str, str]:
        """The registry to ask, what to ask it, and what to put before the names it answers, so that they can be
        pulled as they are printed."""
        first, slash, rest = term.partition("/")
        if slash and (any(c in first for c in ".:") or first == "localhost"):
            return first, rest, f"{first}/"
        if not self._search_registry:
            raise NoSearchRegistry(
                f"no registry to search for '{term[:100]}': name one (HOST[:PORT]/{term[:100]}) or start seawalld "
                "with --search-registry"
            )
        return self._search_registry, term, f"{self._search_registry}/"

    def _tell(self, action: str, actor: str, reference: Reference) -> None:
        name = reference.with_default_tag().familiar()
        self._events.publish(Event("image", action, actor, {"name": name}))


def _pulled(name: str, tag: str) -> Reference:
    if not name:
        raise InvalidQuery("fromImage must name an image")
    return Reference.parse(f"{name}{'@' if ':' in tag else ':'}{tag}" if tag else name)


def _passes(item: Found, values: Mapping[str, tuple[str, ...]]) -> bool:
    for stars in values.get("stars", ()):
        if not stars.isascii() or not stars.isdigit():
            raise InvalidArgument(f"invalid filter 'stars={stars}'")
        if item.stars < int(stars[:18]):
            return False
    for name, value in (("is-official", item.official), ("is-automated", item.automated)):
        for wanted in values.get(name, ()):
            if (wanted.lower() in ("true", "1")) != value:
                return False
    return True
