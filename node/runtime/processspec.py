"""The `process` object of config.json and of an exec."""

from __future__ import annotations

from node.linux import capabilities
from node.runtime.fields import (
    MAX_ID,
    InvalidConfig,
    absolute,
    flag,
    list_of,
    number,
    object_of,
    one_of,
    section,
    text,
    texts,
    whole,
)
from node.runtime.record import record

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate((
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"))}
POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
            "SCHED_DEADLINE": 6}
SCHEDULER_FLAGS = {"SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4,
                   "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
                   "SCHED_FLAG_UTIL_CLAMP_MAX": 64}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
INFINITY = (1 << 64) - 1
MAX_CPU = 8191


@record
class Scheduler:
    """For sched_setattr(2)."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


@record
class Process:
    """A process to run: the container's own or an exec's. `capabilities` maps a set's name to capability names.

    Without `args` there is no command: the container can be made and not started.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    terminal: bool
    console: tuple[int, int]
    """Rows and columns; zeros: unset."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int | None
    capabilities: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]
    """Capabilities asked for that nobody has heard of: a warning (config.md)."""

    no_new_privileges: bool
    rlimits: tuple[tuple[str, int, int], ...]
    """INFINITY: no limit."""

    oom_score_adj: int | None
    scheduler: Scheduler | None
    io_priority: int | None
    """For ioprio_set(2)."""

    affinity: tuple[frozenset[int], frozenset[int]]
    """Of an exec: CPUs before and after it joins the cgroup; empty: as it comes."""

    apparmor: str
    selinux: str


NOTHING = Process(
    args=(), env=(), cwd="/", terminal=False, console=(0, 0), uid=0, gid=0, groups=(), umask=None,
    capabilities=dict.fromkeys(SETS, ()), unknown=(), no_new_privileges=True, rlimits=(), oom_score_adj=None,
    scheduler=None, io_priority=None, affinity=(frozenset(), frozenset()), apparmor="", selinux="",
)
"""Of a config.json without a process."""


def process(value: object) -> Process:
    """Raises InvalidConfig."""
    item = object_of(value, "process")
    if item.get("commandLine"):
        raise InvalidConfig("process.commandLine is Windows' own")
    args = texts(item, "args")
    if not args:
        raise InvalidConfig("process.args is empty: there is no command to run")
    user = section(item, "user", "process")
    console = section(item, "consoleSize", "process")
    granted, unknown = _capabilities(section(item, "capabilities", "process"))
    return Process(
        args=args, env=_environment(item), cwd=absolute(item, "cwd", "process"),
        terminal=flag(item, "terminal", "process"),
        console=(number(console, "height", 0, 0, 0xFFFF), number(console, "width", 0, 0, 0xFFFF)),
        uid=_id(user, "uid"), gid=_id(user, "gid"),
        groups=tuple(whole(group, "process.user.additionalGids", 0, MAX_ID - 1)
                     for group in list_of(user, "additionalGids")),
        umask=number(user, "umask", 0, 0, 0o777) if user.get("umask") is not None else None,
        capabilities=granted, unknown=unknown,
        no_new_privileges=flag(item, "noNewPrivileges", "process"),
        rlimits=_rlimits(item),
        oom_score_adj=number(item, "oomScoreAdj", 0, -1000, 1000) if item.get("oomScoreAdj") is not None else None,
        scheduler=_scheduler(item), io_priority=_io_priority(item), affinity=_affinity(item),
        apparmor=text(item, "apparmorProfile", "process"), selinux=text(item, "selinuxLabel", "process"),
    )


def _id(user: dict[str, object], field: str) -> int:
    return number(user, field, 0, 0, MAX_ID - 1)


def _environment(item: dict[str, object]) -> tuple[str, ...]:
    env = texts(item, "env")
    for entry in env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise InvalidConfig(f"process.env: {entry!r} is not NAME=VALUE")
    return env


def _capabilities(sets: dict[str, object]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """What is absent grants nothing."""
    found: dict[str, tuple[str, ...]] = {}
    unknown: dict[str, None] = {}
    for kind in SETS:
        names = texts(sets, kind)
        found[kind] = tuple(name for name in names if name in capabilities.ALL)
        unknown.update((name, None) for name in names if name not in capabilities.ALL)
    return found, tuple(unknown)


def _rlimits(item: dict[str, object]) -> tuple[tuple[str, int, int], ...]:
    found: dict[str, tuple[int, int]] = {}
    for value in list_of(item, "rlimits"):
        limit = object_of(value, "process.rlimits[]")
        kind = text(limit, "type", "process.rlimits[]")
        one_of(kind, RLIMITS, "process.rlimits[].type")
        if kind in found:
            raise InvalidConfig(f"process.rlimits names {kind} twice")
        soft, hard = (_limit(limit, field) for field in ("soft", "hard"))
        if soft > hard:
            raise InvalidConfig(f"process.rlimits: the soft limit of {kind} is above the hard one")
        found[kind] = soft, hard
    return tuple((kind, soft, hard) for kind, (soft, hard) in found.items())


def _limit(limit: dict[str, object], field: str) -> int:
    value = number(limit, field)
    return INFINITY if value < 0 else value


def _scheduler(item: dict[str, object]) -> Scheduler | None:
    if item.get("scheduler") is None:
        return None
    given = section(item, "scheduler", "process")
    policy = one_of(text(given, "policy", "process.scheduler"), POLICIES, "process.scheduler.policy")
    flags = 0
    for name in texts(given, "flags"):
        flags |= one_of(name, SCHEDULER_FLAGS, "process.scheduler.flags")
    found = Scheduler(policy, flags, number(given, "nice", 0, -20, 19), number(given, "priority", 0, 0, 99),
                      number(given, "runtime", 0, 0), number(given, "deadline", 0, 0), number(given, "period", 0, 0))
    if found.nice and policy not in (0, 3):
        raise InvalidConfig("process.scheduler.nice is of SCHED_OTHER and SCHED_BATCH")
    if found.priority and policy not in (1, 2):
        raise InvalidConfig("process.scheduler.priority is of SCHED_FIFO and SCHED_RR")
    if (found.runtime or found.deadline or found.period) and policy != POLICIES["SCHED_DEADLINE"]:
        raise InvalidConfig("process.scheduler.runtime, deadline and period are of SCHED_DEADLINE")
    return found


def _io_priority(item: dict[str, object]) -> int | None:
    if item.get("ioPriority") is None:
        return None
    given = section(item, "ioPriority", "process")
    kind = one_of(text(given, "class", "process.ioPriority"), IO_CLASSES, "process.ioPriority.class")
    return kind << 13 | number(given, "priority", 0, 0, 7)


def _affinity(item: dict[str, object]) -> tuple[frozenset[int], frozenset[int]]:
    given = section(item, "execCPUAffinity", "process")
    return _cpus(given, "initial"), _cpus(given, "final")


def _cpus(given: dict[str, object], field: str) -> frozenset[int]:
    """`0-3,7`, cpuset(7)'s list format."""
    found: set[int] = set()
    written = text(given, field, "process.execCPUAffinity")
    for part in filter(None, (part.strip() for part in written.split(","))):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and int(end[:9]) <= MAX_CPU for end in ends):
            raise InvalidConfig(f"process.execCPUAffinity.{field}: {part[:100]!r} names no CPUs")
        low, high = (int(end) for end in ends)
        if low > high:
            raise InvalidConfig(f"process.execCPUAffinity.{field}: {part!r} names no CPUs")
        found.update(range(low, high + 1))
    return frozenset(found)
