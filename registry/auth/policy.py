"""The one access decision. Whatever asks for content, by whatever way, asks here first."""

from typing import Protocol

from ocispec.errors import PermissionDenied, Unauthenticated
from ocispec.reference import RepositoryName
from registry.auth.actions import Action
from registry.auth.challenge import BasicChallenger, Challenge, Challenger, LoginRequired
from registry.auth.principal import ANONYMOUS, Presented, Principal
from registry.auth.rules import Shown

__all__ = ["Access", "Action", "Authenticator", "NoAccounts", "OpenPolicy", "Policy", "scope_of"]


class Policy(Protocol):
    """Decides from memory: it is asked for every request and every listed name."""

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        """Whether `principal` may, with the credential it came with."""
        ...

    def forbids(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        """Whether no credential of `principal` would do: a better token is not worth asking for."""
        ...

    def shown(self, principal: Principal) -> Shown | None:
        """Where to look for what `principal` may pull; None: everywhere, and all of it is shown."""
        ...

    def admits(self, principal: Principal) -> bool:
        """Whether `GET /v2/` greets it. False sends the client to log in first."""
        ...

    def current(self) -> bool:
        """Whether what is in memory is what the database says; False: `refresh` before deciding. True means as well
        that `Changes.mark` has just looked, where there is something that could change."""
        ...

    async def refresh(self) -> None:
        """Read again what changed. Raises DatabaseUnavailable."""
        ...


class Authenticator(Protocol):
    async def identify(self, presented: Presented) -> Principal:
        """Who this is. Raises Unauthenticated when it proves nothing, ResourceExhausted after too many failures."""
        ...

    def known(self, presented: Presented) -> Principal | None:
        """The same from memory, without waiting; None when only `identify` can tell."""
        ...


class OpenPolicy:
    """Everybody may do everything: a registry without accounts, which binds to the loopback interface unless its
    operator insists (see `settings`)."""

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:  # noqa: ARG002
        return True

    def forbids(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:  # noqa: ARG002
        return False

    def shown(self, principal: Principal) -> Shown | None:  # noqa: ARG002
        return None

    def admits(self, principal: Principal) -> bool:  # noqa: ARG002
        return True

    def current(self) -> bool:
        return True

    async def refresh(self) -> None:
        """There is nothing that could change."""


class NoAccounts:
    """Whatever a client presents, it is nobody: there is nothing to check it against, and a client that kept the
    credentials of an earlier registry at this address shall still pull."""

    async def identify(self, presented: Presented) -> Principal:  # noqa: ARG002
        return ANONYMOUS

    def known(self, presented: Presented) -> Principal | None:  # noqa: ARG002
        return ANONYMOUS


class Access:
    """Identification, decision and invitation together, as the API uses them."""

    def __init__(self, authenticator: Authenticator, policy: Policy, challenger: Challenger | None = None) -> None:
        self._authenticator = authenticator
        self._policy = policy
        self._challenger = challenger or BasicChallenger()

    @property
    def looks(self) -> bool:
        """Whether `known` asks the database's `Changes` before it says who somebody is: then nobody need ask again in
        the same turn of the event loop."""
        return not isinstance(self._policy, OpenPolicy)

    async def identify(self, presented: Presented) -> Principal:
        """Who asks; the policy is up to date afterwards. Raises what `Authenticator.identify` does."""
        if not self._policy.current():
            await self._policy.refresh()
        return ANONYMOUS if presented.nothing else await self._authenticator.identify(presented)

    def known(self, presented: Presented) -> Principal | None:
        """The same from memory; None: ask `identify`."""
        if not self._policy.current():
            return None
        return ANONYMOUS if presented.nothing else self._authenticator.known(presented)

    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        """For choosing what to show; `require` for what was asked for."""
        return self._policy.allows(principal, action, repository)

    def sees(self, principal: Principal, repository: RepositoryName) -> bool:
        """Whether a list shows it: what the principal could pull, if not with this very token."""
        return not self._policy.forbids(principal, Action.PULL, repository)

    def shown(self, principal: Principal) -> Shown | None:
        """Where lists look for what `sees` says yes to; None: nothing is hidden."""
        return self._policy.shown(principal)

    def admit(self, principal: Principal) -> None:
        """Raises LoginRequired when `GET /v2/` has to send the client to log in."""
        if not self._policy.admits(principal):
            raise LoginRequired("authentication required")

    def require(self, principal: Principal, action: Action, repository: RepositoryName | None) -> None:
        """Raises Unauthenticated (logging in may help) or PermissionDenied. It does not depend on whether the
        repository exists: what may not be seen and what is not there are answered alike."""
        if self._policy.allows(principal, action, repository):
            return
        wanted = f"{action.value} {repository}" if repository else action.value
        if principal.is_anonymous:
            raise LoginRequired(f"authentication required to {wanted}", scope=scope_of(action, repository),
                                error="" if principal.grants is None else "insufficient_scope", detail=wanted)
        if principal.grants is not None and not self._policy.forbids(principal, action, repository):
            raise LoginRequired(f"this token is not good for: {wanted}", scope=scope_of(action, repository),
                                error="insufficient_scope", detail=wanted)
        raise PermissionDenied(f"{principal.name} may not {wanted}", detail=wanted)

    def mounts(self, principal: Principal, source: RepositoryName, target: RepositoryName) -> bool:
        """Whether content of `source` may become part of `target`, which the principal may push to. Raises
        LoginRequired, naming both, when only the token is not good for it: clients that mount come back with one."""
        if self._policy.allows(principal, Action.PULL, source):
            return True
        if principal.grants is None or self._policy.forbids(principal, Action.PULL, source):
            return False
        scopes = (scope_of(Action.PUSH, target), scope_of(Action.PULL, source))
        raise LoginRequired(f"this token is not good for: pull {source}", scope=" ".join(scopes),
                            error="insufficient_scope", detail=f"pull {source}")

    def challenge(self, failure: Unauthenticated, base: str) -> Challenge:
        """What to answer `failure` with. `base`: scheme and host as the client reached us."""
        return self._challenger.challenge(failure, base)


_WORDS = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.OVERWRITE: "pull,push", Action.DELETE: "delete",
          Action.ADMIN: "*"}


def scope_of(action: Action, repository: RepositoryName | None) -> str:
    """The token specification's words for it."""
    if repository is None:
        return "registry:catalog:*"
    return f"repository:{repository}:{_WORDS.get(action, action.value)}"
