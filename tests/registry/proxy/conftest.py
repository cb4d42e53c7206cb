"""Upstreams: a scripted one that does what a test says, and ways to configure a registry that pulls through."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from ocispec import mediatype
from ocispec.digest import Digest
from registry.settings import ProxySettings, Settings, UpstreamSettings

Respond = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Hostile:
    """A registry that serves `content` (path → type and bytes), unless a path has a handler in `script`. It counts."""

    url: str = ""
    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    script: dict[str, Respond] = field(default_factory=dict)
    every: Respond | None = None
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    pause_after: int | None = None

    def blob(self, repo: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.content[f"/v2/{repo}/blobs/{digest}"] = ("application/octet-stream", data)
        return digest

    def manifest(self, repo: str, tag: str, raw: bytes, kind: str = mediatype.OCI_MANIFEST) -> Digest:
        digest = Digest.of(raw)
        for reference in filter(None, (tag, str(digest))):
            self.content[f"/v2/{repo}/manifests/{reference}"] = (kind, raw)
        return digest

    def image(self, repo: str, tag: str, layer: bytes = b"layer", config: bytes = b"{}", **fields: Any) -> Digest:
        return self.manifest(repo, tag, json.dumps({
            "schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "size": len(config), "digest": str(self.blob(repo, config))},
            "layers": [{"mediaType": mediatype.OCI_LAYER, "size": len(layer), "digest": str(self.blob(repo, layer))}],
            **fields}).encode())

    def count(self, method: str, ending: str) -> int:
        return sum(times for (used, path), times in self.seen.items() if used == method and path.endswith(ending))

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen[request.method, request.path] += 1
        self.headers.append(dict(request.headers))
        if self.every is not None:
            return await self.every(request)
        scripted = self.script.get(request.path)
        if scripted is not None:
            return await scripted(request)
        return await self.serve(request)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        found = self.content.get(request.path)
        if found is None:
            return web.json_response({"errors": [{"code": "UNKNOWN", "message": "not here"}]}, status=404)
        kind, data = found
        headers = {"Content-Type": kind, "Docker-Content-Digest": str(Digest.of(data)), "X-Ms-Copy-Source": "secret"}
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in request.headers else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(data) - start
        await response.prepare(request)
        if request.method != "HEAD":
            for first in range(start, len(data), 64 * 1024):
                if self.pause_after is not None and first >= self.pause_after:
                    await self.gate.wait()
                await response.write(data[first : first + 64 * 1024])
        await response.write_eof()
        return response


@asynccontextmanager
async def hostile_server(port: int = 0) -> AsyncIterator[Hostile]:
    hostile = Hostile()
    runner = web.ServerRunner(web.Server(hostile.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    hostile.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    try:
        yield hostile
    finally:
        hostile.gate.set()
        await runner.cleanup()


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    async with hostile_server() as running:
        yield running


def upstream(url: str, **changes: Any) -> UpstreamSettings:
    return replace(UpstreamSettings(name="up.test", url=url, allow_private=True, tag_ttl=0.0, missing_ttl=0.0), **changes)


@pytest.fixture
def through(serve, settings: Settings):
    """`async with through(url, **upstream settings) as api`: a registry that pulls through from there."""

    def start(*urls: str, upstreams: tuple[UpstreamSettings, ...] = (), unused_after: float = 1e6, **changes: Any):
        made = upstreams or tuple(upstream(url, **changes) for url in urls)
        return serve(replace(settings, upstreams=made, proxy=ProxySettings(unused_after=unused_after)))

    return start
