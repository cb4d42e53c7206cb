"""Every operation of the administration API, put together."""

from registry.api.admin.about import AboutOperations
from registry.api.admin.administration import Administration
from registry.api.admin.repositories import RepositoryOperations
from storage.repository.store import ContentStore


def administration(content: ContentStore) -> Administration:
    made: Administration
    about = AboutOperations(lambda: made.operations)
    made = Administration([*about.operations(), *RepositoryOperations(content).operations()])
    return made
