"""The one decision: may this caller have this operation done, and what of it."""

from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any

from node.access.callers import Caller
from node.access.rules import Access, Level, NotAllowed, Rights
from node.api.call import Call, Narrowing
from node.api.guard import operations as ops
from node.api.guard.bodies import Bodies
from node.api.guard.owned import LABEL, Owned, Things
from ocispec.errors import SeawallError

log = getLogger(__name__)


class Guard:
    def __init__(self, access: Access, things: Things, *, own_users: bool = False) -> None:
        """`own_users`: containers have ids of their own when nothing is said."""
        self._access = access
        self._things = things
        self._own_users = own_users

    @property
    def idle(self) -> bool:
        """Everybody who gets here has full rights."""
        return not self._access.restricted

    async def admit(self, caller: Caller, operation: str, call: Call) -> Call:
        """The call as its handler may see it. Raises NotAllowed, NotFound (another project's), InvalidArgument."""
        try:
            rights = self._access.rights_of(caller)
            if rights.level is Level.FULL:
                return call
            if rights.level is Level.READ:
                _check(operation in ops.READ, operation, "rights to read")
                return call
            return await self._in_project(rights, operation, call)
        except SeawallError as error:
            log.info("%s may not: %s: %s", caller, operation, error.message)
            raise

    async def _in_project(self, rights: Rights, operation: str, call: Call) -> Call:
        _check(operation in ops.PROJECT, operation, "the rights of a project")
        owned = Owned(self._things, rights.project)
        if operation == "ImageCreate" and call.text("fromSrc"):
            raise NotAllowed("importing an image is not allowed with the rights of a project")
        # Handlers look for what was looked at here, whatever gets its name meanwhile.
        if operation in ops.OF_CONTAINER:
            call = replace(call, path={**call.path, "id": await owned.container(call.path["id"])})
        elif operation in ops.OF_NETWORK:
            call = replace(call, path={**call.path, "id": await owned.network(call.path["id"])})
        elif operation in ops.OF_VOLUME:
            await owned.volume(call.path["name"])
        elif operation in ops.OF_EXEC:
            await owned.exec(call.path["id"])
        pinned = await self._body(Bodies(owned, rights, own_users=self._own_users), operation, call)
        if operation in ops.NARROWED:
            return replace(call, narrowing=Narrowing(filters=f"{LABEL}={rights.project}"))
        if operation in ops.CREATES:
            return replace(call, narrowing=Narrowing(labels={LABEL: rights.project}, pinned=pinned))
        return replace(call, narrowing=Narrowing(pinned=pinned)) if pinned else call

    @staticmethod
    async def _body(bodies: Bodies, operation: str, call: Call) -> Mapping[str, Any]:
        """Fields of the body as they are to be read."""
        checks = {
            "ContainerCreate": bodies.container, "NetworkCreate": bodies.network, "VolumeCreate": bodies.volume,
            "NetworkConnect": bodies.connect, "NetworkDisconnect": bodies.connect, "ContainerExec": bodies.exec,
            "ContainerUpdate": bodies.update,
        }  # fmt: skip
        if check := checks.get(operation):
            return await check(await call.fields()) or {}
        return {}


def _check(allowed: bool, operation: str, rights: str) -> None:
    if not allowed:
        raise NotAllowed(f"{operation} is not allowed with {rights}")
