"""Policies: who may do what, by repository pattern."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from registry.api.admin.operation import Asked, Operation, Strict
from registry.auth.policies import MAX_RULES, Policies, make_rule
from registry.auth.rules import Rule


class Policy(Strict, frozen=True):
    """In repositories that match `pattern`, `subject` (`user:ann`, `group:dev`, `robot:ci`, `certificate:node`,
    `authenticated`, `anonymous`) may do `actions`; none of them: nothing, and the pattern still decides."""

    pattern: str
    subject: str
    actions: list[str]

    @classmethod
    def of(cls, rule: Rule) -> "Policy":
        return cls(rule.pattern.text, rule.subject, sorted(rule.words))


class PolicyList(Strict, frozen=True):
    items: Annotated[list[Policy], msgspec.Meta(max_length=MAX_RULES)]


class Which(Strict, frozen=True):
    """`subject` left out: everything about the pattern."""

    pattern: str
    subject: str | None = None


class PolicyOperations:
    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/policies", "All policies, by pattern and subject", self.list, result=PolicyList),
            Operation("PUT", "/policies", "These policies and no others", self.replace, body=PolicyList,
                      result=PolicyList),
            Operation("POST", "/policies", "Add a policy, or change what its subject may", self.set, body=Policy,
                      result=Policy),
            Operation("DELETE", "/policies", "Remove a policy, or all of a pattern", self.remove, query=Which,
                      result=None),
        )

    async def list(self, _asked: Asked) -> PolicyList:
        return PolicyList([Policy.of(rule) for rule in await self._policies.all()])

    async def replace(self, asked: Asked) -> PolicyList:
        wanted: PolicyList = asked.body
        await self._policies.replace([make_rule(item.pattern, item.subject, item.actions) for item in wanted.items],
                                     origin=asked.origin)
        return await self.list(asked)

    async def set(self, asked: Asked) -> Policy:
        wanted: Policy = asked.body
        return Policy.of(await self._policies.set(wanted.pattern, wanted.subject, wanted.actions, origin=asked.origin))

    async def remove(self, asked: Asked) -> None:
        await self._policies.remove(asked.query.pattern, asked.query.subject, origin=asked.origin)
