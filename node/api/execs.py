"""Exec: a further process in a running container."""

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.detach import DetachKeys
from node.api.dispatch import common_headers
from node.api.observe import stream_type, window
from node.api.parts import Execs
from node.api.streams import shovel, take_over
from node.api.types.create import parse_exec
from node.api.types.execs import inspect
from ocispec.errors import FailedPrecondition, InvalidArgument


class ExecRoutes:
    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def create(self, call: Call) -> web.StreamResponse:
        spec = parse_exec(await call.fields())
        DetachKeys.parse(spec.detach_keys)
        return reply({"Id": await self._execs.create(call.path["id"], spec)}, 201)

    async def start(self, call: Call) -> web.StreamResponse:
        """The process runs before the stream is taken over, so that a command that cannot be run has a status."""
        body = await call.fields()
        exec_id, detach, tty = call.path["id"], body.flag("Detach"), body.flag("Tty")
        execution = self._execs.get(exec_id)
        spec = execution.spec
        if execution.running or execution.exit_code is not None:
            raise FailedPrecondition(f"exec {exec_id} has already been run")
        if tty != spec.tty and not detach:
            raise InvalidArgument(f"exec {exec_id} was made {'with' if spec.tty else 'without'} a tty: start it so")
        socket = await self._execs.start(exec_id, detach=detach, tty=tty)
        if socket is None:
            return empty(200)
        try:
            raw, taken = take_over(call.request, stream_type(call.version, tty=tty), common_headers())
        except ConnectionError:
            socket.close()
            raise
        await shovel(raw, socket, DetachKeys.parse(spec.detach_keys) if tty and spec.attach_stdin else None)
        return taken

    async def inspect(self, call: Call) -> web.StreamResponse:
        return reply(inspect(self._execs.get(call.path["id"])))

    async def resize(self, call: Call) -> web.StreamResponse:
        await self._execs.resize(call.path["id"], *window(call))
        return empty(200)
