"""The command line: global flags, a verb, its flags; exit statuses and errors as callers of runc know them."""

from __future__ import annotations

import gc
import os
import sys

from node.runtime.oci.arguments import Flag, Given, parse, usage
from node.runtime.oci.failure import FAILED, Failure, Journal, reason
from node.runtime.record import record

VERSION = "0.1.0"
SPEC = "1.2.1"

GLOBAL = (
    Flag("root", "DIR", "where containers' states are kept (on a tmpfs)"),
    Flag("log", "FILE", "where errors and warnings go, beside standard error"),
    Flag("log-format", "FORMAT", "text or json"),
    Flag("systemd-cgroup", "", "groups are made by systemd; cgroupsPath is slice:prefix:name"),
    Flag("debug", "", "tell more in the log"),
    Flag("rootless", "true|false|auto", "accepted for runc's sake: what is not permitted is found out"),
    Flag("version v", "", "print the version"),
    Flag("help h", "", "print this"),
)
_BUNDLE = Flag("bundle b", "DIR", "the bundle (default: the current folder)")
_CONSOLE = Flag("console-socket", "SOCKET", "a unix socket that gets the terminal's master")
_PID_FILE = Flag("pid-file", "FILE", "gets the process's number")
_PRESERVE = Flag("preserve-fds", "N", "pass N more descriptors, from 3 on")
_BEFORE = (
    _BUNDLE, _CONSOLE, _PID_FILE, _PRESERVE,
    Flag("no-pivot", "", "refused: the root is always entered by pivot_root(2)"),
    Flag("no-new-keyring", "", "keep the caller's session keyring"),
)
_FORMAT = Flag("format f", "FORMAT", "table or json")


@record
class Verb:
    """`module` and `function` do it; `words` are the least and the most it takes beside flags."""

    module: str
    function: str
    words: tuple[int, int]
    shape: str
    about: str
    flags: tuple[Flag, ...] = ()
    mixed: bool = True
    enters: bool = False
    """A process of ours enters the container."""


MANY = 1 << 30
VERBS = {
    "create": Verb("creation", "create", (1, 1), "ID", "make a container; its process waits for start", _BEFORE,
                   enters=True),
    "start": Verb("creation", "start", (1, 1), "ID", "let a created container's process go"),
    "run": Verb("creation", "run", (1, 1), "ID", "create and start, and stay until the end",
                (*_BEFORE, Flag("detach d", "", "do not stay"), Flag("keep", "", "do not delete it at the end"),
                 Flag("no-subreaper", "", "do not adopt the container's orphans")), enters=True),
    "exec": Verb("execution", "execute", (1, MANY), "ID COMMAND…", "a further process in a container", (
        _CONSOLE, _PID_FILE, _PRESERVE, Flag("process p", "FILE", "the process as JSON"),
        Flag("detach d", "", "do not stay"), Flag("tty t", "", "with a terminal"),
        Flag("user u", "UID[:GID]", "numbers"), Flag("additional-gids g", "GID...", "further groups"),
        Flag("cwd", "DIR", "working folder"), Flag("env e", "NAME=VALUE...", "environment"),
        Flag("cap c", "CAPABILITY...", "a further capability"), Flag("no-new-privs", "", "set no_new_privs"),
        Flag("apparmor", "PROFILE", "AppArmor profile"), Flag("process-label", "LABEL", "SELinux label"),
        Flag("cgroup", "PATH", "a group inside the container's"),
        Flag("ignore-paused", "", "also in a paused container")), mixed=False, enters=True),
    "state": Verb("lifecycle", "state", (1, 1), "ID", "the state as JSON"),
    "kill": Verb("lifecycle", "kill", (1, 2), "ID [SIGNAL]", "send a signal (TERM) to the container's process",
                 (Flag("all a", "", "to all processes"),)),
    "delete": Verb("lifecycle", "delete", (1, 1), "ID", "take a stopped container away",
                   (Flag("force f", "", "kill it first; none is no error"),)),
    "pause": Verb("lifecycle", "pause", (1, 1), "ID", "stop all processes for a while"),
    "resume": Verb("lifecycle", "resume", (1, 1), "ID", "let them go on"),
    "ps": Verb("lifecycle", "processes", (1, MANY), "ID [PS FLAGS]", "the container's processes", (_FORMAT,),
               mixed=False),
    "list": Verb("lifecycle", "listing", (0, 0), "", "all containers",
                 (_FORMAT, Flag("quiet q", "", "names alone"))),
    "update": Verb("resources", "update", (1, 1), "ID", "change limits", (
        Flag("resources r", "FILE", "linux.resources as JSON, - for standard input"),
        *(Flag(name, "NUMBER", "") for name in ("blkio-weight", "cpu-period", "cpu-quota", "cpu-share", "cpu-burst",
          "cpu-idle", "cpu-rt-period", "cpu-rt-runtime", "memory", "memory-reservation", "memory-swap", "pids-limit")),
        Flag("cpuset-cpus", "LIST", ""), Flag("cpuset-mems", "LIST", ""),
        Flag("l3-cache-schema", "TEXT", "refused: no Intel RDT"), Flag("mem-bw-schema", "TEXT", "refused too"))),
    "events": Verb("resources", "events", (1, 1), "ID", "what it uses, again and again, and OOM kills",
                   (Flag("stats", "", "once"), Flag("interval", "DURATION", "between two (5s)"))),
    "features": Verb("features", "features", (0, 0), "", "what this runtime can do, as JSON"),
    "spec": Verb("features", "example", (0, 0), "", "write a config.json to begin with",
                 (_BUNDLE, Flag("rootless", "", "for a user other than root"))),
}
_NEVER = ("checkpoint", "restore")


def main() -> None:
    gc.disable()  # a call ends before there is anything to collect
    _have_streams()
    status = FAILED
    journal = Journal()
    try:
        status = _call(sys.argv[1:], journal)
    except Failure as failure:
        status = failure.status
    except BrokenPipeError:
        status = FAILED
    if sys.stdout is not None:
        sys.stdout.flush()
    # Nothing is left to be tidied, and tidying up an interpreter takes milliseconds.
    os._exit(status)


def _have_streams() -> None:
    """What a caller has closed is the null device: or whatever we open next had its number."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _call(words: list[str], journal: Journal) -> int:
    try:
        given = parse(words, GLOBAL, mixed=False)
        style = given.text("log-format", "text")
        journal = Journal(given.text("log"), style if style == "json" else "text", debug=given.switch("debug"))
        if style not in ("text", "json"):
            raise Failure(f"invalid log-format: {style}")
        return _dispatch(given, journal)
    except Failure as failure:
        journal.error(str(failure))
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        # What a hostile bundle can bring about is an answer like any other, and no traceback.
        journal.error(reason(error))
        if given_debug(words):
            raise
        raise Failure(reason(error)) from error


def given_debug(words: list[str]) -> bool:
    return "--debug" in words


def _dispatch(given: Given, journal: Journal) -> int:
    if given.switch("version"):
        _say(f"seawall-runtime version {VERSION}\nspec: {SPEC}\npython: {sys.version.split()[0]}\n")
        return 0
    name = given.words[0] if given.words else "help"
    if given.switch("help") or name in ("help", "h"):
        _say(_help())
        return 0
    if name in _NEVER:
        raise Failure(f"{name} is not supported: processes are neither frozen into files nor made from them")
    verb = VERBS.get(name)
    if verb is None:
        raise Failure(f"no such command: {name}")
    if given.words[1:2] in (("--help",), ("-h",)):
        _say(f"seawall-runtime {name} {verb.shape}\n\n   {verb.about}\n\n{usage(verb.flags)}")
        return 0
    options = parse(list(given.words[1:]), verb.flags, mixed=verb.mixed)
    least, most = verb.words
    if not least <= len(options.words) <= most:
        count = f"exactly {least}" if least == most else f"{least} to {most}" if most < MANY else f"at least {least}"
        raise Failure(f'"{name}" requires {count} argument(s)')
    _refuse(options)
    if verb.enters:
        from node.runtime.oci import protection

        protection.ensure()
    from node.runtime.oci.store import Store

    module = __import__(f"node.runtime.oci.{verb.module}", fromlist=(verb.function,))
    status: int = getattr(module, verb.function)(
        Store(_root(given), "systemd" if given.switch("systemd-cgroup") else "cgroupfs"), journal, options)
    return status


def _refuse(options: Given) -> None:
    if options.switch("no-pivot"):
        raise Failure("--no-pivot is not supported: the root is always entered by pivot_root(2)")


def _root(given: Given) -> str:
    if path := given.text("root"):
        return os.path.abspath(path)
    folder = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    if not folder:
        raise Failure("--root is needed: XDG_RUNTIME_DIR is not set")
    return os.path.join(folder, "seawall-runtime")


def _help() -> str:
    lines = "".join(f"   {name + ' ' + verb.shape:24} {verb.about}\n" for name, verb in VERBS.items())
    return f"seawall-runtime [FLAGS] COMMAND [FLAGS] …\n\nCommands:\n{lines}\nFlags:\n{usage(GLOBAL)}"


def _say(text: str) -> None:
    os.write(1, text.encode())
