"""Groups that systemd makes: transient scopes, asked for over D-Bus; the files inside are then ours (Delegate=yes).

On a host where systemd is process 1 it is the one writer of the upper tree (https://systemd.io/CGROUP_DELEGATION), so a
group it does not know may be swept away or have its controllers taken. Every limit is told to systemd, which would undo
what it does not know at its next reload, and written by ourselves, for what systemd has no words for and to the exact
value. Device rules are ours alone: several programs may be on a group, and systemd takes off only its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from node.linux.cgroups import files, members, units, v2_limits
from node.linux.cgroups.files import CgroupError
from node.linux.cgroups.hierarchies import checked_path, is_place
from node.linux.cgroups.resources import Resources
from node.linux.cgroups.v2 import CgroupsV2, GroupV2
from node.linux.dbus import BusError, Connection, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = 25.0
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_GONE = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitNotFound")
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_AGAIN = 0.01
_NOT_SYSTEMDS = frozenset(("hugetlb", "rdma", "misc"))


class Manager:
    """The systemd that this process belongs to: the system's, or (in a user namespace, or as an ordinary user) the
    user's own. Each question has a connection of its own, so that forks share none and a restart of systemd breaks
    none."""

    def __init__(self) -> None:
        """Raises CgroupError where there is none."""
        self._addresses = _addresses()
        with self._connect() as bus:
            self.version = _leading_number(str(self._get(bus, "Version")))
            self.group = str(self._get(bus, "ControlGroup")).strip("/")

    def start(self, place: units.Place, description: str, pid: int) -> None:
        """Raises CgroupError, EEXIST where there is such a unit."""
        with self._connect() as bus:
            bus.call(_NAME, _PATH, _MANAGER, "Subscribe")
            properties = units.of_scope(place, description, pid)
            job = bus.call(_NAME, _PATH, _MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", place.unit, "fail",
                           properties, [])[0]
            _await_job(bus, str(job), f"starting {place.unit}")

    def stop(self, unit: str) -> None:
        """Also one that failed; one that is not there is stopped."""
        with self._connect() as bus:
            bus.call(_NAME, _PATH, _MANAGER, "Subscribe")
            for member, signature, values in (("StopUnit", "ss", (unit, "replace")), ("ResetFailedUnit", "s", (unit,))):
                try:
                    answer = bus.call(_NAME, _PATH, _MANAGER, member, signature, *values)
                except BusError as error:
                    if error.name not in _GONE:
                        raise
                    return
                if member == "StopUnit":
                    _await_job(bus, str(answer[0]), f"stopping {unit}")

    def knows(self, unit: str) -> bool:
        with self._connect() as bus:
            try:
                bus.call(_NAME, _PATH, _MANAGER, "GetUnit", "s", unit)
            except BusError as error:
                if error.name not in _GONE:
                    raise
                return False
        return True

    def set(self, unit: str, properties: list[units.Property]) -> None:
        with self._connect() as bus:
            # True: until the unit ends, not written to /etc.
            bus.call(_NAME, _PATH, _MANAGER, "SetUnitProperties", "sba(sv)", unit, True, properties)

    def _get(self, bus: Connection, name: str) -> object:
        return bus.call(_NAME, _PATH, "org.freedesktop.DBus.Properties", "Get", "ss", _MANAGER, name)[0]

    def _connect(self) -> Connection:
        """The private socket needs no bus beside systemd."""
        problem: OSError | None = None
        for path, bus in self._addresses:
            try:
                return Connection(path, bus=bus, seconds=_SECONDS)
            except BusError as error:
                problem = problem or error
        said = problem.strerror if problem is not None else "no such socket"
        raise CgroupError(errno.ENOENT, f"the systemd cgroup driver finds no systemd to talk to ({said})")


def _addresses() -> tuple[tuple[str, bool], ...]:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        whole = file.read().split() == ["0", "0", "4294967295"]
    if whole and os.geteuid() == 0:
        return ("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return ((f"{folder}/systemd/private", False), (f"{folder}/bus", True)) if folder else ()


def _leading_number(text: str) -> int:
    digits = ""
    for letter in text:
        if not letter.isdecimal():
            break
        digits += letter
    return int(digits or 0)


def _await_job(bus: Connection, job: str, what: str) -> None:
    def ended(message: Message) -> bool:
        return message.member == "JobRemoved" and len(message.body) > 3 and message.body[1] == job

    result = bus.signal(ended).body[3]
    if result != "done":
        raise CgroupError(errno.EIO, f"{what}: systemd says {result}")


class GroupOfSystemd(GroupV2):
    """One scope; implements `store.Cgroup`."""

    __slots__ = ("_manager", "_place", "_rules")

    def __init__(self, root: str, place: units.Place, manager: Manager, *, rules: bool = True) -> None:
        """Without `rules` those for devices are left out: only the host's root may load them."""
        super().__init__(root, "/".join(filter(None, (manager.group, place.path))), evacuates=False)
        self._place = place
        self._manager = manager
        self._rules = rules

    def update(self, resources: Mapping[str, object]) -> list[str]:
        wanted = Resources({name: value for name, value in resources.items() if self._rules or name != "devices"})
        found = v2_limits.settings(self._folder, wanted)
        try:
            properties = units.of_settings(found, self._manager.version)
        except ValueError as error:
            v2_limits.apply(self._folder, wanted)  # the kernel's own words, if it does not take it either
            raise CgroupError(errno.EINVAL, f"systemd cannot be told of a limit: {error}") from error
        if properties and files.has(self._folder, "cgroup.procs"):
            self._manager.set(self._place.unit, properties)
        if any(name.partition(".")[0] in _NOT_SYSTEMDS for name, _value, _what in found):
            self._hand_down()
        return v2_limits.apply(self._folder, wanted)

    def _hand_down(self) -> None:
        """The controllers that systemd knows nothing of, and leaves alone, from the root down to us."""
        current = self._root
        for part in self.path.split("/"):
            for controller in files.read(current, "cgroup.controllers").split():
                if controller in _NOT_SYSTEMDS:
                    with contextlib.suppress(CgroupError):  # then its limits are reported as not there
                        files.write(current, "cgroup.subtree_control", f"+{controller}")
            current = f"{current}/{part}"

    def delete(self) -> None:
        """The unit may outlive its folder by a moment, and its name is wanted again at the next start."""
        if members.pids(self._folder):
            super().delete()  # says who is left
        self._manager.stop(self._place.unit)
        super().delete()

    def make_scope(self, resources: Mapping[str, object], pid: int) -> None:
        """For `CgroupsOfSystemd.create`."""
        Resources(resources)  # what cannot be is said before anything is made
        if self.procs():
            raise CgroupError(errno.EEXIST, f"the group {self.path} exists and has processes")
        try:
            self._start(pid)
            self.warnings = self.update(resources)
        except (CgroupError, BusError) as error:
            over = _is_over(pid)  # before it is killed here
            if self._manager.knows(self._place.unit):
                self.kill()
                self.delete()
            if over:
                raise CgroupError(errno.ESRCH, f"process {pid} has ended") from error
            raise CgroupError(error.errno, f"{self._place.unit}: {error.strerror}") from error
        except BaseException:
            self.kill()
            self.delete()
            raise

    def _start(self, pid: int) -> None:
        description = f"Seawall container {self._place.unit.removesuffix('.scope')}"
        try:
            self._manager.start(self._place, description, pid)
        except BusError as error:
            if error.name != _EXISTS:
                raise
            # An empty one that nobody took away: its engine was killed.
            self._manager.stop(self._place.unit)
            self._manager.start(self._place, description, pid)


def _is_over(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


class CgroupsOfSystemd(CgroupsV2):
    """The host's version 2 tree as systemd keeps it; implements `store.Cgroups`. Paths are `slice:prefix:name`; any
    other is a group that was made without systemd and is left to the files."""

    __slots__ = ("_manager", "_rules")

    def __init__(self, root: str, *, rules: bool = True) -> None:
        """Raises CgroupError where no systemd answers."""
        super().__init__(root)
        self._rules = rules
        self._manager = Manager()
        self.driver = "systemd"

    def place(self, parent: str, name: str) -> str:
        return f"{parent}:seawall:{name}"

    def create(self, path: str, resources: Mapping[str, object], *, first: int = 0) -> GroupV2:
        if not is_place(path):
            raise CgroupError(errno.EINVAL, f"{path!r}: the systemd cgroup driver wants SLICE:PREFIX:NAME")
        group = GroupOfSystemd(self._root, units.Place(path), self._manager, rules=self._rules)
        group.make_scope(resources, first)
        return group

    def open(self, path: str) -> GroupV2:
        if is_place(path):
            return GroupOfSystemd(self._root, units.Place(path), self._manager, rules=self._rules)
        return super().open(path)

    def features(self) -> frozenset[str]:
        return super().features() - (frozenset() if self._rules else {"devices"})

    def prune(self, path: str) -> None:
        """Of a slice."""
        folder = f"{self._root}/{'/'.join(filter(None, (self._manager.group, units.expanded(path))))}"
        try:
            inside = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return
        if not inside:
            self._manager.stop(checked_path(path))
            end = time.monotonic() + 1
            while os.path.isdir(folder) and time.monotonic() < end:
                time.sleep(_AGAIN)
