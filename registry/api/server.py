"""aiohttp's HTTP/1.1 server with our limits."""

import logging

from aiohttp import web

from registry.api.accesslog import JsonAccessLog
from registry.api.edge import Edge
from registry.api.lane import ManifestLane
from registry.api.routes import routes
from registry.auth.policy import Access
from registry.settings import LimitSettings
from storage.repository.store import ContentStore

access = logging.getLogger("registry.access")

READ_BUFFER = 512 * 1024
"""Bytes of a request body that wait in memory before the client is held back (twice as many at most)."""

LINGER = 5.0
"""Seconds for which the rest of a refused body is read and dropped, so that the client sees the answer at all."""


def make_server(content: ContentStore, grants: Access, limits: LimitSettings, *, access_log: bool) -> web.Server:
    """For one event loop; it must be running."""
    edge = Edge(routes(content, limits), ManifestLane(content.manifests, grants), grants, limits.send_timeout)
    return web.Server(
        edge,
        keepalive_timeout=limits.idle_timeout,
        read_bufsize=READ_BUFFER,
        lingering_time=LINGER,
        auto_decompress=False,  # bytes are stored as they came; and nobody unpacks a bomb here
        access_log=access if access_log else None,
        access_log_class=JsonAccessLog,
    )
