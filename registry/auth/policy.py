"""The one access decision. Whatever asks for content, by whatever way, asks here first."""

from enum import Enum
from typing import Protocol

from ocispec.errors import PermissionDenied, Unauthenticated
from ocispec.reference import RepositoryName
from registry.auth.principal import ANONYMOUS, Principal


class Action(Enum):
    """What may be done to a repository; LIST is asked of the registry as a whole (catalog, search)."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    LIST = "list"


class Policy(Protocol):
    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        """Whether `principal` may. Decided from memory: it is asked for every request and every listed name."""
        ...


class Authenticator(Protocol):
    async def identify(self, authorization: str) -> Principal:
        """Who presents this `Authorization` header. Raises Unauthenticated when it proves nothing."""
        ...


class OpenPolicy:
    """Everybody may do everything: a registry without accounts, which binds to the loopback interface unless its
    operator insists (see `settings`)."""

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:  # noqa: ARG002
        return True


class NoAccounts:
    """Whatever a client presents, it is nobody: there is nothing to check it against, and a client that kept the
    credentials of an earlier registry at this address shall still pull."""

    async def identify(self, authorization: str) -> Principal:  # noqa: ARG002
        return ANONYMOUS


class Access:
    """Identification and decision together, as the API uses them."""

    def __init__(self, authenticator: Authenticator, policy: Policy) -> None:
        self._authenticator = authenticator
        self._policy = policy

    async def identify(self, authorization: str | None) -> Principal:
        """Raises Unauthenticated."""
        return ANONYMOUS if authorization is None else await self._authenticator.identify(authorization)

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        """For choosing what to show; `require` for what was asked for."""
        return self._policy.allows(principal, action, repository)

    def require(self, principal: Principal, action: Action, repository: RepositoryName | None) -> None:
        """Raises Unauthenticated (logging in may help) or PermissionDenied."""
        if self._policy.allows(principal, action, repository):
            return
        wanted = f"{action.value} {repository}" if repository else action.value
        if principal.is_anonymous:
            raise Unauthenticated(f"authentication required to {wanted}", detail=wanted)
        raise PermissionDenied(f"{principal.name} may not {wanted}", detail=wanted)
