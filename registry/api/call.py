"""One request, as the endpoint groups see it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry.api import requests
from registry.api.paths import Target
from registry.auth.policy import Access, Action
from registry.auth.principal import Presented, Principal
from storage.events import Origin


@dataclass(frozen=True, slots=True)
class Call:
    """`repository` and `digest` parse what the path names, so a malformed name is answered as such wherever it is."""

    request: web.BaseRequest
    target: Target
    principal: Principal
    access: Access
    presented: Presented
    """What the principal was identified by; its `remote` is the client's address, also behind a trusted proxy."""

    @property
    def digest(self) -> Digest:
        """Raises InvalidDigest."""
        return Digest.parse(self.target.value)

    def repository(self, action: Action) -> RepositoryName:
        """The repository, once the caller is known to be allowed `action` there. Raises InvalidName and what
        `Access.require` does."""
        name = RepositoryName.parse(self.target.name)
        self.access.require(self.principal, action, name)
        return name

    @property
    def origin(self) -> Origin:
        """Who asks, for the event log."""
        return requests.origin(self.request, self.principal.name, self.presented.remote)

    def query(self, name: str) -> str | None:
        """The first parameter of this name."""
        return self.request.query.get(name)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
