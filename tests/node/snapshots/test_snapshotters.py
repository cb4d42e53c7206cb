"""Both snapshotters by one contract."""

from pathlib import Path

import pytest

from node.snapshots.choose import open_snapshotter
from node.snapshots.store import Snapshotter
from tests.contracts.snapshotter import SnapshotterContract, add, chain

pytestmark = pytest.mark.root


@pytest.fixture(params=["overlay", "vfs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestSnapshotters(SnapshotterContract):
    @pytest.fixture
    async def snapshots(self, kind: str, tmp_path: Path) -> Snapshotter:
        return await open_snapshotter(tmp_path, kind)


async def test_only_the_published_survives(kind: str, tmp_path: Path) -> None:
    first = await open_snapshotter(tmp_path, kind)
    await add(first, chain("a"), "a")
    await first.publish(chain("a"))
    unpublished = await add(first, chain("b"), "b")
    prepared = (await first.prepare(chain("c"))).directory
    second = await open_snapshotter(tmp_path, kind)
    assert second.has(chain("a")[0])
    assert not second.has(chain("b")[0])
    assert not unpublished.exists()
    assert not prepared.exists()
