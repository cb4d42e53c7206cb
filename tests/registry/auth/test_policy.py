import pytest

from ocispec.errors import PermissionDenied, Unauthenticated
from ocispec.reference import RepositoryName
from registry.auth.policy import Access, Action, NoAccounts, OpenPolicy
from registry.auth.principal import ANONYMOUS, Principal

REPO = RepositoryName.parse("team/app")


class Nobody:
    def allows(self, principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        return False


@pytest.mark.parametrize("action", Action)
async def test_without_accounts_everybody_may(action: Action) -> None:
    access = Access(NoAccounts(), OpenPolicy())
    principal = await access.identify("Basic bGVmdDpvdmVy")
    assert principal == ANONYMOUS
    access.require(principal, action, REPO)


async def test_no_header_is_nobody() -> None:
    assert await Access(NoAccounts(), OpenPolicy()).identify(None) == ANONYMOUS


def test_strangers_are_told_to_log_in_and_others_that_they_may_not() -> None:
    access = Access(NoAccounts(), Nobody())
    assert not access.allows(ANONYMOUS, Action.PULL, REPO)
    with pytest.raises(Unauthenticated, match="pull team/app"):
        access.require(ANONYMOUS, Action.PULL, REPO)
    with pytest.raises(PermissionDenied, match="ann may not list"):
        access.require(Principal("ann"), Action.LIST, None)
