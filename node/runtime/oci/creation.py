"""create, run and start: from a bundle to a process."""

from __future__ import annotations

import _socket
import os
import time

from node.linux import capabilities, cgroups
from node.linux.cgroups import CgroupError
from node.runtime import birth, hooks, identity, jsontext, namespaces, place, spec
from node.runtime.oci import ending, parent, store
from node.runtime.oci.failure import NOT_RUN, Failure, Journal, reason
from node.runtime.oci.store import Made

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.linux.cgroups.store import Cgroup, Cgroups
    from node.runtime.asking import Agent
    from node.runtime.oci.arguments import Given
    from node.runtime.oci.store import Container, Store

DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, -1))
"""null, zero, full, random, urandom, tty, ptmx and pseudo-terminals."""


def create(shelf: Store, journal: Journal, given: Given) -> int:
    making = Making(shelf, journal, given)
    making.make(started=False)
    return 0


def run(shelf: Store, journal: Journal, given: Given) -> int:
    from node.runtime.oci import foreground

    making = Making(shelf, journal, given)
    signals = -1 if given.switch("detach") else foreground.listen()
    try:
        child, made = making.make(started=True)
        making.hooks("poststart", made)
        if given.switch("detach"):
            return 0
        result = foreground.attend(child, signals)
    except Failure as error:
        raise Failure(str(error), NOT_RUN) from error
    if not given.switch("keep"):
        making.destroy(made)
    return result


def start(shelf: Store, journal: Journal, given: Given) -> int:
    container = shelf.open(given.words[0])
    container.lock()
    made = container.read()
    status = store.status(container, made, None)
    if made is None or status != "created":
        raise Failure(f"cannot start a container that is {status}")
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        channel.connect(container.path(store.START))
        channel.send(b"go")
    except ConnectionError as error:
        # It was told already, by a start that did not live to take the socket away.
        os.unlink(store.START, dir_fd=container.fd)
        raise Failure("cannot start a container that is running") from error
    os.unlink(store.START, dir_fd=container.fd)
    child = parent.Child(made.pid, channel)
    data = container.load(store.CONFIG)
    if b"listenerPath" in data:
        document = jsontext.loads(data)
        assert isinstance(document, dict)
        child.agent = asked(document.get("linux", {}).get("seccomp"), ending.state(made, "created"))
    child.executed()
    ending.run_hooks("poststart", container, made, "running", journal)
    return 0


class Making:
    """One container from its bundle to a child that is ready; whatever fails, nothing is left."""

    def __init__(self, shelf: Store, journal: Journal, given: Given) -> None:
        self._shelf = shelf
        self._journal = journal
        self._given = given
        self._preserve, self._listening = parent.preserved(given.number("preserve-fds"))
        self._bundle = os.path.realpath(given.text("bundle", "."))
        self._data = _read(self._bundle)
        self._groups: Cgroups = cgroups.detect(driver=shelf.driver)
        self._config = spec.parse(_document(self._data, given.words[0], shelf.driver), self._bundle)
        self._container: Container = shelf.make(given.words[0])
        self._group: Cgroup | None = None
        self._child: parent.Child | None = None
        self._created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + _fraction()

    def make(self, *, started: bool) -> tuple[parent.Child, Made]:
        """`started`: it is let go at once, and has executed its command on return."""
        try:
            self._container.save(store.CONFIG, self._data)
            door = None if started else self._door()
            child = self._child = self._fork(door)
            self._make_group(child)
            child.follow({"hooks": lambda: self._run_hosts_hooks(child)})
            made = self._note(child)
            self._console(child)
            if pid_file := self._given.text("pid-file"):
                write_pid(pid_file, child.pid)
            if started:
                child.tell(b"go")
                child.executed()
        except BaseException:
            self._undo()
            raise
        for warning in (*child.warnings, *(self._group.warnings if self._group else ())):
            self._journal.warning(warning)
        return child, made

    def hooks(self, kind: str, made: Made) -> None:
        ending.run_hooks(kind, self._container, made, "running", self._journal)

    def destroy(self, made: Made) -> None:
        ending.destroy(self._shelf, self._container, made, self._groups, self._journal)

    def _run_hosts_hooks(self, child: parent.Child) -> None:
        """Those between the making of the namespaces and the entering of the root, in the caller's own."""
        state = self._state(child.pid, "creating")
        for kind in hooks.OF_THE_HOST:
            hooks.run_all(kind, self._config.hooks.get(kind, ()), state)
        child.tell(b"hooks")

    def _state(self, pid: int, status: str) -> bytes:
        return jsontext.dumps(ending.state(self._describe(pid), status)).encode()

    def _door(self) -> _socket.socket:
        door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        door.bind(self._container.path(store.START))
        door.listen(1)
        return door

    def _fork(self, door: _socket.socket | None) -> parent.Child:
        config, groups = self._config, self._groups
        filters = confinement(config, self._shelf)
        id_maps = place.id_maps(config)
        user = identity.of(config)
        stdio = None if config.process.terminal else birth.Stdio(0, 1, 2)
        inside = user is None and "pid" in config.namespaces and not namespaces.joins_unseen(config, user)
        if inside:
            place.enter_pid_namespace(config.namespaces["pid"])
        held = (*id_maps.values(), *((user.fd,) if user else ()))
        keep = (*held, *range(3, 3 + self._preserve))
        child = parent.fork(lambda line: birth.be_born(
            line, config, groups, filters, {}, stdio, id_maps, user, state=self._state, preserve=self._preserve,
            keyring=not self._given.switch("no-new-keyring"), listening=self._listening), keep, door)
        child.agent = asked(config.seccomp, ending.state(self._describe(child.pid), "creating"))
        if inside:
            place.leave_pid_namespace()
        for fd in held:
            os.close(fd)
        return child

    def _make_group(self, child: parent.Child) -> None:
        """While the child makes its first namespaces and mounts."""
        try:
            self._group = self._groups.create(self._config.cgroup, with_device_rules(self._config.resources),
                                              first=child.pid)
        except (OSError, ValueError) as error:
            raise Failure(f"unable to apply cgroup configuration: {reason(error)}") from error
        child.tell(b"group")

    def _note(self, child: parent.Child) -> Made:
        made = self._describe(child.pid)
        self._container.write(made)
        return made

    def _describe(self, pid: int) -> Made:
        config = self._config
        return Made(self._container.id, config.version, self._bundle, config.root, pid, store.began(pid), self._created,
                    _owner(), dict(config.annotations), config.cgroup, config.namespaces.get("pid") == "")

    def _console(self, child: parent.Child) -> None:
        path = self._given.text("console-socket")
        if child.console < 0:
            if path:
                raise Failure("cannot use --console-socket: the process has no terminal")
            return
        if path:
            send_console(path, child.console)
            # It is theirs alone: in the foreground we would read what they are waiting for.
            os.close(child.console)
            child.console = -1
        elif self._given.switch("detach") or self._container.waits_for_start():
            raise Failure("cannot allocate a terminal without --console-socket: nobody would hold it")

    def _undo(self) -> None:
        if self._child is not None:
            self._child.kill()
        try:
            if self._group is not None:
                ending.remove_group(self._groups, self._config.cgroup)
        except (Failure, CgroupError) as error:
            self._journal.warning(str(error))
        if self._config.hooks.get("poststop"):
            ending.run_hooks("poststop", self._container, self._describe(0), "stopped", self._journal)
        self._shelf.remove(self._container)


def _read(bundle: str) -> bytes:
    try:
        with open(os.path.join(bundle, store.CONFIG), "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"config.json of the bundle: {reason(error)}") from error


def _document(data: bytes, name: str, driver: str) -> object:
    """With a cgroup where none is named: one that is ours."""
    document = jsontext.loads(data)
    if isinstance(document, dict):
        linux = document.setdefault("linux", {})
        if isinstance(linux, dict):
            linux["cgroupsPath"] = ending.group_path(linux.get("cgroupsPath", ""), name, driver)
    return document


def asked(profile: object, state: dict[str, object]) -> Agent | None:
    """Who answers for the system calls that a filter asks for."""
    if not isinstance(profile, dict) or not profile.get("listenerPath"):
        return None
    from node.runtime import asking

    return asking.Agent(profile, state)


def confinement(config: spec.Config, shelf: Store) -> birth.Confinement:
    """Compiled filters are kept beside the containers' folders: compiling costs more than all else."""
    available = frozenset(capabilities.current()["permitted"])
    if config.seccomp is None:
        return birth.Confinement(None, 0, available, config.personality)
    from node.linux.seccomp_cache import Programs

    program, flags = Programs(shelf.filters()).of(config.seccomp)
    return birth.Confinement(program, flags, available, config.personality)


def with_device_rules(resources: dict[str, object]) -> dict[str, object]:
    """What is not allowed is denied; node making and the devices that every container has are allowed, whatever
    the bundle's own rules say (config-linux.md, default devices)."""
    own = resources.get("devices")
    rules: list[object] = [{"allow": False, "access": "rwm"}, *(own if isinstance(own, list) else ())]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    rules += [{"allow": True, "type": "c", "major": major, "access": "rwm", **({} if minor < 0 else {"minor": minor})}
              for major, minor in DEVICES]
    return {**resources, "devices": rules}


def _fraction() -> str:
    return f".{time.time_ns() % 1_000_000_000:09}Z"


def _owner() -> str:
    uid = os.getuid()
    if uid == 0:
        return "root"
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def send_console(path: str, master: int) -> None:
    """By SCM_RIGHTS, with a name, as runc's console sockets take it."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        channel.connect(path)
        channel.sendmsg([b"/dev/ptmx"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))])
    except OSError as error:
        raise Failure(f"console socket {path}: {reason(error)}") from error
    finally:
        channel.close()


def write_pid(path: str, pid: int) -> None:
    """Whole or not at all: whoever waits for the file reads it at once."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        os.write(fd, str(pid).encode())
        os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise Failure(f"--pid-file {path}: {reason(error)}") from error
