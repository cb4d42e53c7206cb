"""Exec: a further process in a running container."""

from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from node.api.answers import empty, reply
from node.api.call import Call
from node.api.detach import DetachKeys
from node.api.dispatch import common_headers
from node.api.frames import Unframed, framed, same
from node.api.observe import stream_type, window
from node.api.parts import Execs
from node.api.streams import ClientGone, shovel, take_over
from node.api.types.create import console_size, parse_exec
from node.api.types.execs import inspect
from node.api.version import ApiVersion
from ocispec.errors import FailedPrecondition, SeawallError

KNOWS_SIZE = ApiVersion(1, 42)


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
        # Before 1.42, and without a terminal, Docker does not look at it.
        size = console_size(body) if tty and call.version >= KNOWS_SIZE else (0, 0)
        execution = self._execs.get(exec_id)
        spec = execution.spec
        if execution.running or execution.exit_code is not None:
            raise FailedPrecondition(f"exec {exec_id} has already been run")
        if detach:
            await self._execs.start(exec_id, detach=True, console_size=size)
            return empty(200)
        raw, taken = take_over(call.request, stream_type(call.version, tty=tty), common_headers())
        try:
            socket = await self._execs.start(exec_id, detach=False, console_size=size)
            if socket is not None:
                keys = DetachKeys.parse(spec.detach_keys) if spec.tty and spec.attach_stdin else None
                settled = self._execs.wait(exec_id)
                if await shovel(raw, socket, keys, settled=settled, shape=_shape(made=spec.tty, asked=tty)):
                    self._execs.detached(exec_id)
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


def _shape(*, made: bool, asked: bool) -> Callable[[bytes], bytes]:
    """Whether the exec has a terminal was said when it was made; whether its output comes in frames is said at its
    start."""
    if made == asked:
        return same
    return framed if made else Unframed()


def _spoken(error: SeawallError, *, tty: bool) -> bytes:
    """The error as output of the process."""
    text = f"{error.message}\r\n".encode()
    return text if tty else bytes((1, 0, 0, 0)) + len(text).to_bytes(4, "big") + text
