"""An ordinary user for a test: known in a mount namespace of the test's alone, with what users of real hosts have (an
interpreter they may read, /dev/net/tun open to all). Nothing of the machine changes."""

import os
import pwd
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

UID = 61234
FIRST, COUNT = 1_500_000_000, 65536
NAME = "seawalltest"

_PRELUDE = r"""
set -e
files=$1; prefix=$2; closed=$3; uid=$4; shift 4
mount --make-rprivate /
for name in passwd group subuid subgid; do mount --bind "$files/$name" "/etc/$name"; done
if [ -n "$closed" ]; then
  mkdir -p "$files/prefix"; mount --bind "$prefix" "$files/prefix"
  mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$prefix"; mount --bind "$files/prefix" "$prefix"; umount "$files/prefix"
fi
mount -t tmpfs -o mode=755 none "$files/devices"
mknod -m 666 "$files/devices/tun" c 10 200; mount --bind "$files/devices/tun" /dev/net/tun
umount -l "$files/devices"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all -- "$@"
"""


@dataclass(frozen=True)
class Ordinary:
    """`home` is the user's, everything else of it too is below."""

    home: Path
    subordinate: bool = True
    """Whether it has ids beyond its own."""

    def command(self, *words: str) -> list[str]:
        files = self.home.parent / ("files" if self.subordinate else "single")
        if not files.exists():
            self._write(files)
        prefix = os.path.realpath(sys.base_prefix)
        return ["unshare", "-m", "bash", "-c", _PRELUDE, "ordinary", str(files), prefix, _closed(prefix), str(UID), *words]

    def _write(self, files: Path) -> None:
        (files / "devices").mkdir(parents=True)
        line = f"{NAME}:{FIRST}:{COUNT}\n" if self.subordinate else ""
        entries = {
            "passwd": f"{Path('/etc/passwd').read_text()}{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh\n",
            "group": f"{Path('/etc/group').read_text()}{NAME}:x:{UID}:\n", "subuid": line, "subgid": line,
        }
        for name, text in entries.items():
            (files / name).write_text(text)

    def processes(self) -> list[str]:
        """Command lines of all that run as the user or as one of its ids."""
        found = []
        for proc in Path("/proc").iterdir():
            if proc.name.isdigit():
                with suppress(OSError):
                    uid = int((proc / "status").read_text().split("Uid:")[1].split()[0])
                    words = (proc / "cmdline").read_bytes()
                    if words and (uid == UID or FIRST <= uid < FIRST + COUNT):
                        found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def gone(self, seconds: float = 15) -> list[str]:
        """Whoever is left after so long."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


def _closed(prefix: str) -> str:
    """The folder on the way to the interpreter that others may not enter; "" where there is none."""
    for folder in reversed((Path(prefix), *Path(prefix).parents)):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return str(folder)
    return ""


def why_not() -> str:
    """What this machine lacks for it; "" when nothing."""
    if os.geteuid() != 0:
        return "needs root, to become an ordinary user"
    for program in ("newuidmap", "setpriv", "unshare", "bash"):
        if shutil.which(program) is None:
            return f"needs {program}"
    if not any(map(shutil.which, ("pasta", "slirp4netns"))):
        return "needs pasta or slirp4netns"
    with suppress(KeyError):
        pwd.getpwuid(UID)
        return f"somebody has the user id {UID}"
    return ""


@contextmanager
def ordinary_folder(words: Sequence[str] = ()) -> Iterator[Path]:
    """In memory, and open on the way: pytest's own folders are nobody else's."""
    top = Path(tempfile.mkdtemp(prefix="seawall-user-", dir="/dev/shm", suffix="".join(words)))
    try:
        top.chmod(0o755)
        (top / "home").mkdir(mode=0o700)
        os.chown(top / "home", UID, UID)
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)
