"""Every operation of the registry on one screen."""

from collections.abc import Mapping

from registry.api.admin.administration import Administration
from registry.api.admin.endpoints import AdminEndpoints
from registry.api.base import BaseEndpoints
from registry.api.blobs import BlobEndpoints
from registry.api.bodies import Bodies
from registry.api.call import Handler
from registry.api.listings import ListingEndpoints
from registry.api.login import LoginEndpoints
from registry.api.manifests import ManifestEndpoints
from registry.api.operations import OperationEndpoints
from registry.api.paths import Endpoint
from registry.api.proxied import ProxiedEndpoints
from registry.api.reached import Reached
from registry.api.search import SearchEndpoints
from registry.api.sendfile import FileSender
from registry.api.tokens import TokenEndpoints
from registry.api.uploads import UploadEndpoints
from registry.auth.token_service import TokenService
from registry.proxy.service import PullThrough
from registry.settings import Settings
from storage.repository.store import ContentStore

Routes = Mapping[Endpoint, Mapping[str, Handler]]
"""Endpoint and method to handler."""


def proxied(content: ContentStore, settings: Settings, proxy: PullThrough) -> ProxiedEndpoints | None:
    """What answers for repositories of upstreams; None without upstreams."""
    if not proxy.upstreams:
        return None
    limits = settings.limits
    return ProxiedEndpoints(
        proxy, BlobEndpoints(content.blobs, FileSender(limits.send_timeout), limits.send_timeout),
        ManifestEndpoints(content.manifests, content.tags, content.pulls, Bodies(limits.receive_timeout),
                          limits.tags_per_push, settings.manifests),
        content.pulls, limits.page_size, limits.send_timeout)


def routes(content: ContentStore, administration: Administration, settings: Settings,
           operations: OperationEndpoints, tokens: TokenService | None = None,
           login: LoginEndpoints | None = None) -> Routes:
    limits = settings.limits
    bodies = Bodies(limits.receive_timeout)
    sender = FileSender(limits.send_timeout)
    base = BaseEndpoints(content.tags)
    blobs = BlobEndpoints(content.blobs, sender, limits.send_timeout)
    uploads = UploadEndpoints(content.uploads, content.blobs, bodies, settings.uploads, limits.blob_bytes)
    manifests = ManifestEndpoints(content.manifests, content.tags, content.pulls, bodies, limits.tags_per_push,
                                  settings.manifests)
    listings = ListingEndpoints(content.tags, content.referrers, limits.page_size)
    search = SearchEndpoints(content.tags)
    admin = AdminEndpoints(administration, bodies)
    issuing = TokenEndpoints(tokens, bodies)
    login = login or LoginEndpoints(None, None, Reached(settings.proxies), 0)
    return {
        Endpoint.BASE: {"GET": base.check, "HEAD": base.check},
        Endpoint.BLOB: {"GET": blobs.get, "HEAD": blobs.head, "DELETE": blobs.delete},
        Endpoint.UPLOADS: {"POST": uploads.post},
        Endpoint.UPLOAD: {"GET": uploads.get, "HEAD": uploads.get, "PATCH": uploads.patch, "PUT": uploads.put,
                          "DELETE": uploads.delete},
        Endpoint.MANIFEST: {"GET": manifests.get, "HEAD": manifests.get, "PUT": manifests.put,
                            "DELETE": manifests.delete},
        Endpoint.TAGS: {"GET": listings.tags, "HEAD": listings.tags},
        Endpoint.REFERRERS: {"GET": listings.referrers, "HEAD": listings.referrers},
        Endpoint.CATALOG: {"GET": listings.catalog, "HEAD": listings.catalog},
        Endpoint.PING: {"GET": search.ping, "HEAD": search.ping},
        Endpoint.SEARCH: {"GET": search.search, "HEAD": search.search},
        Endpoint.TOKEN: {"GET": issuing.get, "POST": issuing.post},
        Endpoint.EXTENSIONS: {"GET": base.extensions, "HEAD": base.extensions},
        Endpoint.HEALTH: {"GET": base.health, "HEAD": base.health},
        Endpoint.ADMIN: dict.fromkeys(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"), admin.handle),
        Endpoint.LIVE: {"GET": operations.live, "HEAD": operations.live},
        Endpoint.READY: {"GET": operations.ready, "HEAD": operations.ready},
        Endpoint.METRICS: {"GET": operations.metrics},
        Endpoint.LOGIN: {"GET": login.begin},
        Endpoint.CALLBACK: {"GET": login.finish},
        Endpoint.LOGOUT: {"POST": login.end},
    }
