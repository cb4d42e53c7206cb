"""An installation of `seawall-runtime` made for the tests, and bundles of busybox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.node.runtime.conftest import make_root


class Runtime:
    """The command with a state folder of its own; bundles and output go below `work`."""

    def __init__(self, program: Path, root: Path, work: Path) -> None:
        self.program = program
        self.root = root
        self.work = work
        self.names: set[str] = set()
        self._bundles = 0
        self.group = f"seawall-oci-{uuid.uuid4().hex[:12]}"

    def __call__(self, *words: str, check: bool = True, stdin: int = subprocess.DEVNULL,
                 **more: Any) -> subprocess.CompletedProcess[str]:
        # Files and no pipes: what is started and stays holds them open.
        out, err = self.work / "stdout", self.work / "stderr"
        with out.open("w") as stdout, err.open("w") as stderr:
            done = subprocess.run([self.program, "--root", self.root, *words], stdin=stdin, stdout=stdout, stderr=stderr,
                                  check=False, timeout=30, **more)
        result = subprocess.CompletedProcess(done.args, done.returncode, out.read_text(), err.read_text())
        if words[0] in ("create", "run") and words[-1].isalnum():
            self.names.add(words[-1])
        assert not check or result.returncode == 0, result.stderr
        return result

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", name).stdout)
        return found

    def bundle(self, *args: str, change: Callable[[dict[str, Any]], None] = lambda _config: None) -> Path:
        """A bundle whose process is `args`; `change` gets its config.json."""
        self._bundles += 1
        folder = self.work / f"bundle-{self._bundles}"
        make_root(folder / "rootfs")
        self("spec", "--bundle", str(folder))
        config = json.loads((folder / "config.json").read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = list(args)
        # Not the runtime's own choice: another test run on this machine may have a container of the same name.
        config["linux"]["cgroupsPath"] = f"/{self.group}-{self._bundles}"
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def running(self, name: str, *args: str, change: Callable[[dict[str, Any]], None] = lambda _config: None) -> Path:
        bundle = self.bundle(*args, change=change)
        self("create", "--bundle", str(bundle), name)
        self("start", name)
        return bundle


def installed(prefix: Path) -> Path:
    """The program as an editable installation lies: interpreter and script in bin, the way to the packages in a .pth
    file."""
    packages = prefix / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "own.pth").write_text(f"{CHECKOUT}\n")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    shutil.copy(CHECKOUT / "node/runtime/oci/seawall-runtime", prefix / "bin")
    return prefix / "bin" / "seawall-runtime"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def runtime(program: Path, tmp_path: Path) -> Iterator[Runtime]:
    work = tmp_path / "work"
    work.mkdir()
    made = Runtime(program, tmp_path / "state", work)
    yield made
    for name in made.names:
        made("delete", "--force", name)
    assert not list(made.root.glob("[!,]*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{made.group}-*"))
