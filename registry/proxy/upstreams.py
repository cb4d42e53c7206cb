"""Which repositories are whose: settings become upstreams, names become places at one of them."""

import re
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from yarl import URL

from ocispec.descriptor import Platform
from ocispec.errors import InvalidArgument
from ocispec.pattern import Pattern
from ocispec.reference import InvalidName, RepositoryName
from registry.proxy.errors import UpstreamDenied
from registry.settings import InvalidSettings, ProxySettings, UpstreamSettings
from storage.metadata.rules import UntaggedRule
from storage.remote.auth import Credentials
from storage.remote.transport import Reach

DOCKER_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
_HUB_REALM = "auth.docker.io"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Upstream:
    """`reaches`: its own address, then its mirrors'. `hub`: names of one component are below `library/`."""

    name: str
    reaches: tuple[Reach, ...]
    credentials: Credentials
    prefix: str
    patterns: tuple[re.Pattern[str], ...]
    platforms: tuple[Platform, ...]
    tag_ttl: float
    missing_ttl: float
    hub: bool = False

    def wants(self, platform: Platform | None) -> bool:
        """Whether images of this platform are to be fetched. What says nothing of a platform, or `unknown` as build
        attestations do, is no image."""
        if not self.platforms or platform is None or platform.os == "unknown":
            return True
        return any(platform.satisfies(wanted) for wanted in self.platforms)


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of an upstream: `repo` is its name here, `path` its name there."""

    upstream: Upstream
    repo: RepositoryName
    path: RepositoryName


class Upstreams:
    """All of them. Empty: this registry pulls through nothing."""

    def __init__(self, upstreams: Iterable[Upstream], namespaces: dict[str, str], own_names: Iterable[str]) -> None:
        """`namespaces`: what clients call an upstream → its name."""
        self._by_name = {upstream.name: upstream for upstream in upstreams}
        self._namespaces = namespaces
        self._own = frozenset(own_names)

    @classmethod
    def of(cls, settings: Iterable[UpstreamSettings], proxy: ProxySettings) -> "Upstreams":
        """Raises InvalidSettings, naming what is wrong."""
        upstreams: list[Upstream] = []
        namespaces: dict[str, str] = {}
        for number, one in enumerate(settings):
            where = f"upstreams[{number}]"
            upstreams.append(_upstream(one, where))
            for namespace in (one.name, *one.namespaces):
                if namespaces.setdefault(namespace.lower(), one.name) != one.name or namespace in proxy.own_names:
                    raise InvalidSettings(f"{where}: {namespace!r} is claimed twice")
        if len({upstream.name for upstream in upstreams}) < len(upstreams):
            raise InvalidSettings("two upstreams have the same name")
        return cls(upstreams, namespaces, proxy.own_names)

    @property
    def all(self) -> Sequence[Upstream]:
        return list(self._by_name.values())

    def standing_rules(self, unused_after: timedelta) -> Sequence[UntaggedRule]:
        """What was pulled by digest alone lives as long after its last use as a cached tag does."""
        return [UntaggedRule(Pattern.parse(f"{name}/**"), unused_after) for name in self._by_name]

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def named(self, name: str, namespace: str | None) -> str:
        """The repository name that is meant by the name in a path and the `ns` parameter beside it.

        A registry without upstreams ignores `ns` (the specification makes it optional). One with upstreams does not:
        `library/alpine` with an `ns` that it does not know is not its own `library/alpine`. Raises InvalidName then.
        """
        if namespace and self._by_name and namespace not in self._own:
            upstream = self._namespaces.get(namespace.lower())
            if upstream is None:
                raise InvalidName(f"this registry does not pull through from {namespace[:100]!r}",
                                  detail={"ns": namespace[:100]})
            name = f"{upstream}/{name}"
        first, _, rest = name.partition("/")
        upstream_here = self._by_name.get(first)
        if upstream_here is not None and upstream_here.hub and rest and "/" not in rest:
            return f"{first}/library/{rest}"
        return name

    def covers(self, name: str) -> Upstream | None:
        """The upstream that a repository of this name would be of."""
        return self._by_name.get(name.partition("/")[0])

    def place(self, repo: RepositoryName) -> Place | None:
        """None: it is one of our own. Raises InvalidName, and UpstreamDenied when the settings exclude it."""
        upstream = self.covers(repo.value)
        if upstream is None:
            return None
        path = repo.value.partition("/")[2]
        if not path:
            raise InvalidName(f"{repo} is an upstream, not a repository of it", detail={"name": repo.value})
        if upstream.patterns and not any(pattern.fullmatch(path) for pattern in upstream.patterns):
            raise UpstreamDenied(f"{repo} is not among the repositories that are pulled through from {upstream.name}")
        return Place(upstream, repo, RepositoryName.parse(f"{upstream.prefix}/{path}" if upstream.prefix else path))


def _upstream(settings: UpstreamSettings, where: str) -> Upstream:
    if not _NAME.fullmatch(settings.name):
        raise InvalidSettings(f"{where}.name is no first component of a repository name: {settings.name!r}")
    default = f"https://{_HUB_HOST if settings.name == DOCKER_HUB else settings.name}"
    tls = _tls(settings.ca, where)
    urls = [_url(text, f"{where}.url") for text in (settings.url or default, *settings.mirrors)]
    hub = settings.name == DOCKER_HUB or urls[0].host == _HUB_HOST
    realms = frozenset(realm.lower() for realm in settings.realms) | (
        {_HUB_REALM} if urls[0].host == _HUB_HOST else set())
    try:
        platforms = tuple(Platform.parse(text) for text in settings.platforms)
        prefix = RepositoryName.parse(settings.prefix).value if settings.prefix else ""
    except InvalidArgument as error:
        raise InvalidSettings(f"{where}: {error.message}") from error
    return Upstream(
        settings.name,
        tuple(Reach(url, settings.allow_private, realms, tls) for url in urls),
        Credentials(settings.username, _password(settings, where)), prefix,
        tuple(_pattern(text) for text in settings.repositories), platforms, settings.tag_ttl, settings.missing_ttl,
        hub=hub,
    )


def _url(text: str, where: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise InvalidSettings(f"{where} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment:
        raise InvalidSettings(f"{where} is no http or https URL")
    if url.user is not None or url.password is not None:
        raise InvalidSettings(f"{where} holds a password: use `username` and `password_file`")
    return url


def _tls(file: str, where: str) -> ssl.SSLContext | None:
    if not file:
        return None
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"{where}.ca cannot be used: {error}") from error


def _password(settings: UpstreamSettings, where: str) -> str:
    if not settings.password_file:
        return settings.password
    if settings.password:
        raise InvalidSettings(f"{where} has both `password` and `password_file`")
    try:
        return (Path(settings.password_file).read_text(encoding="utf-8").splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{where}.password_file cannot be read: {error}") from error


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))
