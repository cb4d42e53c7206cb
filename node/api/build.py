"""`POST /build`: what clients call the classic builder, and `POST /build/prune`."""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from node.api import progress
from node.api.answers import reply
from node.api.call import Call, InvalidQuery
from node.api.filters import parse_prune
from node.api.parts import BuildsImages
from node.api.progress import Lines
from node.api.types.auth import parse_auth, registry_host
from node.api.types.fields import Fields
from node.api.types.limits import parse_limits
from node.build.values import Request, RunLimits
from node.dockerfile.document import MAX_FILE
from node.dockerfile.stages import Options
from node.events import Event, EventBus
from node.images.archive.download import download
from ocispec.descriptor import Platform
from ocispec.errors import Unimplemented
from ocispec.reference import Reference
from storage.remote.auth import Credentials

_REFUSED = {"squash": "squashing layers", "outputs": "outputs other than an image", "session": "sessions"}
_GIT = ("git://", "git@", "github.com/")


class BuildRoutes:
    def __init__(self, builds: BuildsImages, events: EventBus) -> None:
        self._builds = builds
        self._events = events

    async def build(self, call: Call) -> web.StreamResponse:
        """The answer is a stream of JSON lines; a mistake in the request gets a status of its own."""
        request = _request(call)
        name = call.text("dockerfile") or "Dockerfile"
        quiet = call.flag("q")

        async def build(lines: Lines) -> None:
            if call.text("cachefrom") not in ("", "[]", "null") and not quiet:
                lines.stream("[Warning] cache-from is not used: this builder knows its own steps alone\n")
            async with AsyncExitStack() as stack:
                whole = await self._with_files(call, request, name, stack)
                said = Quiet() if quiet else lines
                image = await self._builds.build(whole, said)
            if quiet:
                lines.stream(f"{image}\n")
            for tag in request.tags:
                self._events.publish(Event("image", "tag", str(image), {"name": tag.with_default_tag().familiar()}))

        return await progress.stream(call.request, build)

    async def _with_files(self, call: Call, request: Request, name: str, stack: AsyncExitStack) -> Request:
        remote = call.text("remote")
        if not remote or remote == "client-session":
            return await self._of_archive(call.stream(), request, name, stack)
        if remote.startswith(_GIT) or remote.partition("#")[0].endswith(".git"):
            raise Unimplemented(f"building from the git repository {remote[:200]} is not supported yet")
        body = await stack.enter_async_context(download(remote))
        head = await _head(body)
        if _is_text(head):
            return replace(request, dockerfile=await _text(head, body), context=None)
        return await self._of_archive(_joined(head, body), request, name, stack)

    async def _of_archive(self, body: AsyncIterator[bytes], request: Request, name: str,
                          stack: AsyncExitStack) -> Request:  # fmt: skip
        context: Path = await stack.enter_async_context(self._builds.context(body))
        return replace(request, dockerfile=await self._builds.dockerfile(context, name), context=context,
                       hidden=await self._builds.hidden(context, name))

    async def prune(self, call: Call) -> web.StreamResponse:
        query, more = parse_prune(call.text("filters"), others=("all", "id", "type", "inuse"))
        for name, only in (("type", {"regular"}), ("inuse", {"0", "false"})):
            if set(more.get(name, only)) - only:
                raise InvalidQuery(f"a build cache holds nothing whose {name} is {more[name][0][:50]}")
        if query.labels or query.not_labels:
            raise InvalidQuery("a build cache has no labels to filter by")
        keep = call.number("keep-storage") or call.number("reserved-space") or 0
        before = datetime.fromtimestamp(query.until / 10**9, UTC) if query.until else None
        gone, freed = await self._builds.prune(before=before, keep=keep, keys=more.get("id", ()))
        return reply({"CachesDeleted": list(gone) or None, "SpaceReclaimed": freed})


class Quiet:
    """Nothing is said."""

    async def ready(self) -> None: ...
    def stream(self, text: str) -> None: ...
    def aux(self, value: Mapping[str, Any]) -> None: ...
    def status(self, text: str, id: str = "") -> None: ...  # noqa: A002 - the wire's own name
    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None: ...  # noqa: A002


def _request(call: Call) -> Request:
    """Raises InvalidQuery, InvalidReference, Unimplemented."""
    for name, what in _REFUSED.items():
        if call.text(name) and call.text(name) not in ("0", "false", "[]", "null"):
            raise Unimplemented(f"{name}: {what} are not supported by this builder yet")
    if call.text("version") == "2":
        raise Unimplemented("version 2 of the builder (BuildKit) is not supported yet: set DOCKER_BUILDKIT=0")
    if call.text("isolation") not in ("", "default"):
        raise InvalidQuery(f"isolation {call.text('isolation')[:50]!r} is not one of Linux's")
    platform = call.text("platform")
    return Request(
        dockerfile=b"",
        context=None,
        options=Options(target=call.text("target"), build_args=_mapping(call, "buildargs")),
        tags=tuple(_tag(text) for text in call.texts("t")),
        labels=_mapping(call, "labels"),
        platform=Platform.parse(platform) if platform else None,
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        limits=RunLimits(
            parse_limits(_limits(call)),
            call.text("networkmode") or "default",
            tuple(filter(None, call.text("extrahosts").split(","))),
            call.text("cgroupparent"),
            tuple(_listed(call, "securityopt")),
        ),
        credentials=_credentials(call.request.headers.get("X-Registry-Config", "")),
        keep_failed=not (call.flag("forcerm") or call.flag("rm", default=True)),
    )


def _tag(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise InvalidQuery(f"invalid tag {text[:200]!r}: a name by digest cannot be given")
    return reference


def _limits(call: Call) -> Fields:
    """The query's names as those of HostConfig."""
    numbers = {"Memory": "memory", "MemorySwap": "memswap", "CpuShares": "cpushares", "CpuPeriod": "cpuperiod",
               "CpuQuota": "cpuquota", "ShmSize": "shmsize"}  # fmt: skip
    held: dict[str, Any] = {field: call.number(name) for field, name in numbers.items() if call.number(name)}
    held |= {field: call.text(name) for field, name in (("CpusetCpus", "cpusetcpus"), ("CpusetMems", "cpusetmems"))}
    return Fields({**held, "Ulimits": _listed(call, "ulimits")})


def _json(call: Call, name: str) -> Any:
    try:
        return json.loads(call.text(name) or "null")
    except (ValueError, RecursionError) as error:
        raise InvalidQuery(f"{name} is not JSON") from error


def _mapping(call: Call, name: str) -> dict[str, str]:
    """A value of null means: as the builder's own environment says, which has none."""
    value = _json(call, name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str | None) for one in value.values()):
        raise InvalidQuery(f"{name} is no object of strings")
    return {key: one for key, one in value.items() if one is not None}


def _listed(call: Call, name: str) -> list[Any]:
    value = _json(call, name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidQuery(f"{name} is no list")
    return value


def _credentials(header: str) -> dict[str, Credentials]:
    """X-Registry-Config: of every registry that the client has a login for."""
    if not header:
        return {}
    try:
        document = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidQuery("invalid X-Registry-Config header: not base64url-encoded JSON") from error
    if not isinstance(document, dict):
        raise InvalidQuery("invalid X-Registry-Config header: not a JSON object")
    return {registry_host(host): parse_auth(Fields(value)) for host, value in document.items()
            if isinstance(value, dict)}


async def _head(body: AsyncIterator[bytes]) -> bytes:
    async for chunk in body:
        return chunk
    return b""


def _is_text(head: bytes) -> bool:
    """A Dockerfile and no archive."""
    return b"\0" not in head[:512] and not head.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd"))


async def _text(head: bytes, body: AsyncIterator[bytes]) -> bytes:
    text = head
    async for chunk in body:
        text += chunk
        if len(text) > MAX_FILE:
            raise InvalidQuery(f"the Dockerfile there has more than {MAX_FILE} bytes")
    return text


async def _joined(head: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in body:
        yield chunk
