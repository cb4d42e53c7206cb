"""exec: a further process in a container that runs."""

from __future__ import annotations

import os

from node.linux import cgroups
from node.runtime import birth, jsontext, spec
from node.runtime.oci import creation, ending, foreground, parent, store
from node.runtime.oci.failure import NOT_RUN, Failure, Journal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.runtime.identity import UserNamespace
    from node.runtime.oci.arguments import Given
    from node.runtime.oci.store import Made, Store

MAX_ID = (1 << 32) - 2
Extents = tuple[tuple[int, int, int], ...]


def execute(shelf: Store, journal: Journal, given: Given) -> int:
    try:
        return _execute(shelf, journal, given)
    except Failure as error:
        raise Failure(f"exec failed: {error}", NOT_RUN) from error


def _execute(shelf: Store, journal: Journal, given: Given) -> int:
    preserve, listening = parent.preserved(given.number("preserve-fds"))
    container = shelf.open(given.words[0])
    made = container.read()
    groups = cgroups.detect()
    status = store.status(container, made, groups)
    if made is None or status in ("stopped", "creating"):
        raise Failure(f"cannot exec in a {status} container")
    if status == "paused" and not given.switch("ignore-paused"):
        raise Failure("cannot exec in a paused container (use --ignore-paused to override)")
    document = jsontext.loads(container.load(store.CONFIG))
    assert isinstance(document, dict)
    process = spec.process(_process(given, document.get("process") or {}))
    if given.switch("detach") and process.terminal and not given.text("console-socket"):
        raise Failure("cannot allocate a terminal without --console-socket: nobody would hold it")
    document["linux"]["cgroupsPath"] = made.cgroup
    config = spec.parse(document, made.bundle)
    init = store.open_process(made)
    user = _user_namespace(made) if "user" in config.namespaces else None
    group = groups.open(f"{made.cgroup}/{given.text('cgroup').strip('/')}".rstrip("/"))
    confinement = creation.confinement(config, shelf)
    stdio = None if process.terminal else birth.Stdio(0, 1, 2)
    signals = -1 if given.switch("detach") else foreground.listen()
    # Of a container in another's mount namespace, or the host's: that has another root.
    root = -1 if config.namespaces.get("mount") == "" else os.open(f"/proc/{made.pid}/root", os.O_PATH | os.O_DIRECTORY)
    keep = (init, *(() if root < 0 else (root,)), *((user.fd,) if user else ()), *range(3, 3 + preserve))
    child = parent.fork(lambda line: birth.be_executed(line, process, init, group, confinement, stdio, outside=True,
                                                        user=user, preserve=preserve, listening=listening, root=root),
                        keep)
    child.agent = creation.asked(config.seccomp, ending.state(made, status))
    try:
        child.follow({})
        if pid_file := given.text("pid-file"):
            creation.write_pid(pid_file, child.pid)
        if child.console >= 0 and given.text("console-socket"):
            creation.send_console(given.text("console-socket"), child.console)
            os.close(child.console)
            child.console = -1
        child.tell(b"go")
        child.executed()
    except BaseException:
        child.kill()
        raise
    for warning in child.warnings:
        journal.warning(warning)
    if given.switch("detach"):
        return 0
    return foreground.attend(child, signals)


def _process(given: Given, own: dict[str, object]) -> dict[str, object]:
    """The process object to run; what it leaves open is as the container's own has it."""
    if path := given.text("process"):
        if len(given.words) > 1:
            raise Failure("a command and --process exclude each other")
        return _from_file(path, own)
    if len(given.words) < 2:
        raise Failure("no command: give one, or --process")
    process = {**own, "args": list(given.words[1:]), "terminal": given.switch("tty")}
    process.pop("consoleSize", None)
    process["env"] = [*_list(own.get("env")), *given.texts("env")]
    if cwd := given.text("cwd"):
        process["cwd"] = cwd
    user: dict[str, object] = dict(own.get("user") or {})  # type: ignore[call-overload]
    if given.text("user"):
        user = {**user, **parse_user(given.text("user"))}
    if groups := given.texts("additional-gids"):
        user["additionalGids"] = [_identifier(group, "additional-gids") for group in groups]
    process["user"] = user
    if given.switch("no-new-privs"):
        process["noNewPrivileges"] = True
    for flag, field in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if given.text(flag):
            process[field] = given.text(flag)
    if added := given.texts("cap"):
        process["capabilities"] = _with_capabilities(own.get("capabilities"), added, root=not user.get("uid"))
    return process


def _from_file(path: str, own: dict[str, object]) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            process = jsontext.loads(file.read())
    except OSError as error:
        raise Failure(f"--process {path}: {reason(error)}") from error
    if not isinstance(process, dict):
        raise Failure(f"--process {path}: not an object")
    for field in ("capabilities", "rlimits"):
        if not process.get(field) and own.get(field):
            process[field] = own[field]
    return process


def _with_capabilities(own: object, added: list[str], *, root: bool) -> dict[str, list[str]]:
    """A user other than root loses at execve what is not ambient."""
    sets: dict[str, list[str]] = {kind: list(names) for kind, names in own.items()} if isinstance(own, dict) else {}
    for kind in ("bounding", "effective", "permitted", *(() if root else ("inheritable", "ambient"))):
        sets[kind] = [*sets.get(kind, []), *(name for name in added if name not in sets.get(kind, []))]
    return sets


def parse_user(text: str) -> dict[str, object]:
    """uid[:gid], numbers alone: names are the engine's to resolve, and what only begins like a number is none (crun's
    CVE-2026-30892 took such for root)."""
    uid, colon, gid = text.partition(":")
    user: dict[str, object] = {"uid": _identifier(uid, "user")}
    if colon:
        user["gid"] = _identifier(gid, "user")
    return user


def _identifier(text: str, flag: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_ID:
        raise Failure(f"--{flag}: {text!r} is not a number of a user or group")
    return int(text)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _user_namespace(made: Made) -> UserNamespace:
    from node.runtime.identity import UserNamespace

    fd = os.open(f"/proc/{made.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    return UserNamespace(fd, _map(made.pid, "uid_map"), _map(made.pid, "gid_map"))


def _map(pid: int, name: str) -> Extents:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        rows = [line.split() for line in file]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)
