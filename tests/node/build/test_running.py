"""RUN's containers: none is left, whenever a build ends; locks of caches."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.build.running import Contained, Job, Runner
from node.build.values import RunLimits
from node.dockerfile.runmounts import RunMount


class Slow:
    """Containers whose creation takes its time."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.here: list[str] = []

    async def create(self, _spec: object) -> Any:
        self.here.append("made")
        self.begun.set()
        await asyncio.sleep(0.05)
        return SimpleNamespace(id="made")

    async def remove(self, name: str, *, force: bool, volumes: bool) -> None:
        assert force
        assert volumes
        self.here.remove(name)


async def test_a_build_that_ends_while_a_container_is_made(tmp_path: Path) -> None:
    containers = Slow()
    runner = Runner(cast("Contained", containers), tmp_path)

    async def run() -> None:
        job = Job("image", ("true",), (), "", "/")
        async with runner.run(job, RunLimits(), cast("Any", None), keep_failed=False):
            raise AssertionError

    building = asyncio.ensure_future(run())
    await containers.begun.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert containers.here == []


async def test_locked_caches_in_any_order(tmp_path: Path) -> None:
    runner = Runner(cast("Contained", Slow()), tmp_path)
    mounts = [RunMount("cache", f"/{name}", id=name, sharing="locked", read_only=False) for name in ("a", "b", "a")]

    async def use(wanted: list[RunMount]) -> None:
        async with AsyncExitStack() as stack:
            specs = await runner.caches(wanted, stack)
            assert [spec.target for spec in specs] == [mount.target for mount in wanted]
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*(use(mounts if number % 2 else mounts[1:]) for number in range(8)))
