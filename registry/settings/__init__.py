"""What the registry is told before it starts: from a TOML file, then the environment, then flags, the later winning.

A key `idle_timeout` of section `limits` is `SEAWALL_REGISTRY_LIMITS_IDLE_TIMEOUT` in the environment. Read once, by the
composition root; every other room gets the values it needs through its constructor.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.settings.fields import InvalidSettings, at_least, doc
from registry.settings.loading import PREFIX, build, from_environment, from_file, merge
from registry.settings.sections import (
    AuthSettings,
    EventSettings,
    GcSettings,
    IssuerSettings,
    LimitSettings,
    LogSettings,
    ManifestSettings,
    MetricsSettings,
    OidcSettings,
    PostgresSettings,
    ProxySettings,
    RateSettings,
    S3Settings,
    ScrubSettings,
    TlsSettings,
    TracingSettings,
    UploadSettings,
    UpstreamSettings,
    WebhookSettings,
)

__all__ = [
    "PREFIX",
    "AuthSettings",
    "EventSettings",
    "GcSettings",
    "InvalidSettings",
    "IssuerSettings",
    "LimitSettings",
    "LogSettings",
    "ManifestSettings",
    "MetricsSettings",
    "OidcSettings",
    "PostgresSettings",
    "ProxySettings",
    "RateSettings",
    "S3Settings",
    "ScrubSettings",
    "Settings",
    "TlsSettings",
    "TracingSettings",
    "UploadSettings",
    "UpstreamSettings",
    "WebhookSettings",
]

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](?::[0-9]{1,5})?")
MAX_PORT = 65535
DATA = Path("registry-data")


@dataclass(frozen=True, slots=True)
class Settings:
    """One registry."""

    data: Path = field(default=DATA, metadata={
        "doc": "folder of blobs and, unless `database` says otherwise, of the database"})
    listen: str = doc("127.0.0.1:5000", "HOST:PORT; port 0 takes a free one")
    database: str = field(default="", repr=False, metadata={
        "doc": "`sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://…`; empty: `registry.db` in the data folder"})
    workers: int = doc(0, "processes that share the port; 0: one for each core")
    insecure_no_auth: bool = doc(
        False, "allow to listen beyond the loopback interface while everybody may do everything")
    insecure_no_tls: bool = doc(
        False, "allow to listen beyond the loopback interface without TLS, for instance behind a proxy that has it")
    cors_origins: str = doc(
        "", "origins whose pages may read answers, as in `https://ui.example.com`, separated by commas")
    trusted_proxies: str = doc(
        "", "addresses or networks, separated by commas, whose `X-Forwarded-For`, `-Proto` and `-Host` are believed")
    tls: TlsSettings = field(default_factory=TlsSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    uploads: UploadSettings = field(default_factory=UploadSettings)
    manifests: ManifestSettings = field(default_factory=ManifestSettings)
    gc: GcSettings = field(default_factory=GcSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    issuers: tuple[IssuerSettings, ...] = doc((), "further issuers of tokens, each an `[[issuers]]` table")
    oidc: OidcSettings = field(default_factory=OidcSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    log: LogSettings = field(default_factory=LogSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    upstreams: tuple[UpstreamSettings, ...] = doc((), "the registries to pull through, each a `[[upstreams]]` table")
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    events: EventSettings = field(default_factory=EventSettings)
    webhooks: tuple[WebhookSettings, ...] = doc((), "endpoints that are told of events, each a `[[webhooks]]` table")

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str], **flags: Any) -> "Settings":
        """The settings, checked. A flag that is None was not given. Raises InvalidSettings."""
        merged = merge(from_file(file) if file else {}, from_environment(cls, environment))
        merged = merge(merged, {name: value for name, value in flags.items() if value is not None})
        settings: Settings = build(cls, merged, "")
        settings.check()
        return settings

    def check(self) -> None:
        """Raises InvalidSettings."""
        _ = self.address, self.proxies, self.origins
        limits = self.limits
        at_least("workers", self.workers, 0)
        at_least("limits.blob_bytes", limits.blob_bytes, 0)
        at_least("limits.connections", limits.connections, 0)
        at_least("limits.page_size", limits.page_size, 1)
        at_least("limits.tags_per_push", limits.tags_per_push, 1)
        for name in ("idle_timeout", "receive_timeout", "send_timeout", "shutdown_timeout"):
            at_least(f"limits.{name}", getattr(limits, name), 0.1)
        at_least("rate.address", self.rate.address, 0)
        at_least("rate.principal", self.rate.principal, 0)
        at_least("rate.burst", self.rate.burst, 1)
        at_least("uploads.expire_after", self.uploads.expire_after, 60)
        at_least("uploads.chunk_min_bytes", self.uploads.chunk_min_bytes, 0)
        self.manifests.check()
        self.auth.check()
        if self.auth.mode == "none" and (self.issuers or self.oidc.issuer or self.tls.client_ca):
            raise InvalidSettings('issuers, oidc and tls.client_ca tell who somebody is; with auth.mode "none" nobody '
                                  "is asked")
        if self.tls.client_ca and not self.tls.certificate:
            raise InvalidSettings("tls.client_ca needs TLS: tls.certificate is missing")
        if self.tls.client_required and not self.tls.client_ca:
            raise InvalidSettings("tls.client_required needs tls.client_ca")
        at_least("oidc.session_lifetime", self.oidc.session_lifetime, 60)
        at_least("gc.interval", self.gc.interval, 0)
        at_least("scrub.interval", self.scrub.interval, 0)
        at_least("scrub.rate", self.scrub.rate, 0)
        at_least("gc.full_interval", self.gc.full_interval, 60)
        at_least("gc.retention_interval", self.gc.retention_interval, 1)
        at_least("gc.grace", self.gc.grace, MIN_GRACE)
        at_least("proxy.unused_after", self.proxy.unused_after, 3600)
        at_least("proxy.downloads", self.proxy.downloads, 1)
        for number, upstream in enumerate(self.upstreams):
            at_least(f"upstreams[{number}].tag_ttl", upstream.tag_ttl, 0)
            at_least(f"upstreams[{number}].missing_ttl", upstream.missing_ttl, 0)
        self.s3.check()
        at_least("postgres.connections", self.postgres.connections, 1)
        at_least("postgres.patience", self.postgres.patience, 0)
        at_least("postgres.statement_timeout", self.postgres.statement_timeout, 1)
        at_least("postgres.lock_timeout", self.postgres.lock_timeout, 1)
        if self.log.level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise InvalidSettings(f"log.level is no level: {self.log.level!r}")
        self._check_operation()
        if bool(self.tls.certificate) != bool(self.tls.key):
            raise InvalidSettings("tls.certificate and tls.key go together: one of them is missing")

    def _check_operation(self) -> None:
        _ = self.metrics_networks
        if self.log.format not in ("text", "json"):
            raise InvalidSettings(f"log.format is neither text nor json: {self.log.format!r}")
        if self.tls.minimum not in ("1.2", "1.3"):
            raise InvalidSettings(f"tls.minimum is neither 1.2 nor 1.3: {self.tls.minimum!r}")
        at_least("tls.reload_every", self.tls.reload_every, 0)
        at_least("limits.drain_time", self.limits.drain_time, 0)
        for name in ("delay", "timeout"):
            at_least(f"tracing.{name}", getattr(self.tracing, name), 0.01)
        for name, least in (("retention", 0), ("refusals_per_second", 0), ("webhook_timeout", 0.1),
                            ("give_up_after", 1)):
            at_least(f"events.{name}", getattr(self.events, name), least)
        if self.events.url and not self.events.url.startswith(("http://", "https://")):
            raise InvalidSettings(f"events.url is no http URL: {self.events.url!r}")
        names = [hook.name for hook in self.webhooks]
        if len(set(names)) != len(names):
            raise InvalidSettings("two webhooks have one name")
        if not 0 <= self.tracing.ratio <= 1:
            raise InvalidSettings(f"tracing.ratio is not between 0 and 1: {self.tracing.ratio:g}")
        if self.tracing.endpoint and not self.tracing.endpoint.startswith(("http://", "https://")):
            raise InvalidSettings(f"tracing.endpoint is no http URL: {self.tracing.endpoint!r}")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`. Raises InvalidSettings."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
            raise InvalidSettings(f"listen is not HOST:PORT: {self.listen!r}")
        return host.removeprefix("[").removesuffix("]"), int(port)

    @property
    def origins(self) -> tuple[str, ...]:
        """Of `cors_origins`. Raises InvalidSettings."""
        found = tuple(item.strip() for item in self.cors_origins.split(",") if item.strip())
        for item in found:
            if not _ORIGIN.fullmatch(item):
                raise InvalidSettings(f"cors_origins has {item!r}, which is no origin (want scheme://host[:port])")
        return found

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Raises InvalidSettings."""
        return _networks("trusted_proxies", self.trusted_proxies)

    @property
    def metrics_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Raises InvalidSettings."""
        return _networks("metrics.allow", self.metrics.allow)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite+aiosqlite:///{self.data.absolute()}/registry.db"


MIN_GRACE = 3600.0
"""Seconds. Above `ContentSettings.touch_every`, with room for a push that takes its time."""


def _networks(name: str, text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(item.strip()) for item in text.split(",") if item.strip())
    except ValueError as error:
        raise InvalidSettings(f"{name}: {error}") from error
