"""containerd's break-out layers: whatever they hold, nothing outside the root is read, written, linked or changed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from node.images.unpack.errors import InvalidLayer
from tests.node.images.conftest import Make, listing

pytestmark = pytest.mark.root

KINDS = ("overlay", "vfs")


def cases(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder(shared) / "cases.json").read_text())
    assert len(found) == 34
    return found


def folder(shared: Path) -> Path:
    return shared / "oci" / "tar-security" / "containerd-breakout"


def make_sentinels(place: Path) -> None:
    """What a path that leaves the root upwards would meet on its way."""
    for level in (place, place / "a", place / "a" / "b"):
        for name in ("etc", "localetc", "dummy", "tmp", "breakouts"):
            (level / name).mkdir(parents=True)
        for name in ("etc/passwd", "etc/whitedout", "localetc/passwd", "tmp/breakout-TestBreakouts"):
            (level / name).write_text(f"outside {name}")


def outside(place: Path, home: Path) -> dict[str, Any]:
    """Everything around the node's home, with inode facts that a link or a touch would change."""
    found: dict[str, Any] = {}
    for path, folders, files in os.walk(place):
        folders[:] = [name for name in folders if Path(path, name) != home]
        for name in (*folders, *files):
            one = Path(path, name)
            info = one.lstat()
            found[str(one)] = (info.st_mode, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, info.st_size,
                               one.read_bytes() if one.is_file() else b"")
    return found


def of_the_host() -> tuple[Any, ...]:
    passwd = os.stat("/etc/passwd")
    return (passwd.st_nlink, passwd.st_mtime_ns, passwd.st_ctime_ns, os.path.exists("/tmp/breakout-TestBreakouts"),
            os.path.lexists("/localetc"), os.path.lexists("/localpasswd"), os.path.lexists("/foo"))


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_outside_the_root_is_touched(kind: str, shared: Path, tmp_path: Path, unpacker: Make) -> None:
    make_sentinels(tmp_path)
    home = tmp_path / "a" / "b" / "home"
    home.mkdir()
    before, host = outside(tmp_path, home), of_the_host()
    async with unpacker(kind, root=home) as node:
        for case in cases(shared):
            names = [case[key] for key in ("base_tar", "layer_tar") if key in case]
            tars = [(folder(shared) / name).read_bytes() for name in names]
            if case["expect_error"]:
                with pytest.raises(InvalidLayer):
                    await node.unpack(tars)
            else:
                await node.unpack(tars)
            assert outside(tmp_path, home) == before, case["name"]
            assert of_the_host() == host, case["name"]


async def test_both_snapshotters_give_the_same_tree(shared: Path, unpacker: Make) -> None:
    async with unpacker("overlay") as one, unpacker("vfs") as other:
        for case in cases(shared):
            if case["expect_error"]:
                continue
            names = [case[key] for key in ("base_tar", "layer_tar") if key in case]
            tars = [(folder(shared) / name).read_bytes() for name in names]
            chain = await one.unpack(tars, at_once=True)
            await other.unpack(tars)
            async with one.root(chain) as left, other.root(chain) as right:
                assert listing(left) == listing(right), case["name"]


async def test_links_lead_to_what_lies_in_the_root(shared: Path, unpacker: Make) -> None:
    """Where the layers expect the inner /etc/passwd under another name, that is what is found."""
    linked = {
        "HardlinkRelative": "breakouts/mypasswd", "HardlinkDownAndOut": "breakouts/mypasswd",
        "HardlinkAbsolute": "localpasswd", "HardlinkRelativeLong": "localpasswd",
        "HardlinkRelativeUpAndOut": "localpasswd", "HardlinkDirectRelative": "localpasswd",
        "HardlinkDirectAbsolute": "localpasswd", "SymlinkParentDirectory": "localpasswd",
        "SymlinkEmptyFilename": "localpasswd", "SymlinkOverrideDirectory": "etc/localpasswd",
        "SymlinkOverrideDirectoryRelative": "etc/localpasswd", "DirectoryOverrideSymlink": "localetc/localpasswd",
    }
    async with unpacker("overlay") as node:
        for case in cases(shared):
            if case["name"] not in linked:
                continue
            names = [case[key] for key in ("base_tar", "layer_tar") if key in case]
            chain = await node.unpack([(folder(shared) / name).read_bytes() for name in names])
            async with node.root(chain) as root:
                assert os.path.samefile(root / linked[case["name"]], root / "etc/passwd"), case["name"]


@pytest.mark.parametrize("kind", KINDS)
async def test_whiteouts_apply_to_the_layers_below(kind: str, shared: Path, unpacker: Make) -> None:
    from tests.node.images.conftest import tar

    table = json.loads((shared / "oci" / "tar-security" / "apply-layer-whiteouts.json").read_text())
    async with unpacker(kind) as node:
        tars: list[bytes] = []
        for step in table["cases"]:
            tars.append(tar(*step["change"]))
            chain = await node.unpack(tars, at_once=True)
            async with node.root(chain) as root:
                seen = sorted(f"{name}/" if (root / name).is_dir() else name for name in listing(root) if name)
            assert seen == sorted(step["expected"])
