"""Traces by OpenTelemetry, when the settings ask for them: spans of requests and of what they wait for, sent over
HTTP to a collector.

The packages are an extra (`pip install seawall[tracing]`) and are imported only when tracing is on: whoever does not
trace pays nothing for it, in memory or in time.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, Self

from ocispec.errors import FailedPrecondition
from registry.settings import TracingSettings

Span = AbstractContextManager[object]


class TracingMissing(FailedPrecondition):
    """Tracing is asked for and its packages are not installed."""


class Tracing(Protocol):
    @property
    def on(self) -> bool:
        """Whether asking for a span makes sense."""
        ...

    def span(self, name: str) -> Span:
        """Part of whatever runs in this task."""
        ...

    def request(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> "RequestSpan":
        """The whole of a request; `traceparent` among its headers makes it part of the caller's trace."""
        ...

    def close(self) -> None:
        """Send what is left. Takes a few seconds at most; for a thread."""
        ...


class RequestSpan(Protocol):
    """Open from `__enter__`. `trace` is the trace's id in hex, empty when nothing is traced."""

    trace: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def answered(self, endpoint: str, status: int) -> None: ...


class NoTracing:
    on = False

    def span(self, name: str) -> Span:  # noqa: ARG002
        raise AssertionError("ask `on` first")

    def request(self, name: str, headers: Mapping[str, str],  # noqa: ARG002
                attributes: Mapping[str, str]) -> RequestSpan:  # noqa: ARG002
        raise AssertionError("ask `on` first")

    def close(self) -> None:
        """Nothing is held."""


class OpenTelemetry:
    """Made once for a worker, after the fork: it starts a thread that sends."""

    on = True

    def __init__(self, settings: TracingSettings) -> None:
        """Raises TracingMissing."""
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracingMissing("tracing.endpoint is set and the packages for it are missing: "
                                 "pip install 'seawall[tracing]'") from error
        self._trace, self._context = trace, context
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": settings.service, "service.instance.id": str(os.getpid())}),
            sampler=ParentBased(TraceIdRatioBased(settings.ratio)), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.timeout)
        self._provider.add_span_processor(BatchSpanProcessor(
            exporter, max_queue_size=4096, schedule_delay_millis=settings.delay * 1000))
        self._tracer = self._provider.get_tracer("seawall.registry")

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        # Nothing is traced outside of a request: upkeep would fill the collector with transactions.
        if not self._trace.get_current_span().get_span_context().is_valid:
            yield
            return
        with self._tracer.start_as_current_span(name):
            yield

    def request(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> RequestSpan:
        given = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        return _OpenRequest(self, self._propagator.extract(given) if given else None, name, attributes)

    def close(self) -> None:
        self._provider.shutdown()


class _OpenRequest:
    def __init__(self, tracing: OpenTelemetry, parent: Any, name: str, attributes: Mapping[str, str]) -> None:
        self._tracing = tracing
        self._name = name
        self._span = tracing._tracer.start_span(  # noqa: SLF001  # the same thing in two pieces
            name, context=parent, kind=tracing._trace.SpanKind.SERVER, attributes=dict(attributes))  # noqa: SLF001
        found = self._span.get_span_context()
        self.trace = f"{found.trace_id:032x}" if found.is_valid else ""

    def __enter__(self) -> Self:
        tracing = self._tracing
        self._token = tracing._context.attach(tracing._trace.set_span_in_context(self._span))  # noqa: SLF001
        return self

    def answered(self, endpoint: str, status: int) -> None:
        self._span.update_name(f"{self._name} {endpoint}")
        self._span.set_attribute("http.route", endpoint)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:  # the server's own faults (OpenTelemetry's conventions for HTTP)
            self._span.set_status(self._tracing._trace.StatusCode.ERROR)  # noqa: SLF001

    def __exit__(self, *error: object) -> None:
        self._tracing._context.detach(self._token)  # noqa: SLF001
        self._span.end()
