"""What the kernel allows a process: rlimits, OOM score, scheduling. In two parts: what needs the host's rights is done
early (`grant`), and what would hinder the birth itself late (`Allowances.settle`)."""

from __future__ import annotations

import errno
import os
import resource

from node.linux import scheduling
from node.runtime.fields import InvalidConfig
from node.runtime.processspec import INFINITY, POLICIES, RLIMITS
from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.processspec import Process


@record
class Allowances:
    """`warnings`: what the host refused."""

    limits: tuple[tuple[int, int, int], ...]
    reset_on_fork: bool
    warnings: list[str]

    def settle(self) -> None:
        """Lowers only, so anybody may."""
        for number, soft, hard in self.limits:
            resource.setrlimit(number, (soft, hard))

    def settle_last(self, process: Process) -> None:
        """In the process itself, when it has been forked for the last time."""
        if self.reset_on_fork and process.scheduler is not None:
            _schedule(process, process.scheduler.flags)


def grant(process: Process, *, forks: bool) -> Allowances:
    """`forks`: the process is a child of this one. Raises OSError; a raised limit or a lowered OOM score that the
    host does not permit is a warning."""
    warnings = [f"unknown capability {name}" for name in process.unknown]
    limits = _raise_limits(process, warnings)
    if process.oom_score_adj is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(process.oom_score_adj))
        except PermissionError:
            warnings.append(f"the host does not permit an oom_score_adj of {process.oom_score_adj}")
    reset_on_fork = False
    if process.scheduler is not None:
        flags = process.scheduler.flags
        reset_on_fork = forks and bool(flags & scheduling.RESET_ON_FORK)
        if forks and process.scheduler.policy == POLICIES["SCHED_DEADLINE"]:
            raise InvalidConfig("process.scheduler: SCHED_DEADLINE cannot be passed on to a child")
        _schedule(process, flags & ~scheduling.RESET_ON_FORK if forks else flags)
    if process.io_priority is not None:
        try:
            scheduling.set_io_priority(process.io_priority)
        except OSError as error:
            raise OSError(error.errno, f"process.ioPriority: {os.strerror(error.errno or 0).lower()}") from error
    return Allowances(tuple(limits), reset_on_fork, warnings)


def _schedule(process: Process, flags: int) -> None:
    given = process.scheduler
    assert given is not None
    try:
        scheduling.set_scheduler(given.policy, flags, given.nice, given.priority, given.runtime, given.deadline,
                                 given.period)
    except OSError as error:
        raise OSError(error.errno, f"process.scheduler: {os.strerror(error.errno or 0).lower()}") from error


def _raise_limits(process: Process, warnings: list[str]) -> list[tuple[int, int, int]]:
    limits = []
    for kind, soft, hard in process.rlimits:
        number = RLIMITS[kind]
        wanted, (now, top) = (_kernels(soft), _kernels(hard)), resource.getrlimit(number)
        try:
            if wanted[1] != top and (wanted[1] == resource.RLIM_INFINITY or wanted[1] > top != resource.RLIM_INFINITY):
                resource.setrlimit(number, (now, wanted[1]))
        except (OSError, ValueError) as error:
            # ValueError is Python's word for EPERM and EINVAL here.
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                raise
            warnings.append(f"the host does not permit {kind} of {soft}:{hard}")
            continue
        limits.append((number, *wanted))
    return limits


def _kernels(value: int) -> int:
    return resource.RLIM_INFINITY if value == INFINITY else value


def set_affinity(cpus: frozenset[int]) -> None:
    """Raises OSError naming the field."""
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            text = f"process.execCPUAffinity: {os.strerror(error.errno or 0).lower()}"
            raise OSError(error.errno, text) from error
