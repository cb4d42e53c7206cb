"""A registry in this process: content by path, faults on demand, a record of what was asked."""

import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from ocispec import mediatype
from ocispec.digest import Digest


@dataclass
class FakeRegistry:
    """`broken_after`: a blob's answer breaks off after so many bytes, once a digest. `requires`: the Authorization
    header that is asked for; `seen` are those that came."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    broken_after: int = 0
    down: bool = False
    requests: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    host: str = ""
    _broken: set[str] = field(default_factory=set)

    def image(self, path: str, tag: str, *tars: bytes, architecture: str = "amd64", **config: object) -> Digest:
        digest = self.manifest(path, *tars, architecture=architecture, **config)
        kind, raw = self.manifests[f"{path}:{digest}"]
        self.manifests[f"{path}:{tag}"] = (kind, raw)
        return digest

    def index(self, path: str, tag: str, **images: Digest) -> Digest:
        children = []
        for architecture, digest in images.items():
            kind, raw = self.manifests[f"{path}:{digest}"]
            children.append({"mediaType": kind, "digest": str(digest), "size": len(raw),
                             "platform": {"os": "linux", "architecture": architecture}})
        raw = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children}).encode()
        digest = Digest.of(raw)
        self.manifests[f"{path}:{tag}"] = self.manifests[f"{path}:{digest}"] = (mediatype.OCI_INDEX, raw)
        return digest

    def manifest(self, path: str, *tars: bytes, architecture: str, **config: object) -> Digest:
        document = {"os": "linux", "architecture": architecture, "created": "2026-11-20T10:00:00Z", "config": config,
                    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar)) for tar in tars]}}
        layers = [self._blob(mediatype.OCI_LAYER_GZIP, gzip.compress(tar, 1, mtime=0)) for tar in tars]
        raw = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": layers,
                          "config": self._blob(mediatype.OCI_CONFIG, json.dumps(document).encode())}).encode()
        digest = Digest.of(raw)
        self.manifests[f"{path}:{digest}"] = (mediatype.OCI_MANIFEST, raw)
        return digest

    def _blob(self, kind: str, data: bytes) -> dict[str, object]:
        self.blobs[str(Digest.of(data))] = data
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        self.seen.append(request.headers.get("Authorization", ""))
        if self.down:
            raise web.HTTPServiceUnavailable
        path = request.path.removeprefix("/v2/")
        if path.endswith("/tags/list"):
            name = path.removesuffix("/tags/list")
            tags = sorted(key.removeprefix(f"{name}:") for key in self.manifests
                          if key.startswith(f"{name}:") and ":sha256" not in key)
            return web.json_response({"name": name, "tags": tags}) if tags else web.Response(status=404)
        if "/manifests/" in path:
            kind, raw = self.manifests.get(path.replace("/manifests/", ":"), ("", b""))
            return web.Response(body=raw, content_type=kind) if raw else web.Response(status=404)
        return await self._send(request, path.rpartition("/")[2])

    async def _send(self, request: web.Request, digest: str) -> web.StreamResponse:
        if digest not in self.blobs:
            return web.Response(status=404)
        data, begin = self.blobs[digest], 0
        if wanted := request.headers.get("Range"):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.requests[-1] += f" {begin}"
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(data) - begin
        if begin:
            response.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        if self.broken_after and digest not in self._broken and len(data) > self.broken_after:
            self._broken.add(digest)
            await response.write(data[begin:begin + self.broken_after])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[begin:])
        return response


@contextlib.asynccontextmanager
async def serving(registry: FakeRegistry) -> AsyncIterator[FakeRegistry]:
    app = web.Application()
    app.router.add_get("/v2/{path:.*}", registry.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    registry.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield registry
    finally:
        await runner.cleanup()
