"""What machines ask: is it alive, is it ready, how is it doing."""

import asyncio
import io
import ipaddress
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from ocispec.errors import Unavailable
from registry.api.operations import Readers
from registry.settings import MetricsSettings
from registry.telemetry.exposition import ASKED
from storage.metadata import webhooks


async def numbers(api, **headers: str) -> dict[tuple[str, ...], float]:
    async with api.get("/metrics", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        text = await answer.text()
    return {(sample.name.removeprefix("seawall_"), *sample.labels.values()): sample.value
            for family in parse(text) for sample in family.samples}


async def test_requests_are_counted_by_what_they_were(api, until, noise) -> None:
    data = noise(200_000)
    digest = await api.blob(data)
    await api.image("v1")
    before = await numbers(api)
    for _ in range(3):
        async with api.get(f"/v2/{api.repo}/manifests/v1") as answer:
            manifest = await answer.read()
    async with api.get(f"/v2/{api.repo}/blobs/{digest}") as answer:
        assert await answer.read() == data
    async with api.get("/v2/no/such/manifests/v1") as answer:
        assert answer.status == 404

    async def grew() -> bool:
        now = await numbers(api)
        grown = {key: now[key] - before.get(key, 0) for key in now}
        return (grown["http_requests_total", "manifest", "GET", "200"] == 3
                and grown["http_requests_total", "manifest", "GET", "404"] == 1
                and grown["http_request_seconds_count", "blob", "GET"] == 1
                and grown["http_sent_bytes_total", "blob"] > len(data)
                and grown["http_sent_bytes_total", "manifest"] > 3 * len(manifest)
                and grown["cache_hits_total", "manifests"] == 2)

    await until(grew)
    assert before["http_received_bytes_total", "upload"] > len(data)
    assert before["store_written_bytes_total",] > len(data)
    assert before["database_seconds_count", "write"] > 3
    assert before["store_seconds_count", "seal"] >= 1
    assert before["uploads_open",] == 0
    assert before["http_requests_in_flight",] == 1
    assert before["http_connections",] >= 1


async def test_every_number_that_is_looked_up_is_there(api) -> None:
    database = api.registry.database
    async with database.write() as tx:
        await webhooks.claim(tx, "ci", "one", database.now(), database.now())
    found = {key[0] for key in await numbers(api)}
    assert {asked.name.removeprefix("seawall_") for asked in ASKED} <= found


async def test_what_is_too_large_was_not_throttled(impatient, refused) -> None:
    async with impatient.put("/v2/a/manifests/v1", data=io.BytesIO(b"x" * 5_000_000)) as answer:
        assert answer.status == 413
    assert (await numbers(impatient))["throttled_total",] == 0


async def test_no_client_makes_the_numbers_grow(api) -> None:
    await numbers(api)
    await asyncio.sleep(0)
    first = len(await numbers(api))
    async with api.raw() as raw:
        for method in ("PROPFIND", "MKCOL", "LOCK", "SEARCH", "REPORT", "TRACE", "LINK", "NOTIFY", "PURGE"):
            raw.send(f"{method} /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await raw.answer())[0] == 405
    for number in range(40):
        async with api.get(f"/v2/repo{number}/manifests/tag{number}", headers={"User-Agent": f"a{number}"}) as answer:
            assert answer.status == 404
    # One series for the other methods, one for manifests not found, and their histograms.
    assert len(await numbers(api)) - first < 60


async def test_a_client_that_goes_is_counted_as_gone(api, until, noise) -> None:
    digest = await api.blob(noise(30_000_000))
    async with api.raw() as raw:
        raw.send(f"GET /v2/{api.repo}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n")
        await raw.head()

    async def told() -> bool:
        return (await numbers(api)).get(("http_requests_total", "blob", "GET", "499")) == 1

    await until(told)


@pytest.mark.parametrize("allow", ["", "192.0.2.0/24"])
async def test_the_metrics_are_not_for_everybody(serve, settings, refused, allow) -> None:
    metrics = MetricsSettings(allow=allow, token="let-me-in")
    async with serve(replace(settings, metrics=metrics)) as api:
        await refused(api.get("/metrics"), 403, "DENIED")
        await refused(api.get("/metrics", headers={"Authorization": "Bearer wrong"}), 403, "DENIED")
        await refused(api.get("/metrics", headers={"Authorization": "Basic bGV0LW1lLWlu"}), 403, "DENIED")
        assert await numbers(api, Authorization="Bearer let-me-in")
    assert "let-me-in" not in repr(metrics)


def test_readers() -> None:
    readers = Readers([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fe80::/10")], "t")
    assert readers.admits("10.1.2.3", "")
    assert readers.admits("::ffff:10.1.2.3", "")
    assert readers.admits("fe80::1%eth0", "")
    assert not readers.admits("11.1.2.3", "")
    assert not readers.admits("", "")
    assert not readers.admits("not an address", "Bearer")
    assert readers.admits("11.1.2.3", "bearer t")
    assert not Readers([], "").admits("127.0.0.1", "Bearer ")


async def test_ready_and_alive(api) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        async with api.get(path, headers={"Authorization": "Bearer nonsense"}) as answer:
            assert answer.status == 200
            assert (await answer.json())["status"] == "ok"
        async with api.head(path) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("broken", ["database", "store"])
async def test_not_ready_when_a_part_fails(api, broken, caplog) -> None:
    health = api.registry.health
    health._believed = 0.0

    async def fail() -> None:
        raise Unavailable("no such disk")

    well, health._checks[broken] = health._checks[broken], fail
    async with api.get("/readyz") as answer:
        assert answer.status == 503
        checks = (await answer.json())["checks"]
        assert checks.pop(broken) == "failed"
        assert set(checks.values()) == {"ok"}
        assert "disk" not in await answer.text()
    assert "no such disk" in caplog.text
    async with api.get("/livez") as answer:
        assert answer.status == 200
    health._checks[broken] = well
    async with api.get("/readyz") as answer:
        assert answer.status == 200


async def test_not_ready_while_it_drains_and_everything_is_answered(api) -> None:
    await api.image("v1")
    api.registry.health.draining = True
    async with api.get("/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["checks"]["serving"] == "failed"
    async with api.get(f"/v2/{api.repo}/manifests/v1") as answer:
        assert answer.status == 200


async def test_not_ready_with_another_program_s_schema(api) -> None:
    api.registry.health._believed = 0.0
    database = api.registry.database
    import sqlalchemy as sa
    async with database.write() as tx:
        await tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    async with api.get("/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["checks"]["database"] == "failed"


async def test_many_askers_cost_one_check(api) -> None:
    asked = 0

    async def slow() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)

    health = api.registry.health
    health._checks["store"] = slow

    async def ask() -> int:
        async with api.get("/readyz") as answer:
            return answer.status

    assert set(await asyncio.gather(*(ask() for _ in range(20)))) == {200}
    assert asked == 1
