"""Webhooks as an administrator sees them: those of the database can be made, changed and removed, all can be looked
at, and what was given up can be sent again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ocispec.errors import FailedPrecondition, NotFound
from registry.notifications.endpoints import Endpoint
from storage.events import Action, Event, Origin
from storage.metadata import events, webhooks
from storage.metadata.engine import Database
from storage.metadata.webhooks import Backlog, Cursor, Dead, HookRow


class HookUnknown(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no webhook {name}")


class HookFixed(FailedPrecondition):
    """It stands in the settings and changes there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"webhook {name} stands in the settings: change it there")


@dataclass(frozen=True, slots=True)
class HookState:
    """`fixed`: from the settings. `cursor` is None until somebody delivers."""

    endpoint: Endpoint
    enabled: bool
    fixed: bool
    cursor: Cursor | None
    backlog: Backlog | None


class Hooks:
    def __init__(self, database: Database, fixed: Sequence[Endpoint]) -> None:
        self._database = database
        self._fixed = {endpoint.name: endpoint for endpoint in fixed}

    async def list(self) -> Sequence[HookState]:
        async with self._database.read() as tx:
            rows = [row for row in await webhooks.hooks(tx) if row.name not in self._fixed]
            backlogs = {backlog.name: backlog for backlog in await webhooks.backlogs(tx)}
            known = [(endpoint, True, True) for endpoint in self._fixed.values()]
            known += [(Endpoint.from_row(row), row.enabled, False) for row in rows]
            return [HookState(endpoint, enabled, fixed, await webhooks.cursor(tx, endpoint.name),
                              backlogs.get(endpoint.name)) for endpoint, enabled, fixed in known]

    async def put(self, hook: HookRow, origin: Origin) -> None:
        """Make or change one; an empty secret leaves the one it has. A new one hears of what happens from now on.
        Raises InvalidEndpoint, HookFixed."""
        self._changeable(hook.name)
        now = self._database.now()
        async with self._database.write() as tx:
            before = {row.name: row for row in await webhooks.hooks(tx)}.get(hook.name)
            if not hook.secret and before is not None:
                hook = replace(hook, secret=before.secret)
            Endpoint.from_row(hook)
            await webhooks.put(tx, hook, now)
            await events.record(tx, Event(Action.WEBHOOK_CHANGE, origin, detail={
                "webhook": hook.name, "url": hook.url, "enabled": hook.enabled}), now)

    async def delete(self, name: str, origin: Origin) -> None:
        """With what it has still to hear of. Raises HookUnknown, HookFixed."""
        self._changeable(name)
        async with self._database.write() as tx:
            if not await webhooks.delete(tx, name):
                raise HookUnknown(name)
            await events.record(tx, Event(Action.WEBHOOK_CHANGE, origin, detail={"webhook": name, "deleted": True}),
                                self._database.now())

    async def dead(self, name: str, limit: int) -> Sequence[Dead]:
        """What was given up for an endpoint, the oldest first."""
        async with self._database.read() as tx:
            return await webhooks.dead(tx, name, limit)

    async def redeliver(self, name: str) -> int:
        """Have what was given up sent again; how many that will be. Raises HookUnknown."""
        async with self._database.write() as tx:
            if name not in self._fixed and name not in {row.name for row in await webhooks.hooks(tx)}:
                raise HookUnknown(name)
            return await webhooks.revive(tx, name)

    def _changeable(self, name: str) -> None:
        if name in self._fixed:
            raise HookFixed(name)
