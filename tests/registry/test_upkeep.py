"""What a running registry does by itself."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from ocispec.digest import Digest
from ocispec.errors import Unavailable
from registry.settings import GcSettings, ScrubSettings, Settings, UploadSettings
from registry.telemetry import families
from registry.telemetry.collection import CollectionMeter
from registry.telemetry.worker import Numbers
from registry.upkeep import BackgroundScrub, Upkeep
from storage.gc.report import GcReport
from storage.scrub import Damage, Fault, ScrubOptions, ScrubReport


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


@pytest.fixture
def numbers() -> Numbers:
    return Numbers.of([], 1)


async def test_it_goes_on_after_failures(until, caplog, numbers) -> None:
    house = Housekeeping(Unavailable("database gone"), RuntimeError("a fault"))
    upkeep = Upkeep(house, Uploads(), Proxy(), Settings(
        gc=GcSettings(interval=0.01, grace=7200), uploads=UploadSettings(expire_after=90)),
        CollectionMeter(numbers.board.part(0)))
    running = asyncio.create_task(upkeep.run())
    await until(lambda: house.turns >= 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "database gone" in caplog.text
    assert "a fault" in caplog.text
    runs = dict(numbers.board.used(families.GC_RUNS))
    assert runs["failed",] == [2.0]
    assert runs["ok",] == [house.turns - 2]
    assert next(numbers.board.used(families.GC_TIME))[1][0] > 1.7e9


class Duty:
    def __init__(self) -> None:
        self.marks: dict[str, object] = {}

    @asynccontextmanager
    async def hold(self):
        yield True

    async def since_done(self, what: str) -> timedelta | None:
        return timedelta(0) if what in self.marks else None

    async def done(self, what: str, at: object) -> None:
        self.marks[what] = at


class Scrubs:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.runs = 0

    async def run(self, options: ScrubOptions, found) -> ScrubReport:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)
        assert (options.rate, options.jobs, options.quarantine) == (5, 1, True)
        found(Damage(Fault.CHANGED, Digest.of(b"x"), "other bytes", 1, quarantined=True))
        return ScrubReport(datetime.now(UTC), continued=False)


async def test_a_scrub_goes_on_after_failures_tells_what_it_finds_and_rests_when_it_is_done(until, caplog) -> None:
    scrubs, duty = Scrubs(Unavailable("bucket gone"), RuntimeError("a fault")), Duty()
    running = asyncio.create_task(BackgroundScrub(scrubs, duty, ScrubSettings(0.01, 5, True)).run())
    await until(lambda: duty.marks)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scrubs.runs == 3
    for text in ("bucket gone", "a fault", f"wrong-digest {Digest.of(b'x')}: other bytes (quarantined)"):
        assert text in caplog.text


async def test_no_scrub_unless_the_setting_says_so() -> None:
    await BackgroundScrub(Scrubs(), Duty(), ScrubSettings()).run()


async def test_never_when_the_setting_says_so(numbers) -> None:
    await Upkeep(Housekeeping(), Uploads(), Proxy(), Settings(gc=GcSettings(interval=0)),
                 CollectionMeter(numbers.board.part(0))).run()
