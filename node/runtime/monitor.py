"""The process that owns one container: its streams, log, execs and exit status. It outlives daemon and launcher.

It answers on `<state_dir>/monitor.sock` (frames of `wire`; only its own user is heard):

    {"op": "info"}                                   → {"pid", "started", "tty"}
    {"op": "start"}                                  → {"pid"} or {"error", "kind"}
    {"op": "signal", "number"} · {"op": "kill_all"} · {"op": "resize", "rows", "columns", "exec"}
    {"op": "wait"}                                   → the exit status, when there is one
    {"op": "attach", "stdin", "stdout", "stderr", "exec"} → {"ok"}, then the connection is the stream
    {"op": "exec", "exec", "process", "stdin", "about"} → {"pid"}
    {"op": "exec_start", "exec"} · {"op": "exec_wait", "exec"} · {"op": "exec_signal", "exec", "number"}
    {"op": "execs"}                                  → those that were started, for a daemon that begins anew

Every request carries an `id` that its answer repeats. The socket a launch request came with is the first connection.
What must not be lost is on disk before anyone is told: everything that ran in the container is dead, the log closed,
the cgroup, the mounts and the ports given back, exit.json renamed into place; then waiters are answered, and the
monitor ends when they have gone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time

from node.linux import syscalls
from node.linux.cgroups import CgroupError
from node.runtime import identity, place, roots
from node.runtime.births import Native, NoContainer
from node.runtime.control import Connection, Control
from node.runtime.foreign.maker import Foreign
from node.runtime.logchoice import open_log
from node.runtime.poller import READ, Poller
from node.runtime.streams import Client
from node.runtime.wire import STDERR, STDOUT, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from node.linux.cgroups.store import Cgroup
    from node.runtime.births import Maker
    from node.runtime.job import Job
    from node.runtime.tasks import Task

    Reply = Callable[[dict[str, object]], None]

EXIT = "exit.json"
COMPLAINTS = "monitor.err"
LINGER = 30.0
"""Seconds that attached clients get to read what is left after the end."""

MAX_ABOUT = 16 * 1024
KEPT_EXECS = 100
"""So many ended execs are remembered for those who ask late."""


class Refused(Exception):
    """A request that cannot be done; the message goes to whoever asked."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Execution:
    """An exec: its task, the connection that prepared it, and who waits for its start and end. `about` is the daemon's
    own description of it, kept for the daemon that comes after."""

    def __init__(self, task: Task, owner: Connection, prepared: Reply, about: str) -> None:
        self.task = task
        self.about = about
        self.owner = owner
        self.prepared: Reply | None = prepared
        self.starting: Reply | None = None
        self.waiting: list[Reply] = []


class Monitor:
    def __init__(self, job: Job, maker: Maker) -> None:
        self._maker = maker
        self._state_dir = job.state_dir
        self._root = job.config.root
        self._images = [str(mount["target"]) for mount in job.images]
        self._ports = job.ports
        self._poller = Poller()
        self._control = Control(self._poller, self._request, self._on_lost)
        self._reaps = job.config.namespaces.get("pid") != "" or job.runtime is not None
        self._strangers = False
        self._ooms = 0
        self._born: Reply | None = self._control.adopt(job.channel).send
        self._starting: Reply | None = None
        self._waiting: list[Reply] = []
        self._execs: dict[str, Execution] = {}
        self._over_at: float | None = None
        self._folder = os.open(self._state_dir, os.O_DIRECTORY | os.O_CLOEXEC)
        self._init = maker.task(self._poller, open_log(job.log), tty=job.config.process.terminal, stdin=job.open_stdin,
                                stdin_once=job.stdin_once)
        self._init.on_ready = self._on_ready
        self._init.on_started = self._on_started
        self._init.on_ended = self._on_init_end

    # -- life

    @property
    def _group(self) -> Cgroup | None:
        return self._maker.group

    def bear(self) -> None:
        """The container's process. Raises OSError."""
        self._maker.bear(self._init)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(EXIT, dir_fd=self._folder)
        self._control.listen(self._folder)

    def serve(self) -> None:
        """Until the container has ended and nobody needs its monitor any more."""
        gc.enable()
        if self._reaps:
            self._reap_strangers()
        while self._over_at is None:
            self._poller.wait(None)
            if self._strangers:
                self._reap()
        # Whoever is connected may be about to ask how it ended; they close when they know.
        while (self._busy or self._control.connections) and (left := self._over_at - time.monotonic()) > 0:
            self._poller.wait(left)

    @property
    def _busy(self) -> bool:
        return self._init.streams.busy or any(held.task.streams.busy for held in self._execs.values())

    def _reap_strangers(self) -> None:
        """Without a pid namespace of its own the container's orphans become this process's children; and another
        runtime's do in any case. While one of a pid namespace is not reaped, its first process cannot end."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def hear(_fd: int, _events: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(reading, 4096)
            self._strangers = True

        self._poller.watch(reading, READ, hear)

    def _reap(self) -> None:
        """Children that nobody else waits for. A process that is at work may yet give us one that is ours."""
        if self._init.making or any(held.task.making for held in self._execs.values()):
            return
        self._strangers = False
        ours = {self._init.pid, *(held.task.pid for held in self._execs.values() if held.task.status is None)}
        for pid in children():
            if pid not in ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _on_ready(self, report: dict[str, object]) -> None:
        assert self._group is not None
        warnings = report.get("warnings")
        assert isinstance(warnings, list)
        with contextlib.suppress(CgroupError):  # a host without the memory controller
            self._ooms = self._group.oom_events()
        if self._born is not None:
            self._born({"id": 0, "pid": self._init.pid, "warnings": [*self._group.warnings, *warnings]})
            self._born = None

    def _on_started(self) -> None:
        if self._starting is not None:
            self._starting({"pid": self._init.pid})
            self._starting = None

    def _on_init_end(self) -> None:
        """The order is the promise: see the module's own words."""
        self._kill_group()
        for held in list(self._execs.values()):
            held.task.finish()
        self._init.streams.finish()
        status = {**(self._init.status or {}), "oom_killed": self._oom_killed(), "pid": self._init.pid, "error": ""}
        # Before anyone is told: the next start of this container makes the same group, mounts the same root and takes
        # the same ports.
        try:
            self._maker.bury()
        except OSError as error:
            # What the kernel does not let go is left for the daemon to find.
            complain(self._state_dir, f"cgroup: {error}")
        for target in (*self._images, self._root):
            roots.unmount_root(target)
        for fd in self._ports:
            os.close(fd)
        self._init.status = status
        if self._init.started:
            write_exit(self._state_dir, status)
        self._over_at = time.monotonic() + LINGER
        self._answer(status)

    def _kill_group(self) -> None:
        """Also what shares the group but not the pid namespace."""
        try:
            if self._group is not None:
                self._group.kill()
        except OSError as error:
            complain(self._state_dir, f"{error}")

    def _oom_killed(self) -> bool:
        try:
            return self._group is not None and self._group.oom_events() > self._ooms
        except CgroupError:
            return False

    def _answer(self, status: dict[str, object]) -> None:
        failure = dict(self._init.failure or {"error": "the container was never started", "kind": "other"})
        if status["oom_killed"]:
            failure["error"] = "container init was OOM-killed (memory limit too low?)"
        if self._born is not None:
            self._born({"id": 0, **failure})
        if self._starting is not None:
            self._starting(failure)
        for reply in self._waiting:
            reply(status if self._init.started else failure)
        self._waiting.clear()

    # -- requests

    def _on_lost(self, connection: Connection) -> None:
        if not self._init.started and not self._control.connections:
            # Whoever had this container made is gone and it never ran: nobody else knows of it.
            with contextlib.suppress(ProcessLookupError):
                self._kill_all({}, lambda _answer: None, connection)
        for held in list(self._execs.values()):
            if held.owner is connection and not held.task.started:
                with contextlib.suppress(ProcessLookupError):
                    held.task.signal(signal.SIGKILL)

    def _request(self, connection: Connection, message: dict[str, object]) -> bool:
        """Carry out one request; False when the connection has become a stream."""
        number = message.get("id", 0)

        def reply(answer: dict[str, object]) -> None:
            connection.send({**answer, "id": number})

        try:
            if message.get("op") == "attach":
                self._attach(connection, message, reply)
                return False
            handler = self._OPERATIONS.get(str(message.get("op")))
            if handler is None:
                raise Refused(f"unknown operation {message.get('op')!r}")
            handler(self, message, reply, connection)
        except Refused as error:
            reply({"error": str(error), "kind": error.kind})
        except (OSError, ValueError, KeyError, TypeError) as error:
            reply({"error": str(error), "kind": "gone" if isinstance(error, ProcessLookupError) else "other"})
        return True

    def _info(self, _message: dict[str, object], reply: Reply, _from: Connection) -> None:
        reply({"pid": self._init.pid, "started": self._init.started, "tty": self._init.streams.tty})

    def _start(self, _message: dict[str, object], reply: Reply, _from: Connection) -> None:
        if self._init.started or self._starting is not None:
            raise Refused("the container has been started")
        self._init.tell(b"go")
        self._starting = reply

    def _signal(self, message: dict[str, object], reply: Reply, _from: Connection) -> None:
        self._init.signal(_int(message["number"]))
        reply({})

    def _kill_all(self, _message: dict[str, object], reply: Reply, _from: Connection) -> None:
        """The end of the container's process brings the end of the others (`_on_init_end`)."""
        self._init.signal(signal.SIGKILL)
        if self._group is not None:
            with contextlib.suppress(CgroupError):  # no freezer: nothing is frozen
                self._group.thaw()  # a frozen process does not die of SIGKILL on version 1
        reply({})

    def _resize(self, message: dict[str, object], reply: Reply, _from: Connection) -> None:
        self._task(message).streams.resize(_int(message["rows"]), _int(message["columns"]))
        reply({})

    def _wait(self, _message: dict[str, object], reply: Reply, _from: Connection) -> None:
        self._waiting.append(reply)
        if self._over_at is not None:
            assert self._init.status is not None
            self._answer(self._init.status)

    def _attach(self, connection: Connection, message: dict[str, object], reply: Reply) -> None:
        task = self._task(message)
        if task.status is not None:
            raise Refused("the process has ended", "gone")
        wants = frozenset(stream for name, stream in (("stdout", STDOUT), ("stderr", STDERR)) if message.get(name))
        reply({"ok": True})
        client = Client(connection.release(), wants, feeds=bool(message.get("stdin")))
        client.pending += connection.outgoing
        task.streams.attach(client, bytes(connection.incoming))

    # -- execs

    def _exec(self, message: dict[str, object], reply: Reply, connection: Connection) -> None:
        name = str(message["exec"])
        if name in self._execs:
            raise Refused(f"exec {name} exists")
        if not self._init.started or self._init.pidfd < 0 or self._group is None:
            raise Refused("the container is not running", "gone")
        process = message["process"]
        if not isinstance(process, dict):
            raise TypeError("process is not an object")
        task = self._maker.task(self._poller, None, tty=bool(process.get("terminal")),
                                stdin=bool(message.get("stdin")), stdin_once=True)
        held = Execution(task, connection, reply, str(message.get("about", ""))[:MAX_ABOUT])
        task.on_ready = lambda _report: self._exec_ready(held)
        task.on_started = lambda: self._exec_started(held)
        task.on_ended = lambda: self._on_exec_end(held)
        try:
            self._maker.execute(task, process, self._init)
        except NoContainer as error:
            raise Refused("the container is not running", "gone") from error
        self._execs[name] = held

    @staticmethod
    def _exec_ready(held: Execution) -> None:
        if held.prepared is not None:
            held.prepared({"pid": held.task.pid})
            held.prepared = None

    @staticmethod
    def _exec_started(held: Execution) -> None:
        if held.starting is not None:
            held.starting({"pid": held.task.pid})
            held.starting = None

    def _exec_start(self, message: dict[str, object], reply: Reply, _from: Connection) -> None:
        held = self._execution(message)
        if held.task.started or held.starting is not None:
            raise Refused("the exec has been started")
        held.task.tell(b"go")
        held.starting = reply

    def _on_exec_end(self, held: Execution) -> None:
        held.task.streams.finish()
        failure = held.task.failure
        for waiter in (held.prepared, held.starting):
            if waiter is not None and failure is not None:
                waiter(failure)
        held.prepared = held.starting = None
        for reply in held.waiting:
            reply(failure or dict(held.task.status or {}))
        held.waiting.clear()
        ended = [name for name, other in self._execs.items() if other.task.status is not None]
        for name in ended[:-KEPT_EXECS]:
            if not self._execs[name].task.streams.busy:
                del self._execs[name]

    def _exec_signal(self, message: dict[str, object], reply: Reply, _from: Connection) -> None:
        self._execution(message).task.signal(_int(message["number"]))
        reply({})

    def _list_execs(self, _message: dict[str, object], reply: Reply, _from: Connection) -> None:
        reply({"execs": [{"exec": name, "about": held.about, "pid": held.task.pid, "status": held.task.status}
                         for name, held in self._execs.items() if held.task.started]})

    def _exec_wait(self, message: dict[str, object], reply: Reply, _from: Connection) -> None:
        held = self._execution(message)
        if held.task.status is None:
            held.waiting.append(reply)
        else:
            reply(held.task.failure or dict(held.task.status))

    def _execution(self, message: dict[str, object]) -> Execution:
        held = self._execs.get(str(message.get("exec")))
        if held is None:
            raise Refused(f"no exec {message.get('exec')}", "gone")
        return held

    def _task(self, message: dict[str, object]) -> Task:
        return self._execution(message).task if message.get("exec") else self._init

    _OPERATIONS: dict[str, Callable[[Monitor, dict[str, object], Reply, Connection], None]] = {  # noqa: RUF012 -- never changed
        "info": _info, "start": _start, "signal": _signal, "kill_all": _kill_all, "resize": _resize, "wait": _wait,
        "exec": _exec, "exec_start": _exec_start, "exec_wait": _exec_wait, "exec_signal": _exec_signal,
        "execs": _list_execs,
    }


def live(job: Job) -> None:
    """A spare process of the launcher, already standing alone, becomes the monitor of one container and ends with it.
    Never returns."""
    channel, state_dir = job.channel, job.state_dir
    monitor: Monitor | None = None
    try:
        syscalls.set_name("seawall-monitor")
        trees = place.own_mounts(job.host, job.config.shared_sources(), job.config.foreign_sources())
        os.close(job.host)
        user = identity.of(job.config)
        for mount in job.rootfs:
            roots.mount_root(mount, job.config.root, user)
        for mount in job.images:
            roots.mount_root(mount, str(mount["target"]), user)
        if job.files:
            # The last descriptor holds their contents: on a tmpfs of this mount namespace nobody else meets them.
            place.write_files(os.path.join(state_dir, place.FILES), job.files, job.ports.pop(), user)
        id_maps = place.id_maps(job.config)
        make = Native if job.runtime is None else Foreign
        monitor = Monitor(job, make(job, trees, id_maps, user))
        del job, trees, id_maps  # config.json's objects are of no use any more
        monitor.bear()
        monitor.serve()
    except BaseException as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if monitor is None:
            refuse(channel, text or type(error).__name__)
        else:
            complain(state_dir, f"the monitor failed: {error!r}")
    finally:
        os._exit(0)


def refuse(channel: socket.socket, text: str) -> None:
    """Answer a launch request that cannot be carried out."""
    with contextlib.suppress(OSError):
        channel.sendall(frame({"id": 0, "error": text, "kind": "other"}))


def write_exit(state_dir: str, status: dict[str, object]) -> None:
    """exit.json, whole or not at all, and durable."""
    temporary, final = os.path.join(state_dir, f".{EXIT}"), os.path.join(state_dir, EXIT)
    try:
        with open(temporary, "w") as file:
            json.dump(status, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
    except FileNotFoundError:
        return  # the container was removed while it ended
    except OSError as error:
        complain(state_dir, f"{EXIT}: {error}")


def complain(state_dir: str, text: str) -> None:
    """Into a file beside exit.json: there is nobody to hear it now."""
    with contextlib.suppress(OSError), open(os.path.join(state_dir, COMPLAINTS), "a") as file:
        file.write(text + "\n")


def children() -> list[int]:
    """This process's children."""
    with open("/proc/thread-self/children") as file:
        return [int(word) for word in file.read().split()]


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a number: {value!r}")
    return value
