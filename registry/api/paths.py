"""Which operation a path names. Repository names contain slashes, so paths are read from their end."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import unquote


class Endpoint(Enum):
    """What a path leads to (the numbers of the distribution-spec's table of endpoints)."""

    BASE = auto()  # end-1
    BLOB = auto()  # end-2, end-10
    MANIFEST = auto()  # end-3, end-7, end-9
    UPLOADS = auto()  # end-4, end-11
    UPLOAD = auto()  # end-5, end-6, end-13, end-14
    TAGS = auto()  # end-8
    REFERRERS = auto()  # end-12
    CATALOG = auto()
    PING = auto()
    SEARCH = auto()
    HEALTH = auto()
    TOKEN = auto()  # distribution's token specification
    EXTENSIONS = auto()  # extensions/_oci.md of the distribution-spec
    ADMIN = auto()
    LIVE = auto()
    READY = auto()
    METRICS = auto()
    LOGIN = auto()
    CALLBACK = auto()
    LOGOUT = auto()

    @property
    def label(self) -> str:
        """As metrics, traces and log lines name it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Target:
    """`name` (repository) and `value` (digest, tag or upload id; below a prefix, the rest of the path) are as the
    client wrote them: unchecked."""

    endpoint: Endpoint
    name: str = ""
    value: str = ""


_FIXED = {
    "/v2/": Target(Endpoint.BASE),
    "/v2": Target(Endpoint.BASE),
    "/v2/_catalog": Target(Endpoint.CATALOG),
    "/v1/_ping": Target(Endpoint.PING),
    "/v1/search": Target(Endpoint.SEARCH),
    "/healthz": Target(Endpoint.HEALTH),
    "/token": Target(Endpoint.TOKEN),
    "/v2/_oci/ext/discover": Target(Endpoint.EXTENSIONS),
    "/livez": Target(Endpoint.LIVE),
    "/readyz": Target(Endpoint.READY),
    "/metrics": Target(Endpoint.METRICS),
    "/login": Target(Endpoint.LOGIN),
    "/login/callback": Target(Endpoint.CALLBACK),
    "/logout": Target(Endpoint.LOGOUT),
}
_BELOW: Mapping[str, Endpoint] = {"/api/v1/": Endpoint.ADMIN}
"""Whole trees of paths, by prefix: their endpoint group reads the rest."""

_BY_WORD = {"blobs": Endpoint.BLOB, "manifests": Endpoint.MANIFEST, "referrers": Endpoint.REFERRERS}


def parse(raw: str) -> Target | None:
    """The operation that a request target (without its query) names; None when it is none of ours."""
    path = unquote(raw) if "%" in raw else raw
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    head, _, rest = path.partition("/v2/")
    return _below(path) if head else _repository(rest.split("/"))


def _below(path: str) -> Target | None:
    for prefix, endpoint in _BELOW.items():
        if path.startswith(prefix):
            return Target(endpoint, value=path.removeprefix(prefix))
    return None


def _repository(parts: list[str]) -> Target | None:
    match parts:
        case [*name, "blobs", "uploads", ""] if name:
            return Target(Endpoint.UPLOADS, "/".join(name))
        case [*name, "blobs", "uploads"] if name:
            return Target(Endpoint.UPLOADS, "/".join(name))
        case [*name, "blobs", "uploads", value] if name:
            return Target(Endpoint.UPLOAD, "/".join(name), value)
        case [*name, "tags", "list"] if name:
            return Target(Endpoint.TAGS, "/".join(name))
        case [*name, "_oci", "ext", "discover"] if name:
            return Target(Endpoint.EXTENSIONS, "/".join(name))
        case [*name, ("blobs" | "manifests" | "referrers") as word, value] if name and value:
            return Target(_BY_WORD[word], "/".join(name), value)
    return None
