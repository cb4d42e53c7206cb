"""CVE-2019-5736: a container that has our program executed inside, and then writes to what /proc/self/exe names.

The image's command is /proc/self/exe, which is the interpreter of whoever is about to execute it. It keeps a descriptor of
that file, becomes another program, so that the file is not busy on its account, and opens it for writing. The attempt asks
to truncate: that needs a writable mount before anything else is looked at, and truncates nothing as long as the file is
executed by anybody (these tests are).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.escapes.conftest import Node, borrowed

pytestmark = pytest.mark.root

OVERWRITE = """
import os
held = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(held, True)
os.execv("/bin/busybox", ["sh", "-c", f"stat -Lc %i /proc/self/fd/{held}; : > /proc/self/fd/{held}"])
"""
OURS = ("/proc/self/exe", "-I", "-S", "-c", OVERWRITE)


def inode() -> int:
    return Path(sys.executable).stat().st_ino


@pytest.mark.parametrize("users", ["host", ""])
def test_our_program_is_not_overwritten(node: Node, users: str) -> None:
    host: dict[str, Any] = {"UsernsMode": users, "Binds": borrowed()}
    code, said = node.run("prober", *OURS, host=host)
    assert code != 0
    refused(said, users)


@pytest.mark.parametrize("users", ["host", ""])
def test_nor_by_an_exec(node: Node, users: str) -> None:
    """`#!/proc/self/exe`, as the first exploit had it."""
    script = (f"cat > /overwrite.py <<'END'\n{OVERWRITE}END\n"
              "printf '#!/proc/self/exe /overwrite.py\\n' > /s; chmod 755 /s; echo ready; sleep 60")
    made = node.begin("prober", "sh", "-c", script, host={"UsernsMode": users, "Binds": borrowed()})
    for _ in range(200):
        if "ready" in node.logs(made):
            break
    code, said = node.execute(made, "/s")
    node.remove(made)
    assert code != 0
    refused(said, users)


def refused(said: str, users: str) -> None:
    number, _, words = said.partition("\n")
    assert int(number) == inode(), "it was another program: the attempt shows nothing"
    # In a user namespace of its own even the file's owner is nobody there.
    assert "Read-only file system" in words or (not users and "Permission denied" in words), words


def test_on_a_writable_mount_it_would_be(tmp_path: Path) -> None:
    copy = tmp_path / "python"
    shutil.copy2(Path(sys.executable).resolve(), copy)
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    subprocess.run([copy, "-S", "-c", OVERWRITE], check=True, capture_output=True, env=environment)
    assert copy.stat().st_size == 0
