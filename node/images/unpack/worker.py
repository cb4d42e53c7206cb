"""The program that unpacks layers: a small single-threaded process that forks one child a layer.

`seawalld` starts it with one end of a SOCK_SEQPACKET pair on descriptor 0. Each request is one JSON datagram with two
descriptors: where the child reports to (a stream socket) and where it reads from. The child shuts itself into the
target directory, unpacks, reports one JSON object a line (`{"read": n}` for progress; last `done`, `needs_lower` or
`error`) and exits. It gives up when the other end of its report socket closes, which is also how the daemon cancels it
and how children end with a killed daemon.
"""

import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from node.images.unpack import decompress, errors
from node.images.unpack.adopt import adopt
from node.images.unpack.tar import TarReader
from node.images.unpack.tree import NeedsLower, Tree
from node.linux import syscalls
from ocispec.digest import new_hasher
from ocispec.errors import SeawallError

MAX_REQUEST = 64 * 1024
_PROGRESS_SECONDS = 0.1
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Report:
    """The child's line to the daemon."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN | select.POLLHUP)
        self._last = time.monotonic()

    def send(self, message: Mapping[str, Any]) -> None:
        self._line.sendall(json.dumps(message).encode() + b"\n")

    def progress(self, position: int) -> None:
        """Say how far reading is, not too often; leave when nobody listens any more."""
        if self._poll.poll(0):
            os._exit(1)
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self.send({"read": position})


class WatchedInput(decompress.FileInput):
    def __init__(self, descriptor: int, report: Report) -> None:
        super().__init__(descriptor)
        self._report = report

    def read(self, size: int = -1) -> bytes:
        self._report.progress(self.position)
        return super().read(size)


def main() -> None:
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel; their reports say how they ended
    os.umask(0)
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST, 2)
        if not request:
            return
        if os.fork() == 0:
            _child(control, request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _child(control: socket.socket, request: bytes, descriptors: list[int]) -> None:
    """Never returns: the child must not come back into the parent's loop, whatever happens."""
    status = 1
    try:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        report = Report(socket.socket(fileno=descriptors[0]))
        report.send(_answer(json.loads(request), descriptors[1], report))
        status = 0
    finally:
        os._exit(status)


def _answer(job: Mapping[str, Any], source: int, report: Report) -> Mapping[str, Any]:
    try:
        if job["kind"] == "adopt":
            return {"done": {}} if _adopt(job, source) else {"needs_lower": True}
        return {"done": _unpack(job, source, report)}
    except NeedsLower:
        return {"needs_lower": True}
    except SeawallError as error:
        return {"error": {"kind": type(error).__name__, "message": error.message}}
    except OSError as error:
        kind = errors.DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else errors.UnpackFailed
        return {"error": {"kind": kind.__name__, "message": f"unpacking a layer: {error}"}}
    except Exception as error:  # noqa: BLE001 - hostile bytes meet this code: whatever breaks, the daemon hears of it
        return {"error": {"kind": errors.UnpackFailed.__name__, "message": f"unpacking a layer: {error!r}"}}


def _unpack(job: Mapping[str, Any], source: int, report: Report) -> Mapping[str, Any]:
    _enter(job)
    data = WatchedInput(source, report)
    compression = decompress.sniff(data.peek(8))
    if compression != job["compression"]:
        raise errors.InvalidLayer(f"the manifest says that the layer is {job['compression']}, but it is {compression}")
    chunks = _watched(decompress.plain_chunks(data, compression), data, report)
    stream = decompress.PlainStream(chunks, job["max_bytes"], new_hasher(job["algorithm"]))
    root = os.open("/", _ROOT)
    tree = Tree(root, bare=job["bare"], bottom=job["bottom"], max_entries=job["max_entries"])
    tree.extract(TarReader(stream))
    stream.drain()
    return {
        "diff_id": stream.hexdigest(), "size": tree.bytes, "entries": tree.entries,
        "implied": _texts(tree.implied()), "whiteouts": _texts(tree.whiteouts()),
    }


def _texts(paths: Iterable[bytes]) -> list[str]:
    return [path.decode("utf-8", "surrogateescape") for path in paths]


def _paths(texts: Iterable[str]) -> list[bytes]:
    return [text.encode("utf-8", "surrogateescape") for text in texts]


def _watched(chunks: Iterator[bytes], data: WatchedInput, report: Report) -> Iterator[bytes]:
    """A little input may become very much output: look up between the chunks of that, too."""
    for chunk in chunks:
        report.progress(data.position)
        yield chunk


def _enter(job: Mapping[str, Any]) -> None:
    """Make the target the root directory, in a mount namespace that ends with this process."""
    directory = job["directory"]
    if job["mount"] is not None:
        _mount(job["mount"], directory)
    os.chdir(directory)
    os.chroot(".")
    # No module is ever loaded from what a layer brings (the kind of CVE-2019-14271).
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def _mount(mount: Mapping[str, Any], target: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.chdir(mount["cwd"])
    syscalls.mount(mount["source"], target, mount["type"], 0, mount["data"])


def _adopt(job: Mapping[str, Any], source: int) -> bool:
    with os.fdopen(source, "rb") as listing:
        implied, whiteouts = map(_paths, json.load(listing))
    target = os.open(job["directory"], _ROOT)
    if job["mount"] is not None:
        _mount(job["mount"], job["directory"])
    lower = os.open(job["lower"], _ROOT)
    return adopt(target, lower, implied, whiteouts)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"unpack worker: {error}")
