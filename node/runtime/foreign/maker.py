"""The maker (node.runtime.births.Maker) whose processes another runtime's program makes.

In the container's folder lies `oci/`: the bundle, the runtime's own state (`--root`), its log. `create` waits for the
container's first process to stand ready and leaves it to us; leave to go is the runtime's `start`; an exec is one
detached `exec`, begun when it is started. At the end `delete` takes the runtime's state away.
"""

from __future__ import annotations

import contextlib
import json
import os

from node.linux import syscalls
from node.runtime.births import NoContainer
from node.runtime.foreign import bundle
from node.runtime.foreign.command import Command, failure, words
from node.runtime.foreign.task import Commanded
from node.runtime.poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from node.linux.cgroups.store import Cgroup
    from node.runtime.foreign.task import End
    from node.runtime.identity import UserNamespace
    from node.runtime.job import Job
    from node.runtime.logchoice import Log
    from node.runtime.tasks import Task

FOLDER = "oci"
DELETE_SECONDS = 10.0


class Foreign:
    def __init__(self, job: Job, trees: dict[int, int], id_maps: dict[object, int], user: UserNamespace | None) -> None:
        """Raises OSError."""
        assert job.runtime is not None
        arguments = job.runtime["arguments"]
        assert isinstance(arguments, list)
        self.group: Cgroup | None = None
        self._program = str(job.runtime["program"])
        self._arguments = [str(argument) for argument in arguments]
        hidden = job.runtime["hidden"]
        assert isinstance(hidden, list)
        self._hidden = [str(path) for path in hidden]
        self._groups = job.groups
        self._cgroup = job.config.cgroup
        self._size = job.config.process.console
        self._id = job.container_id
        self._place = os.path.join(job.state_dir, FOLDER)
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        self._folder = os.open(self._place, os.O_DIRECTORY | os.O_CLOEXEC)
        self._places = bundle.write(job, self._place, trees, id_maps, user)
        self._poller: Poller | None = None
        self._count = 0

    def task(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> Commanded:
        self._poller = poller
        return Commanded(poller, log, tty=tty, stdin=stdin, stdin_once=stdin_once)

    def bear(self, task: Task) -> None:
        assert isinstance(task, Commanded)
        self._delete()  # what a monitor that was killed has left
        name, words_in, pid_file = self._names()
        task.explain = lambda: failure(self._said(words_in))

        def begin(stdio: tuple[int, int, int], console: str, end: End) -> Command:
            rest = ["--console-socket", console] if console else []
            return self._run(words_in, ["create", "--bundle", self._place, "--pid-file", pid_file, *rest, self._id],
                             stdio, end)

        def ready() -> None:
            self.group = self._groups.open(self._cgroup)
            task.on_ready({"ready": True, "warnings": []})

        task.on_go(lambda: task.run(lambda end: self._run(words_in, ["start", self._id], None, end)))
        task.make(begin, lambda: _pid(pid_file), folder=self._folder, name=name, size=self._size, waits=True,
                  then=ready)

    def execute(self, task: Task, process: dict[str, object], init: Task) -> None:
        assert isinstance(task, Commanded)
        if init.status is not None:
            raise NoContainer
        name, words_in, pid_file = self._names()
        size = process.get("consoleSize") or {}
        assert isinstance(size, dict)
        whole = json.dumps(process).encode()

        def explain() -> dict[str, object]:
            said = failure(self._said(words_in))
            return said if init.status is None else {"error": "the container is not running", "kind": "gone"}

        def begin(stdio: tuple[int, int, int], console: str, end: End) -> Command:
            # In memory only: its environment may hold secrets.
            about = os.memfd_create("process", os.MFD_CLOEXEC)
            with os.fdopen(about, "wb", closefd=False) as file:
                file.write(whole)

            def over(status: int) -> None:
                os.close(about)
                end(status)
                _unlink(words_in)

            rest = ["--console-socket", console] if console else []
            return self._run(words_in, ["exec", "--detach", "--process", f"/proc/{os.getpid()}/fd/{about}",
                                        "--pid-file", pid_file, *rest, self._id], stdio, over)

        task.explain = explain
        task.on_go(lambda: task.make(
            begin, lambda: _pid(pid_file), folder=self._folder, name=name, waits=False,
            size=(int(size.get("height", 0)), int(size.get("width", 0))), then=task.start_running,
        ))
        # Whether its command is there only the runtime can say, when it runs it.
        task.on_ready({"ready": True, "warnings": []})

    def bury(self) -> None:
        self._delete()
        _end_strays()
        group = self.group
        if group is None:
            # Its making failed; who knows how far it had come.
            group = self._groups.open(self._cgroup)
            group.kill()
        group.delete()
        for place in self._places:
            _unmount(place)

    # -- the runtime's program

    def _names(self) -> tuple[str, str, str]:
        """Of a console's socket, a log and a pid file."""
        self._count += 1
        name = f"{self._count}"
        return f"{name}.sock", os.path.join(self._place, f"{name}.log"), os.path.join(self._place, f"{name}.pid")

    def _argv(self, log: str, words_: list[str]) -> list[str]:
        systemd = ["--systemd-cgroup"] if bundle.by_systemd(self._cgroup) else []
        return [self._program, *self._arguments, "--root", os.path.join(self._place, "state"), *systemd,
                "--log", log, "--log-format", "json", *words_]

    def _run(self, log: str, words_: list[str], stdio: tuple[int, int, int] | None, end: End) -> Command:
        assert self._poller is not None
        return _command(self._poller, self._argv(log, words_), stdio, end, self._hide)

    def _hide(self) -> None:
        """In the program's process: what would keep it from working here is not mounted for it. The monitor's mounts
        only receive from the host's, so this reaches nobody; but for those that give, which stay as they are."""
        if self._hidden:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        for path in self._hidden:
            syscalls.umount(path, syscalls.MNT_DETACH)

    def _said(self, log: str) -> str:
        return words(log, os.path.basename(self._program))

    def _delete(self) -> None:
        """The runtime's state, waited for: the next run of the container needs the place."""
        if not os.path.isdir(os.path.join(self._place, "state", self._id)):
            return
        _name, log, _pid_file = self._names()
        ended: list[int] = []
        poller = Poller()
        command = _command(poller, self._argv(log, ["delete", "--force", self._id]), None, ended.append, self._hide)
        poller.wait(DELETE_SECONDS)
        if not ended:
            command.kill()
        poller.close()
        _unlink(log)


def _command(poller: Poller, argv: list[str], stdio: tuple[int, int, int] | None, end: End,
             ready: Callable[[], None]) -> Command:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return Command(poller, argv, stdio or (null, null, null), end, ready)
    finally:
        os.close(null)


def _end_strays() -> None:
    """What a runtime that failed or was killed has left of itself came to us, and sees the host."""
    with open("/proc/thread-self/children") as file:
        for word in file.read().split():
            os.kill(int(word), 9)  # ours, and not reaped: the number is no other's


def _pid(path: str) -> int:
    with open(path) as file:
        found = int(file.read())
    _unlink(path)
    return found


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _unmount(place: str) -> None:
    """Here alone: of a shared mount the host, too, would lose what the container mounted on it."""
    with contextlib.suppress(OSError):
        syscalls.mount("", place, flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
        syscalls.umount(place, syscalls.MNT_DETACH)
