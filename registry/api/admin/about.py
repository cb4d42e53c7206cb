"""What this registry is, and the document that describes the rest."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from registry.api.admin import openapi
from registry.api.admin.operation import Asked, Operation


class Caller(msgspec.Struct, frozen=True):
    """Who the registry takes the caller for. `name` is empty for nobody in particular."""

    name: str
    kind: str
    groups: list[str]
    administers: bool


class About(msgspec.Struct, frozen=True):
    version: str
    caller: Caller


class AboutOperations:
    """`everything`: the whole table, which is complete only after this group is in it."""

    def __init__(self, everything: Callable[[], Sequence[Operation]]) -> None:
        self._everything = everything

    def operations(self) -> Sequence[Operation]:
        return (
            Operation("GET", "/about", "Version, and who is asking", self.about, needs=None, result=About),
            Operation("GET", "/openapi.json", "This document", self.document, needs=None, result=dict[str, Any]),
        )

    async def about(self, asked: Asked) -> About:
        who = asked.principal
        return About(version("seawall"), Caller(who.name, who.kind.value, sorted(who.groups), who.administers))

    async def document(self, _asked: Asked) -> Mapping[str, Any]:
        return openapi.document(self._everything())
