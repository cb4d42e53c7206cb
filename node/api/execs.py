"""Exec: a further process in a running container."""

from contextlib import suppress

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.detach import DetachKeys
from node.api.dispatch import common_headers
from node.api.observe import stream_type, window
from node.api.parts import Execs
from node.api.streams import ClientGone, shovel, take_over
from node.api.types.create import parse_exec
from node.api.types.execs import inspect
from ocispec.errors import FailedPrecondition, InvalidArgument, SeawallError


class ExecRoutes:
    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def create(self, call: Call) -> web.StreamResponse:
        spec = parse_exec(await call.fields())
        DetachKeys.parse(spec.detach_keys)
        return reply({"Id": await self._execs.create(call.path["id"], spec)}, 201)

    async def start(self, call: Call) -> web.StreamResponse:
        """What is known to fail has a status. Whether the command can be run is found out on the open stream, where
        the docker command expects the reason; the exec's exit code is then 126 or 127."""
        body = await call.fields()
        exec_id, detach, tty = call.path["id"], body.flag("Detach"), body.flag("Tty")
        execution = self._execs.get(exec_id)
        spec = execution.spec
        if execution.running or execution.exit_code is not None:
            raise FailedPrecondition(f"exec {exec_id} has already been run")
        if tty != spec.tty and not detach:
            raise InvalidArgument(f"exec {exec_id} was made {'with' if spec.tty else 'without'} a tty: start it so")
        if detach:
            await self._execs.start(exec_id, detach=True, tty=tty)
            return empty(200)
        raw, taken = take_over(call.request, stream_type(call.version, tty=tty), common_headers())
        try:
            socket = await self._execs.start(exec_id, detach=False, tty=tty)
            if socket is not None:
                keys = DetachKeys.parse(spec.detach_keys) if tty and spec.attach_stdin else None
                await shovel(raw, socket, keys, settled=self._execs.wait(exec_id))
        except SeawallError as error:
            with suppress(ClientGone):
                await raw.write(_spoken(error, tty=tty))
        finally:
            raw.close()
        return taken

    async def inspect(self, call: Call) -> web.StreamResponse:
        return reply(inspect(self._execs.get(call.path["id"])))

    async def resize(self, call: Call) -> web.StreamResponse:
        await self._execs.resize(call.path["id"], *window(call))
        return empty(200)


def _spoken(error: SeawallError, *, tty: bool) -> bytes:
    """The error as output of the process."""
    text = f"{error.message}\r\n".encode()
    return text if tty else bytes((1, 0, 0, 0)) + len(text).to_bytes(4, "big") + text
