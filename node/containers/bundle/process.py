"""The `process` object of config.json: of a container's own command and of an exec."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.containers.bundle.security import Confinement
from node.containers.bundle.users import ProcessUser
from node.containers.errors import InvalidSpec
from node.containers.model import Ulimit

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RLIMITS = frozenset(
    {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
     "rttime", "sigpending", "stack"}
)  # fmt: skip


def process(
    *,
    args: Sequence[str],
    env: Sequence[str],
    cwd: str,
    tty: bool,
    user: ProcessUser,
    confinement: Confinement,
    console_size: tuple[int, int] = (0, 0),
    ulimits: Sequence[Ulimit] = (),
    oom_score_adj: int = 0,
) -> dict[str, Any]:
    """`env` is complete but for HOME, which comes from the user."""
    result: dict[str, Any] = {
        "terminal": tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(args),
        "env": _with_home(env, user.home),
        "cwd": cwd or "/",
        "capabilities": _capabilities(confinement, user.uid),
        "noNewPrivileges": confinement.no_new_privileges,
    }
    if tty and all(console_size):
        result["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    if ulimits:
        result["rlimits"] = [_rlimit(limit) for limit in ulimits]
    if confinement.apparmor:
        result["apparmorProfile"] = confinement.apparmor
    if oom_score_adj:
        result["oomScoreAdj"] = oom_score_adj
    return result


def environment(own: Sequence[str], *, hostname: str, tty: bool) -> tuple[str, ...]:
    """What Docker sets, overridden by what the image and the user set."""
    defaults = [f"PATH={PATH}", f"HOSTNAME={hostname}", *(["TERM=xterm"] if tty else [])]
    return merge_env(defaults, own)


def merge_env(base: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """Later wins and keeps the earlier one's place; a bare name in `changes` removes it."""
    values: dict[str, str] = {entry.partition("=")[0]: entry for entry in base}
    for entry in changes:
        name, equals, _ = entry.partition("=")
        if equals:
            values[name] = entry
        else:
            values.pop(name, None)
    return tuple(values.values())


def _with_home(env: Sequence[str], home: str) -> list[str]:
    return list(env) if any(entry.startswith("HOME=") for entry in env) else [*env, f"HOME={home}"]


def _capabilities(confinement: Confinement, uid: int) -> dict[str, list[str]]:
    # execve(2) clears permitted and effective of a non-root user but for what is ambient; saying so keeps an exec the
    # same as a start. Inheritable stays empty for root, and beyond what is ambient for everybody (CVE-2022-29162).
    names = list(confinement.capabilities)
    granted = names if uid == 0 else list(confinement.ambient)
    sets = {"bounding": names, "effective": granted, "permitted": granted}
    return sets | {"inheritable": granted, "ambient": granted} if uid and granted else sets


def _rlimit(limit: Ulimit) -> dict[str, Any]:
    if limit.name not in RLIMITS:
        raise InvalidSpec(f"invalid ulimit type: {limit.name}")
    unlimited = 2**64 - 1
    soft, hard = (unlimited if value < 0 else value for value in (limit.soft, limit.hard))
    if soft > hard:
        raise InvalidSpec(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
    return {"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard}


def check_ulimits(limits: Sequence[Ulimit]) -> None:
    """Raises InvalidSpec; for create."""
    for limit in limits:
        _rlimit(limit)


def command(
    entrypoint: Sequence[str] | None, cmd: Sequence[str] | None, image: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(entrypoint, cmd) with the image's where the user says none. A user's entrypoint drops the image's cmd."""
    if entrypoint is None:
        chosen = _strings(image.get("Entrypoint"))
        arguments = _strings(image.get("Cmd")) if not cmd else tuple(cmd)
    else:
        chosen = () if tuple(entrypoint) == ("",) else tuple(entrypoint)
        arguments = tuple(cmd or ())
    return chosen, arguments


def _strings(value: Any) -> tuple[str, ...]:
    """Old images say a shell line where newer ones say a list."""
    if isinstance(value, str):
        return ("/bin/sh", "-c", value)
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()
