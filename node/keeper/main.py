"""The process itself: apart from the daemon's session and output, started with a socket that listens."""

import asyncio
import os
import resource
import signal
import socket

from node.keeper.control import Control
from node.linux import syscalls

_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1,
            signal.SIGUSR2, signal.SIGTSTP)


def main(descriptor: str) -> None:
    listener = socket.socket(fileno=int(descriptor))
    listener.setblocking(False)
    os.set_inheritable(listener.fileno(), False)
    syscalls.set_name("seawall-net")
    # No container with CAP_SYS_PTRACE in the host's pid namespace may look into it.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    # A few descriptors a container and one a published port.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve(listener))


async def _serve(listener: socket.socket) -> None:
    await Control(listener).serve()
