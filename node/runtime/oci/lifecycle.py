"""state, kill, delete, pause, resume, ps and list: what is done with a container that is there."""

from __future__ import annotations

import os

from node.linux import cgroups
from node.linux.cgroups import CgroupError
from node.runtime import jsontext
from node.runtime.oci import ending, store
from node.runtime.oci.failure import Failure, Journal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from node.linux.cgroups.store import Cgroup
    from node.runtime.oci.arguments import Given
    from node.runtime.oci.store import Container, Made, Store
else:
    import _signal


def state(shelf: Store, _journal: Journal, given: Given) -> int:
    container, made = _find(shelf, given)
    print_json(ending.state(made, store.status(container, made, cgroups.detect())))
    return 0


def kill(shelf: Store, _journal: Journal, given: Given) -> int:
    container, made = _find(shelf, given)
    number = signal_number(given.words[1] if len(given.words) > 1 else "TERM")
    groups = cgroups.detect()
    status = store.status(container, made, groups)
    everybody = given.switch("all") or (number == _signal.SIGKILL and not made.own_pids)
    if everybody:
        group = groups.open(made.cgroup)
        reached = len(group.procs())
        if number == _signal.SIGKILL:
            group.kill()
        else:
            group.signal(number)
        if status == "stopped" and not reached and not given.switch("all"):
            raise Failure("container not running")
        return 0
    if status == "stopped":
        raise Failure("container not running")
    pidfd = store.open_process(made)
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Failure("container not running") from None
    finally:
        os.close(pidfd)
    if number == _signal.SIGKILL:
        _thaw(groups.open(made.cgroup))
    return 0


def _thaw(group: Cgroup) -> None:
    """A frozen process of version 1 does not die of SIGKILL."""
    try:
        if group.frozen():
            group.thaw()
    except CgroupError:
        return  # no freezer, or no group any more: nothing is frozen


def delete(shelf: Store, journal: Journal, given: Given) -> int:
    force = given.switch("force")
    try:
        container = shelf.open(given.words[0])
        container.lock()
    except store.Missing:
        if force:
            return 0
        raise
    made = container.read()
    groups = cgroups.detect()
    if made is not None and not force and (status := store.status(container, made, groups)) != "stopped":
        raise Failure(f"cannot delete container {container.id} that is not stopped: {status}")
    ending.destroy(shelf, container, made, groups, journal)
    return 0


def pause(shelf: Store, _journal: Journal, given: Given) -> int:
    container, made = _find(shelf, given)
    groups = cgroups.detect()
    if (status := store.status(container, made, groups)) not in ("running", "created"):
        raise Failure(f"cannot pause a container that is {status}")
    groups.open(made.cgroup).freeze()
    return 0


def resume(shelf: Store, _journal: Journal, given: Given) -> int:
    container, made = _find(shelf, given)
    groups = cgroups.detect()
    if (status := store.status(container, made, groups)) != "paused":
        raise Failure(f"cannot resume a container that is {status}")
    groups.open(made.cgroup).thaw()
    return 0


def processes(shelf: Store, _journal: Journal, given: Given) -> int:
    _, made = _find(shelf, given)
    style = given.text("format", "table")
    if style not in ("table", "json"):
        raise Failure(f"invalid format option: {style}")
    pids = cgroups.detect().open(made.cgroup).procs()
    if style == "json":
        print_json(pids)
        return 0
    import subprocess

    try:
        result = subprocess.run(["ps", *(given.words[1:] or ("-ef",))], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failure(f"ps: {reason(error)}") from error
    if result.returncode:
        raise Failure(f"ps: {result.stderr.strip()}")
    lines = result.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Failure("ps shows no PID: its options leave it out")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    _print("\n".join([lines[0], *(line for line in lines[1:] if _field(line, column) in wanted)]))
    return 0


def _field(line: str, number: int) -> str:
    fields = line.split()
    return fields[number] if number < len(fields) else ""


def listing(shelf: Store, journal: Journal, given: Given) -> int:
    groups = cgroups.detect()
    found = []
    for container in shelf.all():
        try:
            made = container.read()
        except Failure as error:
            journal.warning(str(error))
            continue
        if made is not None:
            found.append(ending.state(made, store.status(container, made, groups)))
    style = given.text("format", "table")
    if given.switch("quiet"):
        _print("\n".join(str(one["id"]) for one in found))
    elif style == "json":
        print_json(found)
    elif style == "table":
        rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [tuple(str(one[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")) for one in found]
        widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
        _print("\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
                         for row in rows))
    else:
        raise Failure("invalid format option")
    return 0


def _find(shelf: Store, given: Given) -> tuple[Container, Made]:
    container = shelf.open(given.words[0])
    made = container.read()
    if made is None:
        raise Failure(f"container {container.id} is still being created")
    return container, made


def signal_number(text: str) -> int:
    """9, KILL, SIGKILL, RTMIN+1. Raises Failure."""
    name = text.upper().removeprefix("SIG")
    if name.isdecimal():
        number = int(name)
    elif name.startswith(("RTMIN+", "RTMAX-")) and name[6:].isdecimal():
        number = _signal.SIGRTMIN + int(name[6:]) if name[3:6] == "MIN" else _signal.SIGRTMAX - int(name[6:])
    else:
        found = getattr(_signal, f"SIG{name}", None)
        number = found if isinstance(found, int) else -1
    if not 0 <= number < _signal.NSIG:
        raise Failure(f"unknown signal {text!r}")
    return number


def print_json(value: object) -> None:
    _print(jsontext.dumps(value, 2))


def _print(text: str) -> None:
    if text:
        data = text.encode(errors="surrogateescape") + b"\n"
        while data:
            data = data[os.write(1, data):]
