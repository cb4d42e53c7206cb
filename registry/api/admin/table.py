"""Every operation of the administration API, put together."""

from datetime import timedelta

from registry.api.admin.about import AboutOperations
from registry.api.admin.administration import Administration
from registry.api.admin.events import EventOperations
from registry.api.admin.garbage import GarbageOperations
from registry.api.admin.policies import PolicyOperations
from registry.api.admin.repositories import RepositoryOperations
from registry.api.admin.robots import RobotOperations
from registry.api.admin.rules import RuleOperations
from registry.api.admin.upstreams import UpstreamOperations
from registry.api.admin.users import UserOperations
from registry.auth.identity import Identity
from registry.notifications.audit import AuditLog
from registry.notifications.hooks import Hooks
from registry.proxy.service import PullThrough
from storage.gc.housekeeping import Housekeeping
from storage.gc.sweep import Collector
from storage.repository.store import ContentStore


def administration(content: ContentStore, identity: Identity, proxy: PullThrough, collector: Collector,
                   housekeeping: Housekeeping, grace: timedelta, log: AuditLog, hooks: Hooks) -> Administration:
    made: Administration
    groups = (
        AboutOperations(lambda: made.operations),
        RepositoryOperations(content),
        UserOperations(identity.accounts),
        RobotOperations(identity.robots),
        PolicyOperations(identity.policies),
        RuleOperations(content.rules, housekeeping),
        GarbageOperations(collector, grace),
        UpstreamOperations(proxy),
        EventOperations(log, hooks),
    )
    made = Administration([operation for group in groups for operation in group.operations()])
    return made
