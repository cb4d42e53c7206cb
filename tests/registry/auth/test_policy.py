import pytest

from ocispec.errors import PermissionDenied, Unauthenticated
from ocispec.reference import RepositoryName
from registry.auth.challenge import LoginRequired
from registry.auth.policy import Access, Action, NoAccounts, OpenPolicy, scope_of
from registry.auth.principal import ANONYMOUS, Grant, Kind, Presented, Principal

REPO = RepositoryName.parse("team/app")


class Nobody(OpenPolicy):
    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        return False

    def forbids(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        return principal.name == "bob"

    def admits(self, principal: Principal) -> bool:
        return not principal.is_anonymous


@pytest.mark.parametrize("action", Action)
async def test_without_accounts_everybody_may(action: Action) -> None:
    access = Access(NoAccounts(), OpenPolicy())
    principal = await access.identify(Presented("Basic bGVmdDpvdmVy"))
    assert principal == ANONYMOUS
    access.require(principal, action, REPO)


async def test_no_header_is_nobody() -> None:
    assert await Access(NoAccounts(), OpenPolicy()).identify(Presented()) == ANONYMOUS


def test_strangers_are_told_to_log_in_and_others_that_they_may_not() -> None:
    access = Access(NoAccounts(), Nobody())
    assert not access.allows(ANONYMOUS, Action.PULL, REPO)
    with pytest.raises(Unauthenticated, match="pull team/app"):
        access.require(ANONYMOUS, Action.PULL, REPO)
    with pytest.raises(PermissionDenied, match="ann may not list"):
        access.require(Principal("ann"), Action.LIST, None)


def test_a_token_that_is_too_weak_is_told_to_get_another_only_where_that_can_help() -> None:
    access = Access(NoAccounts(), Nobody())
    grants = (Grant("repository", "team/app", frozenset({"pull"})),)
    with pytest.raises(LoginRequired) as told:
        access.require(Principal("ann", grants=grants), Action.PUSH, REPO)
    assert (told.value.scope, told.value.error) == ("repository:team/app:pull,push", "insufficient_scope")
    with pytest.raises(PermissionDenied):
        access.require(Principal("bob", grants=grants), Action.PUSH, REPO)


def test_the_first_question_sends_strangers_to_log_in() -> None:
    access = Access(NoAccounts(), Nobody())
    access.admit(Principal("ann"))
    with pytest.raises(LoginRequired) as told:
        access.admit(ANONYMOUS)
    assert access.challenge(told.value, "https://here").scheme == "Basic"


def test_scopes() -> None:
    assert scope_of(Action.LIST, None) == "registry:catalog:*"
    assert scope_of(Action.DELETE, REPO) == "repository:team/app:delete"


def test_names_carry_their_kind() -> None:
    assert (Principal("ann").subject, Principal("ann", Kind.ROBOT).subject, ANONYMOUS.subject) == (
        "user:ann", "robot:ann", "")


def test_a_registry_token_never_administers() -> None:
    assert Principal("root", admin=True).administers
    assert not Principal("root", admin=True, grants=()).administers


def test_mounting_asks_for_a_token_that_is_good_for_both() -> None:
    source = RepositoryName.parse("team/base")

    class Yes:
        def allows(self, principal, action, repository) -> bool:
            return principal.grants is None

        def forbids(self, principal, action, repository) -> bool:
            return principal.name == "bob"

    access = Access(NoAccounts(), Yes())  # type: ignore[arg-type]  # what is asked here
    assert access.mounts(Principal("ann"), source, REPO)
    with pytest.raises(LoginRequired) as told:
        access.mounts(Principal("ann", grants=()), source, REPO)
    assert told.value.scope == "repository:team/app:pull,push repository:team/base:pull"
    assert not access.mounts(Principal("bob", grants=()), source, REPO)
