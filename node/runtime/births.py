"""How the processes of a container come to be: a maker for each kind of runtime. This one is our own: forks of the
monitor that `node.runtime.birth` takes to their execve. The other is `node.runtime.foreign`."""

from __future__ import annotations

import errno
import os

from node.linux import syscalls
from node.runtime import asking, birth, namespaces, place, spec
from node.runtime.tasks import Forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from node.linux.cgroups.store import Cgroup
    from node.runtime.identity import UserNamespace
    from node.runtime.job import Job
    from node.runtime.logchoice import Log
    from node.runtime.poller import Poller
    from node.runtime.tasks import Task

    class Maker(Protocol):
        """Makes the processes of one container."""

        group: Cgroup | None
        """The container's cgroup, from its making on."""

        def task(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> Task:
            """One that is to be born."""

        def bear(self, task: Task) -> None:
            """The container's first process. What goes wrong is the task's failure, or an OSError."""

        def execute(self, task: Task, process: dict[str, object], init: Task) -> None:
            """A further one; `process` is runtime-spec's. Raises NoContainer, OSError, InvalidConfig."""

        def bury(self) -> None:
            """Every process is dead: what was made beside them and the cgroup goes."""


class NoContainer(Exception):
    """The container's first process has ended, or is about to."""


class Native:
    def __init__(self, job: Job, trees: dict[int, int], id_maps: dict[object, int], user: UserNamespace | None) -> None:
        """`trees`, `id_maps` and `user`: see birth.be_born."""
        self.group: Cgroup | None = None
        self._groups = job.groups
        self._confinement = job.confinement
        self._born: tuple[spec.Config, dict[int, int], dict[object, int]] | None = (job.config, trees, id_maps)
        self._user = user
        # In the host's pid namespace there is nothing to hide behind.
        self._outside = user is not None or "pid" in job.config.namespaces
        self._own_pids = job.config.namespaces.get("pid") == ""
        self._agent = asking.agent(job.config.seccomp, {
            "ociVersion": job.config.version, "id": job.container_id, "bundle": job.bundle,
            "annotations": dict(job.config.annotations)})

    def task(self, poller: Poller, log: Log | None, *, tty: bool, stdin: bool, stdin_once: bool) -> Forked:
        return Forked(poller, log, tty=tty, stdin=stdin, stdin_once=stdin_once)

    def bear(self, task: Task) -> None:
        """Its cgroup is made while it is being born."""
        assert isinstance(task, Forked)
        assert self._born is not None
        config, trees, id_maps = self._born
        if config.hooks:
            raise spec.InvalidConfig("hooks: a node runs none (seawall-runtime does)")
        self._born = None  # config.json's objects are of no use afterwards
        task.agent = self._agent
        user = self._user
        held = (*trees.values(), *id_maps.values(), *((user.fd,) if user else ()))
        first = user is None and self._own_pids
        joins = user is None and not first and "pid" in config.namespaces and not namespaces.joins_unseen(config, user)
        if joins:
            place.enter_pid_namespace(config.namespaces["pid"])
        task.fork(
            lambda sync, stdio: birth.be_born(sync, config, self._groups, self._confinement, trees, stdio, id_maps,
                                              user), held, outside=self._outside and not (first or joins),
            make=syscalls.fork_first if first else os.fork,
        )
        if joins:
            place.leave_pid_namespace()
        for fd in held:
            os.close(fd)
        ready = False
        try:
            self.group = self._groups.create(config.cgroup, config.resources, first=task.pid)
            if user is not None and _writes_groups(config):
                self.group.doors().give(user.host_uid(0), user.host_gid(0))
            ready = True
            task.tell(b"group")
        except (OSError, ValueError) as error:
            # ESRCH: it ended by itself, and says why itself.
            if not ready and getattr(error, "errno", None) != errno.ESRCH:
                task.failure = {"error": f"cgroup: {getattr(error, 'strerror', None) or error}", "kind": "other"}
            task.finish()

    def execute(self, task: Task, process: dict[str, object], init: Task) -> None:
        assert isinstance(task, Forked)
        parsed, group, outside = spec.process(process), self.group, self._outside
        if group is None:
            raise NoContainer
        task.agent = self._agent
        try:
            task.fork(
                lambda sync, stdio: birth.be_executed(sync, parsed, init.pidfd, group, self._confinement, stdio,
                                                      outside=outside, user=self._user),
                (init.pidfd,), outside=outside,
            )
        except OSError as error:
            if error.errno == errno.ENOMEM and self._own_pids:
                raise NoContainer from error  # fork(2): the first process of the pid namespace has ended
            raise

    def bury(self) -> None:
        if self.group is not None:
            self.group.delete()


def _writes_groups(config: spec.Config) -> bool:
    return any(mount.kind in ("cgroup", "cgroup2") and "ro" not in mount.options for mount in config.mounts)
