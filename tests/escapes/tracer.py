"""Runs inside a container that may trace: takes over every process that appears in its pid namespace, as early as it can.

Writes one line of JSON for each: what it could do when it was taken, and which program it was. Ends when told to (a line
on standard input). Standard library only.
"""

import ctypes
import json
import os
import select
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


def take(pid: int) -> dict[str, object] | None:
    # Not PTRACE_ATTACH: its SIGSTOP may come after another stop, and stay when we have let go.
    if LIBC.ptrace(SEIZE, pid, None, None) != 0:
        return {"pid": pid, "taken": False}
    LIBC.ptrace(INTERRUPT, pid, None, None)
    try:
        os.waitpid(pid, WALL)
        with open(f"/proc/{pid}/status") as file:
            fields = {name: text.strip() for name, _, text in (line.partition(":") for line in file)}
        root = os.stat(f"/proc/{pid}/root")
        return {"pid": pid, "taken": True, "name": fields["Name"], "can": fields["CapEff"], "root": root.st_ino}
    except OSError:
        return None
    finally:
        LIBC.ptrace(DETACH, pid, None, None)


def main() -> None:
    known = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    print(json.dumps({"ready": True, "root": os.stat("/").st_ino}), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in known:
                known.add(int(name))
                if said := take(int(name)):
                    print(json.dumps(said), flush=True)


main()
