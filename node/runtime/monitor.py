"""The process that owns one container: its streams, log, execs and exit status. It outlives daemon and launcher.

It answers on `<state_dir>/monitor.sock` (frames of `wire`; only its own user is heard):

    {"op": "start"}                                  → {"pid"} or {"error", "kind"}
    {"op": "signal", "number"} · {"op": "kill_all"} · {"op": "resize", "rows", "columns", "exec"}
    {"op": "wait"}                                   → the exit status, when there is one
    {"op": "attach", "stdin", "stdout", "stderr", "exec"} → {"ok"}, then the connection is the stream
    {"op": "exec", "exec", "process", "stdin"}       → {"pid"} · {"op": "exec_start", "exec"} · {"op": "exec_wait", …}

Every request carries an `id` that its answer repeats. What must not be lost is on disk before anyone is told: the log
is closed and exit.json renamed into place, then waiters are answered, then the group is deleted and the monitor ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

from node.linux import seccomp, syscalls
from node.linux.cgroups.store import Cgroup, Cgroups
from node.runtime import birth, spec
from node.runtime.logs import JsonLog
from node.runtime.streams import Client
from node.runtime.tasks import Task, become_subreaper
from node.runtime.wire import STDERR, STDOUT, frame, take

SOCKET = "monitor.sock"
EXIT = "exit.json"
LINGER = 30.0
"""Seconds that clients get, after the end, to read what is left and to ask how it ended."""

Reply = Callable[[dict[str, object]], None]


class Refused(Exception):
    """A request that cannot be done; the message goes to whoever asked."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Connection:
    """One client of the control socket."""

    def __init__(self, monitor: Monitor, channel: socket.socket) -> None:
        self.monitor = monitor
        self.channel = channel
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def handle(self, _fd: int, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write()
        if mask & selectors.EVENT_READ:
            self._read()

    def _read(self) -> None:
        try:
            data = self.channel.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.monitor.forget(self)
            return
        self.incoming += data
        try:
            while (message := take(self.incoming)) is not None:
                if not self.monitor.request(self, message):
                    return  # the connection is a stream now
        except ValueError:
            self.monitor.forget(self)

    def send(self, message: dict[str, object]) -> None:
        self.outgoing += frame(message)
        self._write()

    def _write(self) -> None:
        try:
            while self.outgoing:
                del self.outgoing[:self.channel.send(self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.monitor.forget(self)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outgoing else 0)
        if self in self.monitor.connections:
            self.monitor.selector.modify(self.channel, mask, self.handle)


class Monitor:
    def __init__(
        self, request: dict[str, object], config: spec.Config, group: Cgroup, groups: Cgroups,
        program: bytes | None, flags: int, kept: list[int],
    ) -> None:
        self._kept = kept
        self._config = config
        self._group = group
        self._groups = groups
        self._program = program
        self._flags = flags
        self._state_dir = str(request["state_dir"])
        self.selector = selectors.DefaultSelector()
        self.connections: list[Connection] = []
        self._waiting: list[Reply] = []
        self._exec_waiting: dict[str, list[Reply]] = {}
        self._execs: dict[str, Task] = {}
        self._starts: dict[str, Reply] = {}
        self._ooms = group.oom_events()
        self._over_at: float | None = None
        self._starting: Reply | None = None
        log = str(request["log_path"] or "")
        sink = JsonLog(log, _int(request["log_max_size"]), _int(request["log_max_files"])) if log else None
        self.init = Task(self.selector, sink, tty=config.process.terminal, stdin=bool(request["open_stdin"]),
                         stdin_once=bool(request["stdin_once"]))

    # -- life

    def run(self, born: Reply) -> None:
        """Start the container's process up to its command, answer `born` once, serve until the end."""
        listener = self._listen()

        def report(message: dict[str, object]) -> None:
            nonlocal born
            if message.get("ready"):
                born({"pid": self.init.pid, "warnings": [*self._group.warnings, *_texts(message.get("warnings"))]})
            elif self._starting is not None:
                self._starting(message if "error" in message else {"pid": self.init.pid})
                self._starting = None
            elif "error" in message:
                born(message)

        self.init.fork(
            lambda sync, stdio: birth.be_born(sync, self._config, self._group, self._groups, self._program,
                                              self._flags, stdio),
            report, self._on_init_end)
        self.selector.register(listener, selectors.EVENT_READ, lambda _fd, _mask: self._accept(listener))
        while not self._finished():
            timeout = None if self._over_at is None else max(0.0, self._over_at - time.monotonic())
            for key, mask in self.selector.select(timeout):
                # An earlier callback of this round may have closed what this one is about.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fd, mask)

    def _finished(self) -> bool:
        if self._over_at is None:
            return False
        busy = self.init.streams.busy or any(task.streams.busy for task in self._execs.values())
        # Whoever is connected may be about to ask how it ended; they close when they know.
        return (not busy and not self.connections) or time.monotonic() >= self._over_at

    def _on_init_end(self) -> None:
        self._group.kill()  # also what shares the group but not the pid namespace
        self._await_execs()
        self.init.streams.finish()
        status = dict(self.init.status or {})
        status["oom_killed"] = self._group.oom_events() > self._ooms
        # Before anyone is told: the next start of this container makes a group of the same name and binds the ports
        # that were held here.
        delete_group(self._group)
        for fd in self._kept:
            os.close(fd)
        if self.init.started:
            write_exit(self._state_dir, {**status, "pid": self.init.pid, "error": ""})
        self.init.status = status
        self._over_at = time.monotonic() + LINGER
        for reply in self._waiting:
            reply(status)
        self._waiting.clear()

    def _await_execs(self) -> None:
        """The end of the pid namespace's first process kills the others; their statuses are still wanted."""
        for task in self._execs.values():
            if task.status is None and task.pidfd >= 0:
                try:
                    task.signal(signal.SIGKILL)
                except ProcessLookupError:
                    continue
                task._on_end(task.pidfd, 0)  # noqa: SLF001 -- waits for the process, which is certain to end

    # -- the control socket

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self._state_dir, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for old in (SOCKET, EXIT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(old, dir_fd=folder)
            # sun_path holds 107 bytes and a state folder may be deeper: go through the descriptor.
            mask = os.umask(0o177)
            listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
            os.umask(mask)
        finally:
            os.close(folder)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            channel, _ = listener.accept()
        except OSError:
            return
        _pid, uid, _gid = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            channel.close()
            return
        channel.setblocking(False)
        connection = Connection(self, channel)
        self.connections.append(connection)
        self.selector.register(channel, selectors.EVENT_READ, connection.handle)

    def forget(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self.selector.unregister(connection.channel)
        connection.channel.close()
        if not self.connections and not self.init.started and self.init.status is None:
            # Whoever had this container made is gone and it never ran: nobody else knows of it.
            self.kill_all()

    def request(self, connection: Connection, message: dict[str, object]) -> bool:
        """Carry out one request; False when the connection has become a stream."""
        number = message.get("id", 0)

        def reply(answer: dict[str, object]) -> None:
            connection.send({**answer, "id": number})

        handler = self._OPERATIONS.get(str(message.get("op")))
        try:
            if message.get("op") == "attach":
                self._attach(connection, message, reply)
                return False
            if handler is None:
                raise Refused(f"unknown operation {message.get('op')!r}")
            handler(self, message, reply)
        except Refused as error:
            reply({"error": str(error), "kind": error.kind})
        except (OSError, ValueError, KeyError, TypeError) as error:
            reply({"error": str(error), "kind": "gone" if isinstance(error, ProcessLookupError) else "other"})
        return True

    # -- operations

    def _info(self, _message: dict[str, object], reply: Reply) -> None:
        reply({"pid": self.init.pid, "started": self.init.started, "tty": self.init.streams.tty})

    def _start(self, _message: dict[str, object], reply: Reply) -> None:
        self._starting = reply
        try:
            self.init.go()
        except OSError:
            self._starting = None
            raise

    def _signal(self, message: dict[str, object], reply: Reply) -> None:
        self.init.signal(_int(message["number"]))
        reply({})

    def _kill_all(self, _message: dict[str, object], reply: Reply) -> None:
        self.kill_all()
        reply({})

    def kill_all(self) -> None:
        try:
            self.init.signal(signal.SIGKILL)
        except ProcessLookupError:
            return
        self._group.thaw()  # a frozen process does not die of SIGKILL on version 1

    def _resize(self, message: dict[str, object], reply: Reply) -> None:
        self._task(message).streams.resize(_int(message["rows"]), _int(message["columns"]))
        reply({})

    def _wait(self, _message: dict[str, object], reply: Reply) -> None:
        if self._over_at is not None:
            reply(dict(self.init.status or {}))
        else:
            self._waiting.append(reply)

    def _attach(self, connection: Connection, message: dict[str, object], reply: Reply) -> None:
        task = self._task(message)
        if task.status is not None:
            raise Refused("the process has ended", "gone")
        wants = frozenset(stream for name, stream in (("stdout", STDOUT), ("stderr", STDERR)) if message.get(name))
        reply({})
        self.connections.remove(connection)
        self.selector.unregister(connection.channel)
        client = Client(connection.channel, wants, feeds=bool(message.get("stdin")))
        client.pending += connection.outgoing
        task.streams.attach(client)

    def _exec(self, message: dict[str, object], reply: Reply) -> None:
        name = str(message["exec"])
        if name in self._execs:
            raise Refused(f"exec {name} exists")
        if not self.init.started or self.init.status is not None:
            raise Refused("the container is not running", "gone")
        process = spec.process(message["process"])
        task = Task(self.selector, None, tty=process.terminal, stdin=bool(message.get("stdin")), stdin_once=True)
        waiting: list[Reply] = [reply]

        def report(answer: dict[str, object]) -> None:
            if waiting:
                waiting.pop()(answer if "error" in answer else {"pid": task.pid})
            elif name in self._starts:
                self._starts.pop(name)(answer if "error" in answer else {"pid": task.pid})

        init = os.pidfd_open(self.init.pid)
        try:
            task.fork(
                lambda sync, stdio: birth.be_executed(sync, process, init, self._group, self._program, self._flags,
                                                      stdio),
                report, lambda: self._on_exec_end(name))
        finally:
            os.close(init)
        self._execs[name] = task

    def _exec_start(self, message: dict[str, object], reply: Reply) -> None:
        task = self._task(message)
        name = str(message["exec"])
        self._starts[name] = reply
        try:
            task.go()
        except OSError:
            del self._starts[name]
            raise

    def _on_exec_end(self, name: str) -> None:
        task = self._execs[name]
        task.streams.finish()
        for reply in self._exec_waiting.pop(name, []):
            reply(dict(task.status or {}))
        ended = [key for key, other in self._execs.items() if other.status is not None and not other.streams.busy]
        for key in ended[:-100]:
            del self._execs[key]

    def _exec_wait(self, message: dict[str, object], reply: Reply) -> None:
        task = self._task(message)
        if task.status is not None:
            reply(dict(task.status))
        else:
            self._exec_waiting.setdefault(str(message["exec"]), []).append(reply)

    def _task(self, message: dict[str, object]) -> Task:
        name = message.get("exec")
        if not name:
            return self.init
        try:
            return self._execs[str(name)]
        except KeyError:
            raise Refused(f"no exec {name}", "gone") from None

    _OPERATIONS: dict[str, Callable[[Monitor, dict[str, object], Reply], None]] = {  # noqa: RUF012 -- never changed
        "info": _info, "start": _start, "signal": _signal, "kill_all": _kill_all, "resize": _resize, "wait": _wait,
        "exec": _exec, "exec_start": _exec_start, "exec_wait": _exec_wait,
    }


def live(
    request: dict[str, object], channel: socket.socket, config: spec.Config, groups: Cgroups, program: bytes | None,
    kept: list[int],
) -> None:
    """A forked launcher becomes the monitor of one container, and ends with it. Never returns."""
    group: Cgroup | None = None
    answered = False

    def born(answer: dict[str, object]) -> None:
        nonlocal answered
        answered = True
        try:
            channel.sendall(frame(answer))
        except OSError:
            return

    try:
        _stand_alone()
        for mount in request["rootfs"]:  # type: ignore[attr-defined]
            _mount_root(mount, config.root)
        group = groups.create(config.cgroup, config.resources)
        _enter_pid_namespace(config)
        flags = seccomp.filter_flags(config.seccomp) if config.seccomp else 0
        monitor = Monitor(request, config, group, groups, program, flags, kept)
        monitor.run(born)
    except BaseException as error:
        if not answered:
            text = f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
            born({"error": text or type(error).__name__, "kind": "other"})
        else:
            sys.stderr.write(f"monitor of {request.get('container_id')}: {error!r}\n")
    finally:
        if group is not None and not answered:
            delete_group(group)
        os._exit(0)


def delete_group(group: Cgroup) -> None:
    """With whoever is still in it. What the kernel does not let go is left for the daemon to find."""
    try:
        group.kill()
        group.delete()
    except OSError as error:
        sys.stderr.write(f"cgroup {group.path}: {error}\n")


def _stand_alone() -> None:
    """Out of the daemon's session, process group, folder and signal settings; in a mount namespace of our own."""
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    become_subreaper("seawall-monitor")
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_SLAVE | syscalls.MS_REC)


_FLAGS = {"ro": syscalls.MS_RDONLY, "nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV,
          "noexec": syscalls.MS_NOEXEC}


def _mount_root(mount: dict[str, object], target: str) -> None:
    """The root file system, in this process's mount namespace alone: when the monitor ends, however it ends, the
    mount is gone."""
    os.makedirs(target, mode=0o700, exist_ok=True)
    options = [str(option) for option in mount["options"]]  # type: ignore[attr-defined]
    flags = sum(_FLAGS[option] for option in options if option in _FLAGS)
    if mount["type"] == "bind":
        recursive = syscalls.MS_REC if "rbind" in options else 0
        syscalls.mount(str(mount["source"]), target, flags=syscalls.MS_BIND | recursive)
        return
    data = ",".join(option for option in options if option not in _FLAGS)
    if mount["cwd"]:
        os.chdir(str(mount["cwd"]))
    syscalls.mount(str(mount["source"]) or "overlay", target, str(mount["type"]), flags, data)
    os.chdir("/")


def _enter_pid_namespace(config: spec.Config) -> None:
    """All later children of this process are born in the container's pid namespace, execs too."""
    path = config.namespaces.get("pid")
    if path == "":
        syscalls.unshare(syscalls.CLONE_NEWPID)
    elif path:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(fd, syscalls.CLONE_NEWPID)
        os.close(fd)


def write_exit(state_dir: str, status: dict[str, object]) -> None:
    """exit.json, whole or not at all, and durable."""
    temporary, final = os.path.join(state_dir, f".{EXIT}"), os.path.join(state_dir, EXIT)
    try:
        with open(temporary, "w") as file:
            json.dump(status, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
    except OSError as error:
        if error.errno != errno.ENOENT:  # the container was removed while it ended
            raise


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a number: {value!r}")
    return value


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
