"""Tests that want a real cgroup v2 tree and a machine of their own: the one that tests/vm/test_machine.py boots."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
if "SEAWALL_VM" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def parent() -> Iterator[str]:
    """A name for the group that holds all those of a test; fails the test that leaves a group behind."""
    name = f"seawall-{uuid.uuid4().hex[:8]}"
    yield name
    left = [str(path) for path in ROOT.rglob("*") if path.is_dir() and name in path.name]
    for path in sorted(left, key=len, reverse=True):
        Path(path).rmdir()
    assert [path for path in left if not path.endswith((name, f"{name}.slice"))] == [], "groups left behind"
