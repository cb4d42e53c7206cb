"""Copies into a folder that somebody else changes meanwhile."""

import os
from pathlib import Path

import pytest

from node.snapshots import trees


def test_a_hard_link_leads_nowhere_by_a_symlink_put_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that has the volume, too, swaps a folder while the volume is filled."""
    source, target, secret = tmp_path / "source", tmp_path / "target", tmp_path / "secret"
    for folder in (source / "a", source / "b", target, secret):
        folder.mkdir(parents=True)
    (source / "a" / "file").write_text("image")
    os.link(source / "a" / "file", source / "b" / "file")
    (secret / "file").write_text("the host's")
    copy = trees._Copy(source, target)

    def swap(reading: int, writing: int, name: str, size: int) -> None:
        done(reading, writing, name, size)
        first = Path(f"/proc/self/fd/{writing}").readlink()
        first.rename(tmp_path / "aside")
        first.symlink_to(secret)

    done = trees._copy_file
    monkeypatch.setattr(trees, "_copy_file", swap)
    with pytest.raises(OSError, match="symbolic links"):
        copy.run()
    assert os.stat(secret / "file").st_nlink == 1
