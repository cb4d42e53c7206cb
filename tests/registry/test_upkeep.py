"""What a running registry does by itself."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from ocispec.errors import Unavailable
from registry.settings import GcSettings, Settings, UploadSettings
from registry.upkeep import Upkeep
from storage.gc.report import GcReport


class Housekeeping:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.turns = self.others = 0
        self.duty = self

    @asynccontextmanager
    async def hold(self):
        self.others += 1
        yield self.others > 1  # the first time another process has it

    async def turn(self, intervals) -> GcReport:
        self.turns += 1
        if self.failures:
            raise self.failures.pop(0)
        assert intervals.grace.total_seconds() == 7200
        assert intervals.between_passes.total_seconds() == 86400
        return GcReport()


class Proxy:
    async def expire(self, age) -> int:
        assert age.total_seconds() == 30 * 86400
        return 1


class Uploads:
    async def expire(self, older_than) -> int:
        assert older_than.total_seconds() == 90
        return 1


async def test_it_goes_on_after_failures(until, caplog) -> None:
    house = Housekeeping(Unavailable("database gone"), RuntimeError("a fault"))
    upkeep = Upkeep(house, Uploads(), Proxy(), Settings(
        gc=GcSettings(interval=0.01, grace=7200), uploads=UploadSettings(expire_after=90)))
    running = asyncio.create_task(upkeep.run())
    await until(lambda: house.turns >= 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "database gone" in caplog.text
    assert "a fault" in caplog.text


async def test_never_when_the_setting_says_so() -> None:
    await Upkeep(Housekeeping(), Uploads(), Proxy(), Settings(gc=GcSettings(interval=0))).run()
