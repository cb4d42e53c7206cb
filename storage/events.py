"""What happened, and who made it happen: the values of the event log (`metadata.events`).

An event is written in the transaction of the change that it tells of: the log holds what was done and nothing else,
whatever is killed when. Whoever changes content on behalf of somebody hands an `Origin` down; without one (a node's
own image store, an import) nothing is recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag

LONGEST = 500
"""Characters of anything a client chose."""


class Action(StrEnum):
    """`<noun>.<verb>`, as it stands in the log, in webhooks and in their patterns."""

    MANIFEST_PUSH = "manifest.push"
    MANIFEST_PULL = "manifest.pull"
    MANIFEST_DELETE = "manifest.delete"
    TAG_PUT = "tag.put"
    TAG_DELETE = "tag.delete"
    BLOB_PUSH = "blob.push"
    BLOB_PULL = "blob.pull"
    BLOB_MOUNT = "blob.mount"
    BLOB_DELETE = "blob.delete"
    REPOSITORY_DELETE = "repository.delete"
    ACCESS_DENIED = "access.denied"
    LOGIN_FAILED = "login.failed"
    LOGIN = "login.done"
    EVENTS_DROPPED = "audit.dropped"
    ACCOUNT_CREATE = "account.create"
    ACCOUNT_CHANGE = "account.change"
    ACCOUNT_DELETE = "account.delete"
    TOKEN_CREATE = "token.create"  # noqa: S105  # the name of an action
    TOKEN_REVOKE = "token.revoke"  # noqa: S105
    POLICY_CHANGE = "policy.change"
    RULE_CHANGE = "rule.change"
    UPSTREAM_CHANGE = "upstream.change"
    WEBHOOK_CHANGE = "webhook.change"
    GARBAGE_COLLECT = "garbage.collect"


class Result(StrEnum):
    OK = "ok"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, from where and by which request. `actor` is empty for nobody in particular. What came from a client
    is cut to `LONGEST` characters and holds nothing that a terminal or a log would obey."""

    actor: str
    request_id: str
    remote: str = ""
    agent: str = ""
    method: str = ""
    host: str = ""

    @classmethod
    def of(cls, *, actor: str, request_id: str, remote: str = "", agent: str = "", method: str = "",
           host: str = "") -> "Origin":
        return cls(*map(printable, (actor, request_id, remote, agent, method, host)))


@dataclass(frozen=True, slots=True)
class Event:
    """`detail` is small and JSON: what the other fields have no place for. Never a secret."""

    action: Action
    origin: Origin
    repository: RepositoryName | None = None
    digest: Digest | None = None
    tag: Tag | None = None
    media_type: str = ""
    size: int = 0
    result: Result = Result.OK
    detail: Mapping[str, object] = field(default_factory=dict)


def printable(text: str) -> str:
    """`text` without what a terminal or a log would obey (control characters, line separators, changes of direction,
    lone surrogates), and not longer than `LONGEST`."""
    text = text[:LONGEST]
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
