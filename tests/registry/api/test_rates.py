"""Rate limits: what a bucket lets through, how many there are, and what a client hears."""

import base64
from dataclasses import replace

import pytest

from registry.api import rates
from registry.api.rates import Rate, Rates
from registry.auth.principal import Principal
from registry.errors import TooManyRequests
from registry.settings import RateSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_again() -> None:
    clock = Clock()
    rate = Rate(2.0, 3, clock)
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait("b") == 0
    clock.now += 0.25
    assert rate.wait("a") == 0.25  # being refused costs nothing
    clock.now += 0.25
    assert [rate.wait("a"), rate.wait("a")] == [0, 0.5]
    clock.now += 1000
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_no_limit() -> None:
    rate = Rate(0, 1)
    assert [rate.wait("a") for _ in range(1000)] == [0] * 1000


def test_strangers_cannot_fill_its_memory() -> None:
    rate = Rate(1, 1)
    for number in range(rates.BUCKETS + 100):
        rate.wait(str(number))
    assert len(rate._buckets) == rates.BUCKETS


def test_an_address_of_ipv6_counts_as_its_network() -> None:
    limits = Rates(RateSettings(address=1, burst=2), Clock())
    limits.address("2001:db8::1")
    limits.address("2001:db8::ffff:1%eth0")
    with pytest.raises(TooManyRequests):
        limits.address("2001:db8:0:0:1::")
    limits.address("2001:db8:0:1::1")
    limits.address("not:an:address")
    limits.address("10.0.0.1")


def test_the_lane_takes_as_the_edge_does() -> None:
    limits = Rates(RateSettings(address=1, principal=1, burst=2), Clock())
    assert [limits.admit("10.0.0.1", "ann") for _ in range(3)] == [True, True, False]
    assert not limits.admit("10.0.0.2", "ann")
    assert limits.admit("10.0.0.2", "")


@pytest.fixture
async def slow(serve, settings):
    async with serve(replace(settings, rate=RateSettings(address=0.01, burst=3))) as started:
        yield started


async def test_too_many_from_one_address(slow) -> None:
    for path, status in (("/v2/", 200), ("/nothing", 404), ("/v2/", 200), ("/v2/", 429), ("/v2/a/manifests/b", 429)):
        async with slow.get(path) as answer:
            assert answer.status == status
            if status == 429:
                assert 0 < int(answer.headers["Retry-After"]) <= 100
                assert (await answer.json())["errors"][0]["code"] == "TOOMANYREQUESTS"
    async with slow.get("/healthz") as answer:
        assert answer.status == 200


async def test_answers_from_memory_count_too(serve, settings) -> None:
    async with serve(settings) as api:
        await api.image("v1")
    async with serve(replace(settings, rate=RateSettings(address=0.01, burst=5))) as api:
        statuses = []
        for _ in range(7):
            async with api.get(f"/v2/{api.repo}/manifests/v1") as answer:
                statuses.append(answer.status)
        assert statuses == [200] * 5 + [429] * 2


async def test_too_many_of_one_user(serve, settings, monkeypatch) -> None:
    async with serve(replace(settings, rate=RateSettings(principal=0.01, burst=2))) as api:
        async def identify(presented):
            return Principal("ann" if presented.authorization else "")

        monkeypatch.setattr(api.registry.access, "identify", identify)
        basic = {"Authorization": "Basic " + base64.b64encode(b"ann:x").decode()}
        statuses = []
        for headers in (basic, basic, basic, {}):
            async with api.get("/v2/", headers=headers) as answer:
                statuses.append(answer.status)
        assert statuses == [200, 200, 429, 200]
