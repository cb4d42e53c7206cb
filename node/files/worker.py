"""The program that works in containers' trees: a small single-threaded process that forks one child a job.

`node.files.workers` starts it with one end of a SOCK_SEQPACKET pair on descriptor 0. A request is one JSON datagram
with its descriptors (`fds` names them in order): `line`, a stream socket for the child's answers; `input` and
`output`, pipes; `pid`, a pidfd of a container's first process. The first thing on the line is a pidfd of the child, so
that the daemon can end it whatever it waits for; then one JSON object a line, the last of them `done` or `error`.
"""

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from typing import Any

from node.files import comparing, gathering, lookup, receiving, spooling, view
from node.files.errors import KINDS, FilesFailed, NotADirectory, PathMissing, ReadOnly, TooMuch
from node.files.receiving import Receiver, Rules
from node.files.sending import Gzipped, Plain, Sender
from node.images.unpack import errors as unpacking
from node.images.unpack.decompress import FileInput
from node.images.unpack.tar import TarReader
from node.linux import syscalls
from ocispec.errors import SeawallError

MAX_REQUEST = 256 * 1024
MEMORY = 1 << 30
"""Address space of one job: a directory of ten million names is refused, not held."""

_BATCH = 500
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_TEXT = 1 << 20

Job = Mapping[str, Any]


class Child:
    """One job: what it was given, and its line to the daemon."""

    def __init__(self, job: Job, descriptors: Mapping[str, int]) -> None:
        self.job = job
        self.given = descriptors
        self._line = socket.socket(fileno=descriptors["line"])

    def say(self, message: Mapping[str, Any]) -> None:
        self._line.sendall(json.dumps(message).encode() + b"\n")

    def enter(self) -> view.View:
        return view.enter(self.job, self.given.get("pid"))


def main() -> None:
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel; their line says how they ended
    os.umask(0)
    syscalls.set_name("seawall-files")
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST, 8)
        if not request:
            return
        job = json.loads(request)
        given = dict(zip(job["fds"], descriptors, strict=True))
        child = os.fork()
        if child == 0:
            _child(control, job, given)
        _introduce(given["line"], child)
        for descriptor in descriptors:
            os.close(descriptor)


def _introduce(line: int, child: int) -> None:
    pidfd = os.pidfd_open(child)
    try:
        with socket.socket(fileno=os.dup(line)) as channel, contextlib.suppress(OSError):
            socket.send_fds(channel, [b"\n"], [pidfd])
    finally:
        os.close(pidfd)


def _child(control: socket.socket, job: Job, given: Mapping[str, int]) -> None:
    """Never returns: the child must not come back into the parent's loop, whatever happens."""
    status = 1
    try:
        control.close()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        child = Child(job, given)
        _introduced(given["line"])
        child.say(_answer(child))
        status = 0
    finally:
        os._exit(status)


def _introduced(line: int) -> None:
    """Wait for the parent's word on the line, which must be the first: the daemon's end sends it back."""
    poll = select.poll()
    poll.register(line, select.POLLIN | select.POLLHUP)
    poll.poll()
    os.read(line, 1)


def _answer(child: Child) -> Mapping[str, Any]:
    try:
        return {"done": _JOBS[child.job["kind"]](child) or {}}
    except (unpacking.LayerTooLarge, MemoryError) as error:
        return _error(TooMuch.__name__, getattr(error, "message", "") or "it needs too much memory")
    except unpacking.DiskFull:
        return _error("NoSpace", "no space left on device")
    except SeawallError as error:
        name = type(error).__name__ if type(error).__name__ in KINDS else "Misfit"
        return _error(name, error.message)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _error("NoSpace", "no space left on device")
        return _error(FilesFailed.__name__, f"{child.job['kind']}: {error}")
    except Exception as error:  # noqa: BLE001 - hostile trees meet this code: whatever breaks, the daemon hears of it
        return _error(FilesFailed.__name__, f"{child.job['kind']}: {error!r}")


def _error(kind: str, message: str) -> Mapping[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def _stat(child: Child) -> Mapping[str, Any]:
    inside = child.enter()
    found, name = lookup.find(inside, child.job["path"])
    return lookup.describe(inside, child.job["path"], found, name)


def _read(child: Child) -> None:
    inside, path = child.enter(), child.job["path"]
    found, name = lookup.find(inside, path)
    child.say({"stat": lookup.describe(inside, path, found, name)})
    out = Plain(child.given["output"])
    sender = Sender(inside, out)
    sender.tree(found, b"." if path.endswith("/.") else os.fsencode(name))
    sender.end()


def _write(child: Child) -> None:
    job = child.job
    inside = child.enter()
    try:
        parts, _ = lookup.spelled(job["path"])
        top = syscalls.openat2(inside.root, "/".join(parts) or ".", _ROOT, resolve=view.IN_ROOT)
    except NotADirectoryError as error:
        raise NotADirectory("extraction point is not a directory") from error
    except OSError as error:
        raise PathMissing(job["path"]) from error
    if lookup.made_up(top):
        raise PathMissing(job["path"])
    if os.fstatvfs(top).f_flag & os.ST_RDONLY:
        same = os.fstat(top).st_dev == os.fstat(inside.root).st_dev
        raise ReadOnly(f"{'container rootfs' if same else 'mounted volume'} is marked read-only")
    rules = Rules(keep_kinds=job["keep_kinds"], owner=receiving.owner_of(job["owner"]), max_entries=job["max_entries"])
    stream = spooling.opened(FileInput(child.given["input"]), job["max_bytes"])
    Receiver(inside, top, "/" + "/".join(parts), rules).take(TarReader(stream))
    stream.drain()


def _texts(child: Child) -> Mapping[str, Any]:
    """Small files of the tree, for what the daemon must know of it (users)."""
    inside, texts = child.enter(), {}
    for path in child.job["paths"]:
        with contextlib.suppress(OSError, SeawallError):
            place = syscalls.openat2(inside.root, path.strip("/"), os.O_PATH, resolve=view.IN_ROOT)
            if stat.S_ISREG(os.fstat(place).st_mode):
                with os.fdopen(os.open(str(place), os.O_RDONLY | os.O_NONBLOCK, dir_fd=inside.own), "rb") as file:
                    texts[path] = file.read(_TEXT).decode("utf-8", "surrogateescape")
            os.close(place)
    return texts


def _export(child: Child) -> None:
    inside = child.enter()
    alone = view.only_root(inside)
    sender = Sender(alone, Plain(child.given["output"]))
    child.say({"ready": True})
    sender.tree(alone.root, b"")
    sender.end()


def _trees(child: Child) -> tuple[int, int]:
    """The container's own tree and the one it stands on (-1: on nothing)."""
    own = os.open(child.job["own"], view.DIRECTORY)
    below = -1
    if child.job["below"] is not None:
        view.mount_root(child.job["below"], child.job["scratch"])
        below = os.open(child.job["scratch"], view.DIRECTORY)
    os.chdir("/")
    return own, below


def _changes(child: Child) -> None:
    own, below = _trees(child)
    view.seal()
    batch = []
    for change in comparing.changes(own, below, whole=child.job["whole"]):
        batch.append([change.kind, change.path.decode("utf-8", "surrogateescape")])
        if len(batch) >= _BATCH:
            child.say({"changes": batch})
            batch = []
    child.say({"changes": batch})


def _layer(child: Child) -> Mapping[str, Any]:
    own, below = _trees(child)
    fds = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    view.seal()
    out = Gzipped(child.given["output"])
    sender = Sender(view.View(own, fds), out, child.job["newest"])
    for change in comparing.changes(own, below, whole=child.job["whole"]):
        if change.kind == comparing.DELETED:
            sender.whiteout(change.path)
        else:
            sender.one(change.parent, change.name, change.path)
    sender.end()
    return {**out.digests(), "packed": "gzip", "plain_size": out.plain_size}


def _gather(child: Child) -> Mapping[str, Any]:
    """COPY's choice of files, as tar on `output`, as a digest, or which of them are archives."""
    inside = child.enter()
    gatherer = gathering.Gatherer(inside, gathering.Wanted.from_json(child.job))
    match child.job["what"]:
        case "archives":
            return {"archives": gatherer.archives()}
        case "digest":
            digesting = gathering.Digesting()
            gatherer.gather(digesting)
            return {"digest": digesting.hexdigest()}
    packing = gathering.Packing(Plain(child.given["output"]))
    gatherer.gather(packing)
    packing.end()
    return {}


def _raw(child: Child) -> None:
    """The bytes of one regular file."""
    inside, path = child.enter(), child.job["path"]
    parts, _ = lookup.spelled(path)
    try:
        place = syscalls.openat2(inside.root, "/".join(parts) or ".", os.O_PATH | os.O_CLOEXEC, resolve=view.IN_ROOT)
    except OSError as error:
        raise PathMissing(path) from error
    info = os.fstat(place)
    if not stat.S_ISREG(info.st_mode):
        raise PathMissing(path)
    out = Plain(child.given["output"])
    out.file(os.open(str(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside.own), info.st_size)
    out.end()


def _tidy(child: Child) -> None:
    """Take away, of a container's own tree, what stood there only to be mounted over: empty, and nobody else's."""
    own = os.open(child.job["own"], view.DIRECTORY)
    view.seal()
    for path in child.job["paths"]:
        above, _, name = path.strip("/").rpartition("/")
        with contextlib.suppress(OSError):
            folder = syscalls.openat2(own, above or ".", _ROOT, resolve=syscalls.RESOLVE_NO_SYMLINKS | view.IN_ROOT)
            try:
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(info.st_mode) and info.st_size == 0:
                    os.unlink(name, dir_fd=folder)
                elif stat.S_ISDIR(info.st_mode):
                    os.rmdir(name, dir_fd=folder)
            finally:
                os.close(folder)


def _pack(child: Child) -> Mapping[str, Any]:
    view.seal()
    return spooling.pack(FileInput(child.given["input"]), child.given["output"], max_bytes=child.job["max_bytes"])


def _spool(child: Child) -> None:
    folder = os.open(child.job["folder"], view.DIRECTORY)
    view.seal()
    batch = []
    source = FileInput(child.given["input"])
    for told in spooling.spool(source, folder, max_bytes=child.job["max_bytes"], max_entries=child.job["max_entries"]):
        batch.append(told)
        if len(batch) >= _BATCH:
            child.say({"members": batch})
            batch = []
    child.say({"members": batch})


_JOBS: Mapping[str, Callable[[Child], Mapping[str, Any] | None]] = {
    "stat": _stat, "read": _read, "write": _write, "texts": _texts, "export": _export, "changes": _changes,
    "layer": _layer, "pack": _pack, "spool": _spool, "gather": _gather, "raw": _raw, "tidy": _tidy,
}  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"files worker: {error}")
