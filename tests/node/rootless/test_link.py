"""The daemon's side of the holder's socket."""

import array
import json
import os
import socket
from threading import Thread

import pytest

from node.rootless.link import HostSockets


def test_an_answer_that_comes_too_late_is_nobody_elses() -> None:
    """The socket of a port that was given up is not taken for that of the next one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def slow() -> None:
        late = json.loads(theirs.recv(4096))
        for request in (late, json.loads(theirs.recv(4096))):
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(b"\0" + f"seawall-test-{os.getpid()}-{request['port']}".encode())
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))]
                theirs.sendmsg([json.dumps({"made": True, "number": request.get("number")}).encode()], rights)

    with ours, theirs:
        sockets = HostSockets(ours)
        ours.settimeout(0.2)
        answering = Thread(target=slow)
        answering.start()
        with pytest.raises(OSError, match="does not answer"):
            sockets.bind(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", 1)
        ours.settimeout(10)
        with sockets.bind(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", 2) as second:
            assert second.getsockname().endswith(b"-2")
        answering.join()
