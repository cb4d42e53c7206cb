"""The tests of tests/vm/inside, in a machine with a kernel of its own that has cgroup v2 alone (dev/vm)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, lacking

INSIDE = CHECKOUT / "tests" / "vm" / "inside"
# A daemon takes half a minute of an idle processor to start there, and this file starts two: `make test-vm` asks for it.
SLOW = () if os.environ.get("SEAWALL_VM_NODE") else ("test_node.py",)
FILES = sorted(path.name for path in INSIDE.glob("test_*.py") if path.name not in SLOW)
SECONDS = 900
# Plugins cost seconds each where everything is emulated; the conftest above is not read for the same reason.
PYTEST = ("-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p",
          "pytest_timeout", "--basetemp=/disk/pytest", "-o", "timeout=800", f"--confcutdir={INSIDE}")  # fmt: skip
OUTCOME = re.compile(r"^\S*/inside/(test_\w+\.py)::(\S+(?: \S+)*?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


@pytest.fixture(scope="session")
def said() -> str:
    """Everything that the tests in the machine wrote."""
    if os.geteuid() != 0:
        lacking("needs root: virtiofsd shows this machine's files")
    if not (CHECKOUT / ".tools/vm/kernel/ready").exists():
        lacking("no kernel: run dev/vmkernel .tools/vm")
    # Compiled here, where it is quick; the machine cannot write them down.
    subprocess.run([sys.executable, "-m", "compileall", "-q", *(CHECKOUT / name for name in ("node", "ocispec", "storage"))],
                   check=True, stdout=subprocess.DEVNULL)
    command = ["dev/vm", "--systemd", "--seconds", str(SECONDS), "--", "env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
               str(Path(sys.prefix) / "bin" / "python"), *PYTEST, *(str(INSIDE / file) for file in FILES)]
    ran = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         stdin=subprocess.DEVNULL, check=False)
    return ran.stdout


@pytest.mark.root
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("file", FILES)
def test_in_the_machine(said: str, file: str) -> None:
    outcomes = {name: outcome for where, name, outcome in OUTCOME.findall(said) if where == file}
    bad = [name for name, outcome in outcomes.items() if outcome != "PASSED"]
    if not outcomes or bad:
        pytest.fail(f"{file}: {', '.join(bad) or 'not run'}\n{said[-20000:]}", pytrace=False)
    assert re.search(r"^=+ .*\d+ passed", said, re.MULTILINE), said[-5000:]
