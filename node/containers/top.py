"""`docker top`: the container's processes read from /proc, in the columns `ps` would print.

Known: no arguments and -ef (full format), aux (BSD format), and -o/-eo/o with a list of columns. The host's `ps` is not
run: it may be missing, and a container's command line must never reach a shell's word splitting.
"""

import contextlib
import os
import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.containers.model import Processes
from ocispec.errors import InvalidArgument, Unimplemented

FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
FULL_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
BSD = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "args")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    fields: Sequence[str]
    """Of /proc/<pid>/stat from field 3 (state) on (proc_pid_stat(5))."""

    uid: int
    command: str
    uptime: float

    def number(self, field: int) -> int:
        return int(self.fields[field - 3])

    @property
    def cpu_seconds(self) -> float:
        return (self.number(14) + self.number(15)) / _TICKS

    @property
    def age(self) -> float:
        return max(0.0, self.uptime - self.number(22) / _TICKS)

    @property
    def started(self) -> time.struct_time:
        return time.localtime(time.time() - self.age)


def beside(pid: int) -> Sequence[int]:
    """Who shares the pid namespace of a container's first process, where no cgroup says who belongs to it. Those that
    may not be looked at are somebody else's."""
    try:
        own = Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == own:
                    found.append(int(entry.name))
    return found


def processes(pids: Sequence[int], ps_args: str) -> Processes:
    """Raises InvalidArgument, Unimplemented. A process that ends meanwhile is left out."""
    keys, titles = _columns(ps_args)
    found = [process for pid in sorted(pids) if (process := _read(pid)) is not None]
    return Processes(titles, tuple(tuple(COLUMNS[key][1](process) for key in keys) for process in found))


def _columns(ps_args: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = ps_args.split() or ["-ef"]
    if words in (["-ef"], ["ef"], ["-f"], ["-fe"]):
        return FULL, FULL_TITLES
    if words in (["aux"], ["-aux"], ["axu"]):
        return BSD, tuple(COLUMNS[key][0] for key in BSD)
    if len(words) >= 2 and words[0] in ("-o", "-eo", "-axo", "axo", "o", "eo"):
        keys = tuple(key for word in words[1:] for key in word.split(",") if key)
        unknown = [key for key in keys if key not in COLUMNS]
        if unknown:
            raise InvalidArgument(f'ps: error: unknown user-defined format specifier "{unknown[0]}"')
        if "pid" not in keys:
            raise InvalidArgument("Couldn't find PID field in ps output")
        return keys, tuple(COLUMNS[key][0] for key in keys)
    raise Unimplemented(f"docker top with the ps options {ps_args!r} is not supported yet (-ef, aux and -o LIST are)")


def _read(pid: int) -> _Process | None:
    folder = Path(f"/proc/{pid}")
    try:
        text = (folder / "stat").read_text(errors="replace")
        uid = folder.stat().st_uid
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return None
    # The name in brackets may itself hold brackets and spaces.
    name, _, rest = text.partition("(")[2].rpartition(")")
    return _Process(pid, rest.split(), uid, command or f"[{name}]", uptime)


def _user(process: _Process) -> str:
    try:
        return pwd.getpwuid(process.uid).pw_name[:8]
    except KeyError:
        return str(process.uid)


def _tty(process: _Process) -> str:
    device = process.number(7)
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    return "?" if not device else f"{major}:{minor}"


def _clock(process: _Process) -> str:
    seconds = int(process.cpu_seconds)
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _elapsed(process: _Process) -> str:
    seconds = int(process.age)
    hours = f"{seconds // 3600:02d}:" if seconds >= 3600 else ""
    return f"{hours}{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _share(process: _Process) -> float:
    return 100 * process.cpu_seconds / process.age if process.age else 0.0


def _memory_share(process: _Process) -> str:
    total = os.sysconf("SC_PHYS_PAGES")
    return f"{100 * process.number(24) / total:.1f}"


COLUMNS: Mapping[str, tuple[str, Callable[[_Process], str]]] = {
    "user": ("USER", _user),
    "uid": ("UID", lambda p: str(p.uid)),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.number(4))),
    "c": ("C", lambda p: str(min(99, int(_share(p))))),
    "stime": ("STIME", lambda p: time.strftime("%H:%M" if p.age < 86400 else "%b%d", p.started)),
    "start": ("START", lambda p: time.strftime("%H:%M" if p.age < 86400 else "%b%d", p.started)),
    "tty": ("TTY", _tty),
    "time": ("TIME", _clock),
    "bsdtime": ("TIME", lambda p: f"{int(p.cpu_seconds) // 60}:{int(p.cpu_seconds) % 60:02d}"),
    "etime": ("ELAPSED", _elapsed),
    "cmd": ("CMD", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.command),
    "command": ("COMMAND", lambda p: p.command),
    "comm": ("COMMAND", lambda p: p.command.split(" ")[0].rpartition("/")[2]),
    "pcpu": ("%CPU", lambda p: f"{_share(p):.1f}"),
    "pmem": ("%MEM", _memory_share),
    "vsz": ("VSZ", lambda p: str(p.number(23) // 1024)),
    "rss": ("RSS", lambda p: str(p.number(24) * _PAGE // 1024)),
    "stat": ("STAT", lambda p: p.fields[0]),
    "state": ("S", lambda p: p.fields[0]),
    "nlwp": ("NLWP", lambda p: str(p.number(20))),
}
