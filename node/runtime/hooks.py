"""Hooks of config.json: programs that are told a container's state on their standard input (config.md, POSIX-platform
Hooks). Wherever they run, in the caller's namespaces or the container's, it is done in the same way."""

from __future__ import annotations

import os
import select

from node.runtime.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
else:
    import _signal

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
OF_THE_HOST = KINDS[:2]
IN_THE_BIRTH = KINDS[:4]
MAX_TOLD = 4096
_RESET = frozenset(range(1, _signal.NSIG)) - {_signal.SIGKILL, _signal.SIGSTOP, 32, 33}


class InvalidHook(ValueError):
    """The `hooks` object holds something wrong; the message names it."""


class HookFailed(Exception):
    """A hook could not be run, took too long or said no; the message names it and holds what it printed."""


@record
class Hook:
    """`env` None: that of the runtime. `timeout` in seconds, 0: none."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...] | None
    timeout: float


def parse(value: object) -> dict[str, tuple[Hook, ...]]:
    """By kind, those that have any. Raises InvalidHook."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidHook("hooks is not an object")
    unknown = value.keys() - {*KINDS}
    if unknown:
        raise InvalidHook(f"hooks.{min(unknown)}: there is no such kind of hook")
    found = {}
    for kind in KINDS:
        listed = value.get(kind)
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise InvalidHook(f"hooks.{kind} is not a list")
        if listed:
            found[kind] = tuple(_hook(item, f"hooks.{kind}[{number}]") for number, item in enumerate(listed))
    return found


def _hook(value: object, where: str) -> Hook:
    if not isinstance(value, dict):
        raise InvalidHook(f"{where} is not an object")
    path = value.get("path")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise InvalidHook(f"{where}.path is not absolute: {path!r}")
    timeout = value.get("timeout")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
        raise InvalidHook(f"{where}.timeout is not above zero: {timeout!r}")
    env = _texts(value.get("env"), f"{where}.env")
    for entry in env or ():
        if "=" not in entry[1:]:
            raise InvalidHook(f"{where}.env: {entry!r} is not NAME=VALUE")
    return Hook(path, _texts(value.get("args"), f"{where}.args") or (path,), env, float(timeout or 0))


def _texts(value: object, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise InvalidHook(f"{where} is not a list of strings")
    return tuple(value)


def run_all(kind: str, hooks: Iterable[Hook], state: bytes) -> None:
    """In order, until one fails: then HookFailed. `state`: the JSON of runtime.md, State."""
    for number, hook in enumerate(hooks):
        run(hook, state, f"error running {kind} hook #{number}")


def run(hook: Hook, state: bytes, what: str = "error running a hook") -> None:
    """One. What it is told and what it prints go through memory files: whatever it does with them, nobody waits for
    the other at a full pipe."""
    told = os.memfd_create("state", os.MFD_CLOEXEC)
    printed = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        os.write(told, state)
        os.lseek(told, 0, os.SEEK_SET)
        status = _run(hook, told, printed, what)
        if status:
            text = os.pread(printed, MAX_TOLD, 0).decode(errors="replace").strip()
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise HookFailed(f"{what}: {hook.path}: {how}{', output: ' if text else ''}{text}")
    finally:
        os.close(told)
        os.close(printed)


def _run(hook: Hook, told: int, printed: int, what: str) -> int:
    env = os.environ if hook.env is None else dict(entry.split("=", 1) for entry in hook.env)
    places = [(os.POSIX_SPAWN_DUP2, told, 0), (os.POSIX_SPAWN_DUP2, printed, 1), (os.POSIX_SPAWN_DUP2, printed, 2)]
    try:
        pid = os.posix_spawn(hook.path, hook.args, env, file_actions=places, setsigmask=(), setsigdef=_RESET)
    except OSError as error:
        raise HookFailed(f"{what}: {hook.path}: {os.strerror(error.errno or 0).lower()}") from error
    if hook.timeout:
        _wait(pid, hook, what)
    _, result = os.waitpid(pid, 0)
    return os.WEXITSTATUS(result) if os.WIFEXITED(result) else -os.WTERMSIG(result)


def _wait(pid: int, hook: Hook, what: str) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(hook.timeout * 1000):
            _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
            os.waitpid(pid, 0)
            raise HookFailed(f"{what}: {hook.path}: timed out after {hook.timeout:g} s")
    finally:
        os.close(pidfd)
