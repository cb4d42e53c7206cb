"""The audit log, and the webhooks that are told of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from ocispec.reference import RepositoryName
from registry.api.admin.operation import Asked, Nothing, Operation, RepositoryText, Strict
from registry.notifications.audit import PAGE, AuditLog, document
from registry.notifications.endpoints import Format
from registry.notifications.hooks import Hooks, HookState
from storage.events import Action, Result
from storage.metadata.events import Wanted
from storage.metadata.webhooks import Dead, HookRow

_Pattern = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9._*?/\[\]!-]{1,300}$")]
Patterns = Annotated[list[_Pattern], msgspec.Meta(max_length=100)]


class Which(Strict, frozen=True):
    """Times as RFC 3339; `since` is in, `until` is not. `before`: what the page before called `next`."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    repository: RepositoryText | None = None
    action: Action | None = None
    result: Result | None = None
    before: Annotated[int, msgspec.Meta(ge=1, le=2**62)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE)] = 100


class Events(msgspec.Struct, frozen=True):
    """The newest first. `next` is null at the end."""

    items: list[dict[str, Any]]
    next: int | None


class NewHook(Strict, frozen=True):
    """`format`: cloudevents, cloudevents-binary or distribution. `actions` and `repositories` are patterns; none:
    whichever. An empty secret leaves the one that the webhook has."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9.-]+(?::[0-9]{1,4})?(?:/[A-Za-z0-9._~/-]*)?$",
                                     max_length=2000)]
    secret: Annotated[str, msgspec.Meta(pattern="^(?:|.{16,500})$")] = ""
    format: Format = Format.CLOUDEVENTS
    actions: Patterns = msgspec.field(default_factory=list)
    repositories: Patterns = msgspec.field(default_factory=list)
    enabled: bool = True


class Hook(msgspec.Struct, frozen=True):
    """`fixed`: from the settings, and changed there. `waiting`: events it has still to hear of; `attempts`: failures
    since the last success, of which `error` is the last."""

    name: str
    url: str
    format: str
    actions: list[str]
    repositories: list[str]
    enabled: bool
    fixed: bool
    signed: bool
    delivered: int
    attempts: int
    error: str
    retry_at: datetime | None

    @classmethod
    def of(cls, state: HookState) -> "Hook":
        endpoint, cursor = state.endpoint, state.cursor
        return cls(endpoint.name, str(endpoint.url), endpoint.format.value, list(endpoint.actions),
                   list(endpoint.repositories), state.enabled, state.fixed, bool(endpoint.secret),
                   cursor.delivered if cursor else 0, cursor.attempts if cursor else 0, cursor.error if cursor else "",
                   cursor.retry_at if cursor else None)


class HookList(msgspec.Struct, frozen=True):
    items: list[Hook]


class GivenUp(msgspec.Struct, frozen=True):
    """An event, by its number in the log, that a webhook could not be told of; `again`: it will be tried once more."""

    number: int
    at: datetime
    attempts: int
    error: str
    again: bool

    @classmethod
    def of(cls, item: Dead) -> "GivenUp":
        return cls(item.number, item.at, item.attempts, item.error, item.again)


class GivenUpList(msgspec.Struct, frozen=True):
    items: list[GivenUp]


class Redelivery(msgspec.Struct, frozen=True):
    """How many events will be sent again."""

    events: int


class Limit(Strict, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class EventOperations:
    def __init__(self, log: AuditLog, hooks: Hooks) -> None:
        self._log = log
        self._hooks = hooks

    def operations(self) -> Sequence[Operation]:
        hook = "/webhooks/{name}"
        return (
            Operation("GET", "/events", "What was done and refused, the newest first", self.events, query=Which,
                      result=Events),
            Operation("GET", "/webhooks", "Webhooks and how far each has been told", self.list, result=HookList),
            Operation("PUT", hook, "Make a webhook, or change it", self.put, body=NewHook, result=None,
                      failures=(409,)),
            Operation("DELETE", hook, "Remove a webhook, with what it has still to hear of", self.delete, result=None,
                      failures=(409,)),
            Operation("GET", f"{hook}/dead", "What was given up for it, the oldest first", self.dead, query=Limit,
                      result=GivenUpList),
            Operation("POST", f"{hook}/redeliveries", "Have what was given up sent again", self.redeliver,
                      body=Nothing, result=Redelivery),
        )

    async def events(self, asked: Asked) -> Events:
        which: Which = asked.query
        page = await self._log.page(Wanted(
            which.since, which.until, which.actor, RepositoryName.parse(which.repository) if which.repository else None,
            which.action, which.result, which.before), which.limit)
        return Events([document(entry) for entry in page.entries], page.before)

    async def list(self, _asked: Asked) -> HookList:
        return HookList([Hook.of(state) for state in await self._hooks.list()])

    async def put(self, asked: Asked) -> None:
        new: NewHook = asked.body
        hook = HookRow(asked.parameters["name"], new.url, new.secret, new.format.value, tuple(new.actions),
                       tuple(new.repositories), new.enabled)
        await self._hooks.put(hook, asked.origin)

    async def delete(self, asked: Asked) -> None:
        await self._hooks.delete(asked.parameters["name"], asked.origin)

    async def dead(self, asked: Asked) -> GivenUpList:
        return GivenUpList([GivenUp.of(item) for item in
                            await self._hooks.dead(asked.parameters["name"], asked.query.limit)])

    async def redeliver(self, asked: Asked) -> Redelivery:
        return Redelivery(await self._hooks.redeliver(asked.parameters["name"]))
