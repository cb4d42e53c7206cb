"""One run of a runtime's program, waited for in the monitor's poller; what it says when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal

from node.linux import syscalls
from node.runtime.poller import READ, Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
MAX_LOG = 256 * 1024
MAX_WORDS = 2000
PREFIXES = ("runc create failed: ", "runc run failed: ", "exec failed: ", "unable to start container process: ")
DIRECTORY = "open executable: Operation not permitted"
"""crun, of a folder or another file that is no program."""

SPELLINGS = ("no such file or directory", "permission denied", "exec format error", "is a directory")
"""As Go spells them: by these words clients choose their exit status."""

KINDS = (
    ("not-found", ("executable file not found", "no such file or directory", "not found in $path")),
    ("is-directory", ("is a directory",)),
    ("permission", ("permission denied", "exec format error")),
)


class Command:
    """`end` is called with the exit status (-1 when a signal ended it). `ready` runs in the child before it executes
    the program."""

    def __init__(self, poller: Poller, argv: list[str], stdio: tuple[int, int, int], end: Callable[[int], None],
                 ready: Callable[[], None]) -> None:
        self._poller = poller
        self._end = end
        pid = os.fork()
        if pid == 0:
            _execute(argv, stdio, ready)
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        poller.watch(self._pidfd, READ, self._on_end)

    def kill(self) -> None:
        """Its end is waited for and told."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        if self._pidfd >= 0:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
            self._on_end(self._pidfd, READ)

    def _on_end(self, _fd: int, _events: int) -> None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self._poller.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._end(result.si_status if result.si_code == os.CLD_EXITED else -1)


def _execute(argv: list[str], stdio: tuple[int, int, int], ready: Callable[[], None]) -> None:
    """Never returns. No descriptor of the monitor's goes along: what leaks into a runtime may leak into a container
    (CVE-2024-21626)."""
    try:
        syscalls.reset_signals()
        ready()
        for number, fd in enumerate(stdio):
            os.dup2(fd, number, inheritable=True)
        syscalls.close_all_but({0, 1, 2})
        os.chdir("/")
        os.execve(argv[0], argv, ENVIRONMENT)
    except OSError as error:
        os.write(2, f"{argv[0]}: {os.strerror(error.errno or 0)}\n".encode())
    finally:
        os._exit(127)


def words(log: str, program: str) -> str:
    """The last error in a runtime's log (JSON lines with level and msg), without what it puts before every one."""
    try:
        with open(log, "rb") as file:
            lines = file.read(MAX_LOG).splitlines()
    except OSError:
        lines = []
    said = ""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            entry = json.loads(line)
            if entry["level"] in ("error", "fatal"):
                said = str(entry["msg"])
    for prefix in PREFIXES:
        said = said.removeprefix(prefix)
    said = said.replace(DIRECTORY, "open executable: permission denied")
    for spelling in SPELLINGS:
        said = said.replace(spelling.capitalize(), spelling)
    return said[:MAX_WORDS] or f"{program} failed and said nothing"


def failure(said: str) -> dict[str, object]:
    """For whoever asked: the words, and the kind that decides the exit code."""
    lowered = said.lower()
    # Only what is about the command: a missing source of a mount reads "no such file or directory" too.
    about = "exec" in lowered and "mount" not in lowered
    kind = next((kind for kind, marks in KINDS if about and any(mark in lowered for mark in marks)), "other")
    return {"error": said, "kind": kind}
