"""Traces as a collector gets them over HTTP, and what happens without the packages."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from registry.settings import InvalidSettings, Settings, TracingSettings
from registry.telemetry.tracing import NoTracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Speaks OTLP over HTTP. Spans by name; ids in hex."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[dict] = []
        self.service = ""
        self.status = 200

    async def handle(self, request: web.BaseRequest) -> web.Response:
        import gzip

        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert request.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.service = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self.spans += [{
                    "name": span.name, "trace": span.trace_id.hex(), "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(), "error": span.status.code == 2,
                    **{item.key: item.value.string_value or item.value.int_value for item in span.attributes},
                } for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[dict]:
        return [span for span in self.spans if span["name"] == name]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    made = Collector()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield made
    await runner.cleanup()


@pytest.fixture
async def traced(collector, serve, settings):
    tracing = TracingSettings(endpoint=collector.url, delay=0.05, service="test-registry")
    async with serve(replace(settings, tracing=tracing)) as api:
        yield api
        await asyncio.to_thread(api.registry.telemetry.tracing.close)


async def test_a_request_and_what_it_waited_for_are_one_trace(traced, collector, until) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}
    async with traced.post(f"/v2/{traced.repo}/blobs/uploads/", headers=headers) as answer:
        assert answer.status == 202
    await until(lambda: collector.named("POST uploads"))
    request, = collector.named("POST uploads")
    assert (request["trace"], request["parent"]) == (TRACE, PARENT)
    assert request["http.response.status_code"] == 202
    assert request["seawall.request"] == "mine"
    writes = collector.named("database.write")
    assert writes
    assert all(span["trace"] == TRACE and span["parent"] == request["id"] for span in writes)
    assert collector.service == "test-registry"


async def test_store_calls_are_in_it(traced, collector, until) -> None:
    await traced.blob(b"some bytes")
    await until(lambda: collector.named("store.seal") and collector.named("PUT upload"))
    parents = {span["id"]: span for span in collector.spans}
    assert parents[collector.named("store.seal")[0]["parent"]]["name"] == "PUT upload"


async def test_a_request_without_a_trace_begins_one(traced, collector, until) -> None:
    async with traced.get("/v2/a/b/tags/list") as answer:
        assert answer.status == 404
    await until(lambda: collector.named("GET tags"))
    request, = collector.named("GET tags")
    assert request["parent"] == ""
    assert request["trace"] != "0" * 32
    assert not request["error"]


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01",
                                    "00-" + "a" * 5000])
async def test_a_broken_parent_is_none(traced, collector, until, header) -> None:
    async with traced.get("/v2/", headers={"traceparent": header}) as answer:
        assert answer.status == 200
    await until(lambda: collector.named("GET base"))
    assert collector.named("GET base")[0]["parent"] == ""


async def test_the_caller_decides_what_is_kept(traced, collector, until) -> None:
    async with traced.get("/v2/", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}) as answer:
        assert answer.status == 200
    async with traced.get("/v2/_catalog") as answer:
        assert answer.status == 200
    await until(lambda: collector.named("GET catalog"))
    assert not collector.named("GET base")


async def test_a_fault_is_marked(traced, collector, until, monkeypatch) -> None:
    async def broken(*_, **__) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(traced.registry.content.tags, "list", broken)
    async with traced.get("/v2/a/b/tags/list") as answer:
        assert answer.status == 500
    await until(lambda: collector.named("GET tags"))
    assert collector.named("GET tags")[0]["error"]


async def test_log_lines_name_the_trace(traced, collector, caplog, monkeypatch) -> None:
    from registry.telemetry.logs import current
    seen = []

    async def look(*_, **__) -> None:
        seen.append(current.get())
        raise RuntimeError("a fault")

    monkeypatch.setattr(traced.registry.content.tags, "list", look)
    async with traced.get("/v2/a/b/tags/list", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}):
        pass
    assert [context.trace for context in seen] == [TRACE]


async def test_a_collector_that_fails_harms_nobody(traced, collector) -> None:
    collector.status = 400
    for _ in range(20):
        async with traced.get("/v2/") as answer:
            assert answer.status == 200


async def test_without_tracing_there_is_none(api) -> None:
    assert isinstance(api.registry.telemetry.tracing, NoTracing)


def test_off_it_is_not_even_imported() -> None:
    program = ("import sys, registry.app, registry.cli\n"
               "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_packages_it_says_what_to_install(tmp_path) -> None:
    program = ("import sys\nsys.modules['opentelemetry'] = None\nfrom registry.cli import main\n"
               f"sys.argv = ['seawall-registry', 'serve', '--data', {str(tmp_path / 'data')!r}, '--workers', '1', '--listen', '127.0.0.1:0']\n"
               "main()\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
                          env={"SEAWALL_REGISTRY_TRACING_ENDPOINT": "http://127.0.0.1:1/v1/traces", "PATH": ""})
    assert done.returncode == 1
    assert "pip install 'seawall[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wrong", [{"endpoint": "grpc://x"}, {"endpoint": "http://x", "ratio": "1.5"}, {"delay": "0"}])
def test_settings_that_cannot_be(wrong) -> None:
    environment = {f"SEAWALL_REGISTRY_TRACING_{name.upper()}": value for name, value in wrong.items()}
    with pytest.raises(InvalidSettings, match=r"tracing\."):
        Settings.load(None, environment)
