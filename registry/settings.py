"""What the registry is told before it starts: from a TOML file, then the environment, then flags, the later winning.

A key `idle_timeout` of section `limits` is `SEAWALL_REGISTRY_LIMITS_IDLE_TIMEOUT` in the environment. Read once, by the
composition root; every other room gets the values it needs through its constructor.
"""

import dataclasses
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

from ocispec.descriptor import Platform
from ocispec.errors import InvalidArgument
from storage.blobs.s3.options import CHECKSUMS, ENCRYPTIONS, SMALLEST_PART, Checksum, Encryption, S3Options
from storage.metadata.options import PostgresOptions

PREFIX = "SEAWALL_REGISTRY_"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](?::[0-9]{1,5})?")
MAX_PORT = 65535
DATA = Path("registry-data")
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class InvalidSettings(InvalidArgument):
    """A file, variable or flag holds what cannot be right; the message names it."""


def _doc(default: Any, text: str) -> Any:
    return field(default=default, metadata={"doc": text})


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate: str = _doc("", "PEM file of the certificate and its chain; empty: plain HTTP")
    key: str = _doc("", "PEM file of the certificate's private key")
    minimum: str = _doc("1.2", "lowest version of TLS: `1.2` or `1.3`")
    reload_every: float = _doc(10.0, "seconds between two looks at whether the files changed; 0: only on SIGHUP")
    client_ca: str = _doc("", "PEM file of the authorities whose client certificates are believed; empty: none is"
                              " asked for")
    client_required: bool = _doc(False, "refuse connections without a client certificate")
    client_name: str = _doc("cn", "what of the certificate names the client: `cn`, `dns`, `uri` or `email`")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Sizes in bytes, times in seconds."""

    blob_bytes: int = _doc(0, "largest blob in bytes; 0: as much as the disk takes")
    idle_timeout: float = _doc(75.0, "seconds a connection may sit without a complete request head")
    receive_timeout: float = _doc(60.0, "seconds a client may pause inside a request body")
    send_timeout: float = _doc(60.0, "seconds a client may refuse to take any byte of an answer")
    drain_time: float = _doc(0.0, "seconds after SIGTERM in which `/readyz` fails and everything is still answered")
    shutdown_timeout: float = _doc(10.0, "seconds that running requests get to finish at the end")
    connections: int = _doc(0, "most connections of one worker; 0: as many as it may have open files, less 512")
    page_size: int = _doc(10_000, "most entries in one page of a listing; more come with a `Link`")
    tags_per_push: int = _doc(100, "most tags that one manifest push may set")


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Requests a second, each worker process counting its own."""

    address: float = _doc(0.0, "requests a second from one client address (IPv6: one /64 network); 0: no limit")
    principal: float = _doc(0.0, "requests a second of one user or robot, from everywhere; 0: no limit")
    burst: int = _doc(200, "requests that may come at once when few came before")


@dataclass(frozen=True, slots=True)
class UploadSettings:
    expire_after: float = _doc(7 * 86400.0, "seconds after which an upload that nothing is added to is dropped")
    mount_from_any: bool = _doc(True, "mount a blob without a named source from any repository the client may pull")
    chunk_min_bytes: int = _doc(1024 * 1024, "smallest chunk that clients are advised to send; 0: no advice")


@dataclass(frozen=True, slots=True)
class ManifestSettings:
    require_layers: bool = _doc(True, "an image is taken only when its layers are there")
    require_platforms: str = _doc(
        "all", "which manifests of an index must be there when it is pushed: `all`, `none`, or those of the platforms"
               " listed, as in `linux/amd64, linux/arm64`")

    def check(self) -> None:
        """Raises InvalidSettings."""
        self.required()

    def required(self) -> frozenset[Platform] | None:
        """The platforms; None: every manifest. Raises InvalidSettings."""
        if self.require_platforms in ("all", "none"):
            return None if self.require_platforms == "all" else frozenset()
        try:
            return frozenset(Platform.parse(item.strip()) for item in self.require_platforms.split(","))
        except InvalidArgument as error:
            raise InvalidSettings(f"manifests.require_platforms: {error.message}, all or none") from error


@dataclass(frozen=True, slots=True)
class GcSettings:
    interval: float = _doc(60.0, "seconds between two turns of the garbage collection, each of which looks at what "
                           "changed; 0: never")
    full_interval: float = _doc(86400.0, "seconds between two passes over everything, as a safety net")
    retention_interval: float = _doc(3600.0, "seconds between two applications of the retention rules")
    grace: float = _doc(86400.0, "seconds for which everything that was pushed, asked for or lost its tag stays")
    keep_untagged: bool = _doc(True, "keep manifests that no tag names until they are deleted by digest")


_PLAIN = re.compile(r"[A-Za-z0-9._:/@-]{1,200}")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(?:/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Times in seconds."""

    mode: str = _doc("none", "who is asked for: `none` (everybody may do everything), `accounts` (users of the"
                             " database), `htpasswd` (users of a file)")
    htpasswd: str = _doc("", "file of `name:hash` lines, bcrypt or argon2; read again when it changes")
    admins: str = _doc("", "names in the htpasswd file, separated by commas, that may administer")
    token_server: bool = _doc(True, "issue bearer tokens at `/token`; off: name and password with every request")
    realm: str = _doc("", "URL of the token server as clients reach it; empty: `/token` where they reached us")
    service: str = _doc("seawall", "what tokens are for; the same in all replicas of one registry")
    issuer: str = _doc("seawall", "whose tokens are taken; the same in all replicas of one registry")
    token_lifetime: float = _doc(300.0, "seconds a bearer token is good for")
    refresh_lifetime: float = _doc(90 * 86400.0, "seconds after which `docker login` has to be repeated")

    @property
    def admin_names(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.admins.split(",") if name.strip())

    def check(self) -> None:
        """Raises InvalidSettings."""
        if self.mode not in ("none", "accounts", "htpasswd"):
            raise InvalidSettings(f"auth.mode is none of none, accounts, htpasswd: {self.mode!r}")
        if (self.mode == "htpasswd") != bool(self.htpasswd):
            raise InvalidSettings('auth.htpasswd names the file when auth.mode is "htpasswd", and only then')
        if self.admins and self.mode != "htpasswd":
            raise InvalidSettings('auth.admins is for auth.mode "htpasswd"; elsewhere users have a flag')
        for name in ("service", "issuer"):
            if not _PLAIN.fullmatch(getattr(self, name)):
                raise InvalidSettings(f"auth.{name} has characters that it may not have: {getattr(self, name)!r}")
        if self.realm and not _URL.fullmatch(self.realm):
            raise InvalidSettings(f"auth.realm is no URL: {self.realm!r}")
        _at_least("auth.token_lifetime", self.token_lifetime, 60)
        _at_least("auth.refresh_lifetime", self.refresh_lifetime, 60)
        if self.token_lifetime > MAX_TOKEN_LIFETIME:
            raise InvalidSettings(f"auth.token_lifetime is more than {MAX_TOKEN_LIFETIME}")


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """Somebody else whose signed tokens are believed (`auth.issuers` explains)."""

    name: str = _doc("", "what policies call it: `group:NAME:GROUP`, `external:NAME:WHO`")
    issuer: str = _doc("", "what the tokens' `iss` is")
    audience: str = _doc("", "what must be in the tokens' `aud`")
    keys: str = _doc("", "URL or file of its JSON Web Key Set")
    algorithms: tuple[str, ...] = _doc(("RS256", "ES256", "EdDSA", "Ed25519"), "what it may sign with")
    name_claim: str = _doc("sub", "the claim that names who it is")
    groups_claim: str = _doc("groups", "the claim that lists groups")
    grants: bool = _doc(False, "whether a token's `access` claim decides what it may, instead of our policies")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Login of people in browsers through an OpenID Connect provider."""

    name: str = _doc("sso", "what policies call it: `group:NAME:GROUP`, `external:NAME:WHO`")
    issuer: str = _doc("", "the provider's URL; empty: no such login")
    client_id: str = _doc("", "what the provider calls this registry")
    client_secret: str = field(default="", repr=False, metadata={"doc": "the secret that goes with it"})
    scopes: tuple[str, ...] = _doc(("openid", "profile", "email"), "what to ask the provider for")
    name_claim: str = _doc("preferred_username", "the claim that names a person")
    groups_claim: str = _doc("groups", "the claim that lists groups")
    admin_group: str = _doc("", "whoever the provider says is in it may administer; empty: nobody")
    session_lifetime: float = _doc(12 * 3600.0, "seconds after which a browser has to log in again")


MAX_TOKEN_LIFETIME = 86400
"""Seconds: a token cannot be called back but with its account."""


def _secret(text: str) -> Any:
    return field(default="", repr=False, metadata={"doc": text})


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Sizes in bytes, times in seconds."""

    bucket: str = _doc("", "keep blobs in this bucket; empty: in the data folder")
    prefix: str = _doc("", "what the names of all objects begin with")
    endpoint: str = _doc("", "URL of the service; empty: that of AWS for the region")
    region: str = _doc("", "empty: from the environment or the shared configuration of AWS")
    path_style: bool = _doc(False, "the bucket in the path, not in the host's name: most services that are not AWS")
    access_key: str = _doc("", "empty: credentials from the environment, shared files or the machine's role")
    secret_key: str = _secret("the access key's secret")
    session_token: str = _secret("of temporary credentials")
    authorities: str = _doc("", "PEM file of the authorities that the endpoint's certificate is checked against")
    redirect: bool = _doc(False, "send clients to the bucket for blobs (307 to a presigned URL), do not pass bytes on")
    redirect_endpoint: str = _doc("", "URL of the service as clients know it; empty: as `s3.endpoint`")
    redirect_expires: float = _doc(1200.0, "seconds for which such a URL is good")
    part_size: int = _doc(8 * 1024 * 1024, "bytes of a part of a multipart upload; S3 wants 5 MiB at least")
    checksum: str = _doc("md5", "what the service checks what it receives against: `md5`, `crc32` or `none`")
    encryption: str = _doc("", "`AES256` (SSE-S3), `aws:kms` (SSE-KMS); empty: as the bucket is set up")
    encryption_key: str = _doc("", "id of the key for `aws:kms`; empty: the account's own")
    spool: str = _doc("", "folder in which each upload gathers its next part; empty: the system's for temporary files")
    threads: int = _doc(24, "requests to the service that run at once in a process, for writing and for reading each")
    connect_timeout: float = _doc(5.0, "seconds to connect to the service")
    read_timeout: float = _doc(60.0, "seconds the service may send nothing")
    attempts: int = _doc(5, "times a request is tried, with growing pauses")

    def check(self) -> None:
        """Raises InvalidSettings."""
        if self.checksum not in CHECKSUMS:
            raise InvalidSettings(f"s3.checksum is {self.checksum!r}, not one of {', '.join(CHECKSUMS)}")
        if self.encryption not in ENCRYPTIONS:
            raise InvalidSettings(f"s3.encryption is {self.encryption!r}, neither AES256 nor aws:kms")
        if self.encryption_key and self.encryption != "aws:kms":
            raise InvalidSettings("s3.encryption_key is for s3.encryption = aws:kms")
        if bool(self.access_key) != bool(self.secret_key):
            raise InvalidSettings("s3.access_key and s3.secret_key go together: one of them is missing")
        for name, url in (("endpoint", self.endpoint), ("redirect_endpoint", self.redirect_endpoint)):
            if url and not url.startswith(("http://", "https://")):
                raise InvalidSettings(f"s3.{name} is no http or https URL: {url!r}")
        if not 1 <= self.redirect_expires <= LONGEST_URL:
            raise InvalidSettings(f"s3.redirect_expires is {self.redirect_expires:g}, not within 1 and {LONGEST_URL}")
        _at_least("s3.part_size", self.part_size, SMALLEST_PART)
        _at_least("s3.threads", self.threads, 1)
        _at_least("s3.attempts", self.attempts, 1)
        _at_least("s3.connect_timeout", self.connect_timeout, 0.1)
        _at_least("s3.read_timeout", self.read_timeout, 0.1)

    def options(self) -> S3Options:
        """For the store."""
        return S3Options(
            self.bucket, self.prefix, self.endpoint or None, self.region or None, self.path_style,
            self.access_key or None, self.secret_key or None, self.session_token or None,
            Path(self.authorities) if self.authorities else None, self.part_size, cast("Checksum", self.checksum),
            cast("Encryption", self.encryption), self.encryption_key or None,
            Path(self.spool) if self.spool else None, self.threads, self.connect_timeout, self.read_timeout,
            self.attempts, self.redirect_endpoint or None)


LONGEST_URL = 7 * 86400
"""Seconds: what S3 allows for a presigned URL."""


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    interval: float = _doc(0.0, "seconds between two comparisons of all stored bytes with their digests; 0: never")
    rate: int = _doc(20_000_000, "most bytes to read a second for it; 0: as fast as it goes")
    quarantine: bool = _doc(False, "serve what is found damaged no more until it is pushed again")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """When `database` is a Postgres (docs/postgres.md). Times in seconds."""

    connections: int = _doc(10, "connections of each worker, besides one that hears of other replicas' changes")
    patience: float = _doc(30.0, "seconds for which a database that does not answer at the start is asked again")
    statement_timeout: float = _doc(30.0, "seconds after which the database gives a statement up; 503 then")
    lock_timeout: float = _doc(15.0, "seconds after which it gives up to wait for another's change; 503 then")

    def options(self) -> PostgresOptions:
        """For the database."""
        return PostgresOptions(connections=self.connections, statement_timeout=self.statement_timeout,
                               lock_timeout=self.lock_timeout)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _doc("INFO", "DEBUG, INFO, WARNING or ERROR")
    format: str = _doc("text", "`text` or `json`: one object for each line of the log")
    access: bool = _doc(False, "one JSON object for each request, on standard output")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One registry whose content is pulled through this one."""

    name: str = _doc("", "first component of its repositories' names here, as in `docker.io/library/alpine`")
    url: str = _doc("", "where it is; empty: `https://` and the name. `http://` only if you mean it")
    mirrors: tuple[str, ...] = _doc((), "URLs of the same content, asked in this order when the one before fails")
    namespaces: tuple[str, ...] = _doc((), "further values of clients' `ns` parameter that mean this upstream")
    prefix: str = _doc("", "what its own repository names begin with, left out of the names here")
    repositories: tuple[str, ...] = _doc((), "which repositories (without `prefix`); `*` within a component, `**`"
                                             " across; none: all")
    platforms: tuple[str, ...] = _doc((), "which images of an index may be fetched, as `linux/amd64`; none: all")
    username: str = _doc("", "who we are there")
    password: str = field(default="", repr=False, metadata={"doc": "the password or access token that goes with it"})
    password_file: str = _doc("", "file whose first line is the password")
    realms: tuple[str, ...] = _doc((), "hosts of its token service that may see the password, if not its own")
    ca: str = _doc("", "PEM file of the certificates it is verified against, if not the system's")
    allow_private: bool = _doc(False, "whether it, and what it redirects to, may be at private or loopback addresses")
    tag_ttl: float = _doc(60.0, "seconds for which a tag is believed before the upstream is asked whether it moved")
    missing_ttl: float = _doc(10.0, "seconds for which it is believed that something does not exist")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Pull-through, whatever the upstream."""

    own_names: tuple[str, ...] = _doc((), "values of the `ns` parameter that mean this registry itself")
    unused_after: float = _doc(30 * 86400.0, "seconds after which a cached tag that nobody pulls is dropped")
    downloads: int = _doc(32, "most blobs that one process fetches at the same time from one upstream")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    allow: str = _doc("127.0.0.0/8,::1", "addresses or networks, separated by commas, that may read `/metrics`")
    token: str = field(default="", repr=False, metadata={
        "doc": "bearer token that may read `/metrics` from anywhere; empty: none"})


@dataclass(frozen=True, slots=True)
class EventSettings:
    """The log of events: audit and webhooks."""

    retention: float = _doc(90 * 86400.0, "seconds for which events are kept; 0: for ever")
    pulls: bool = _doc(False, "record pulls too: how many of what, gathered for some seconds, without who")
    refusals_per_second: float = _doc(10.0, "most refused requests that are recorded each second; more are counted")
    url: str = _doc("", "scheme and host under which clients reach the registry, for links in webhooks")
    webhook_timeout: float = _doc(10.0, "seconds an endpoint has to answer")
    give_up_after: float = _doc(3 * 86400.0, "seconds after which an event that cannot be delivered is given up")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One endpoint that is told of events."""

    name: str = _doc("", "what it is called in metrics, logs and commands; unique")
    url: str = _doc("", "where events are sent")
    secret: str = field(default="", repr=False, metadata={
        "doc": "key that signs what is sent, 16 characters at least; empty: unsigned"})
    token: str = field(default="", repr=False, metadata={"doc": "sent as `Authorization: Bearer …`; empty: none"})
    format: str = _doc("cloudevents", "`cloudevents`, `cloudevents-binary` or `distribution`")
    actions: tuple[str, ...] = _doc((), "patterns of actions, as `manifest.*`; none: all")
    repositories: tuple[str, ...] = _doc((), "patterns of repositories, as `team/*`; none: all, and what concerns none")
    allow_private: bool = _doc(False, "whether it may be at a private or loopback address")
    ca: str = _doc("", "PEM file of the certificates it is verified against, if not the system's")


@dataclass(frozen=True, slots=True)
class TracingSettings:
    endpoint: str = _doc("", "URL of an OTLP/HTTP collector, e.g. `http://127.0.0.1:4318/v1/traces`; empty: no traces")
    service: str = _doc("seawall-registry", "the name under which traces are found")
    ratio: float = _doc(1.0, "share of requests that are traced, unless the caller's `traceparent` decides it")
    delay: float = _doc(2.0, "seconds for which spans are gathered before they are sent")
    timeout: float = _doc(5.0, "seconds the collector gets to take them")


@dataclass(frozen=True, slots=True)
class Settings:
    """One registry."""

    data: Path = field(default=DATA, metadata={
        "doc": "folder of blobs and, unless `database` says otherwise, of the database"})
    listen: str = _doc("127.0.0.1:5000", "HOST:PORT; port 0 takes a free one")
    database: str = field(default="", repr=False, metadata={
        "doc": "`sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://…`; empty: `registry.db` in the data folder"})
    workers: int = _doc(0, "processes that share the port; 0: one for each core")
    insecure_no_auth: bool = _doc(
        False, "allow to listen beyond the loopback interface while everybody may do everything")
    insecure_no_tls: bool = _doc(
        False, "allow to listen beyond the loopback interface without TLS, for instance behind a proxy that has it")
    cors_origins: str = _doc(
        "", "origins whose pages may read answers, as in `https://ui.example.com`, separated by commas")
    trusted_proxies: str = _doc(
        "", "addresses or networks, separated by commas, whose `X-Forwarded-For`, `-Proto` and `-Host` are believed")
    tls: TlsSettings = field(default_factory=TlsSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    uploads: UploadSettings = field(default_factory=UploadSettings)
    manifests: ManifestSettings = field(default_factory=ManifestSettings)
    gc: GcSettings = field(default_factory=GcSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    issuers: tuple[IssuerSettings, ...] = _doc((), "further issuers of tokens, each an `[[issuers]]` table")
    oidc: OidcSettings = field(default_factory=OidcSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    log: LogSettings = field(default_factory=LogSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    upstreams: tuple[UpstreamSettings, ...] = _doc((), "the registries to pull through, each a `[[upstreams]]` table")
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    events: EventSettings = field(default_factory=EventSettings)
    webhooks: tuple[WebhookSettings, ...] = _doc((), "endpoints that are told of events, each a `[[webhooks]]` table")

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str], **flags: Any) -> "Settings":
        """The settings, checked. A flag that is None was not given. Raises InvalidSettings."""
        merged = _merge(_from_file(file) if file else {}, _from_environment(cls, environment))
        merged = _merge(merged, {name: value for name, value in flags.items() if value is not None})
        settings: Settings = _build(cls, merged, "")
        settings.check()
        return settings

    def check(self) -> None:
        """Raises InvalidSettings."""
        _ = self.address, self.proxies, self.origins
        limits = self.limits
        _at_least("workers", self.workers, 0)
        _at_least("limits.blob_bytes", limits.blob_bytes, 0)
        _at_least("limits.connections", limits.connections, 0)
        _at_least("limits.page_size", limits.page_size, 1)
        _at_least("limits.tags_per_push", limits.tags_per_push, 1)
        for name in ("idle_timeout", "receive_timeout", "send_timeout", "shutdown_timeout"):
            _at_least(f"limits.{name}", getattr(limits, name), 0.1)
        _at_least("rate.address", self.rate.address, 0)
        _at_least("rate.principal", self.rate.principal, 0)
        _at_least("rate.burst", self.rate.burst, 1)
        _at_least("uploads.expire_after", self.uploads.expire_after, 60)
        _at_least("uploads.chunk_min_bytes", self.uploads.chunk_min_bytes, 0)
        self.manifests.check()
        self.auth.check()
        if self.auth.mode == "none" and (self.issuers or self.oidc.issuer or self.tls.client_ca):
            raise InvalidSettings('issuers, oidc and tls.client_ca tell who somebody is; with auth.mode "none" nobody '
                                  "is asked")
        if self.tls.client_ca and not self.tls.certificate:
            raise InvalidSettings("tls.client_ca needs TLS: tls.certificate is missing")
        if self.tls.client_required and not self.tls.client_ca:
            raise InvalidSettings("tls.client_required needs tls.client_ca")
        _at_least("oidc.session_lifetime", self.oidc.session_lifetime, 60)
        _at_least("gc.interval", self.gc.interval, 0)
        _at_least("scrub.interval", self.scrub.interval, 0)
        _at_least("scrub.rate", self.scrub.rate, 0)
        _at_least("gc.full_interval", self.gc.full_interval, 60)
        _at_least("gc.retention_interval", self.gc.retention_interval, 1)
        _at_least("gc.grace", self.gc.grace, MIN_GRACE)
        _at_least("proxy.unused_after", self.proxy.unused_after, 3600)
        _at_least("proxy.downloads", self.proxy.downloads, 1)
        for number, upstream in enumerate(self.upstreams):
            _at_least(f"upstreams[{number}].tag_ttl", upstream.tag_ttl, 0)
            _at_least(f"upstreams[{number}].missing_ttl", upstream.missing_ttl, 0)
        self.s3.check()
        _at_least("postgres.connections", self.postgres.connections, 1)
        _at_least("postgres.patience", self.postgres.patience, 0)
        _at_least("postgres.statement_timeout", self.postgres.statement_timeout, 1)
        _at_least("postgres.lock_timeout", self.postgres.lock_timeout, 1)
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
        _at_least("tls.reload_every", self.tls.reload_every, 0)
        _at_least("limits.drain_time", self.limits.drain_time, 0)
        for name in ("delay", "timeout"):
            _at_least(f"tracing.{name}", getattr(self.tracing, name), 0.01)
        for name, least in (("retention", 0), ("refusals_per_second", 0), ("webhook_timeout", 0.1),
                            ("give_up_after", 1)):
            _at_least(f"events.{name}", getattr(self.events, name), least)
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


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InvalidSettings(f"{name} is {value:g}, less than {least:g}")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} is not TOML: {error}") from error


def _from_environment(kind: type, environment: Mapping[str, str], prefix: str = PREFIX) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item, of in _fields(kind):
        name = prefix + item.name.upper()
        if isinstance(of, type) and dataclasses.is_dataclass(of):
            below = _from_environment(of, environment, f"{name}_")
            found |= {item.name: below} if below else {}
        elif name in environment:
            found[item.name] = environment[name]
    return found


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        below = merged.get(name)
        merged[name] = _merge(below if isinstance(below, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    fields = {item.name: of for item, of in _fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InvalidSettings(f"unknown setting: {where}{unknown[0]}")
    return kind(**{name: _value(fields[name], value, f"{where}{name}") for name, value in values.items()})


def _value(of: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(of):
        if not isinstance(value, dict):
            raise InvalidSettings(f"{name} is a section, not a value")
        return _build(of, value, f"{name}.")  # type: ignore[arg-type]  # a class: it comes from a type hint
    if get_origin(of) is tuple:
        return _several(get_args(of)[0], value, name)
    if of is bool:
        return _flag(value, name)
    if isinstance(value, bool | dict | list) or (of in (str, Path) and not isinstance(value, str | Path)):
        raise InvalidSettings(f"{name} is not a {of.__name__}: {value!r}")
    try:
        return of(value)
    except (ValueError, OverflowError) as error:
        raise InvalidSettings(f"{name} is not a {of.__name__}: {value!r}") from error


def _several(of: Any, value: Any, name: str) -> tuple[Any, ...]:
    """A list. From the environment it is text: values with commas between, sections as a TOML list of inline tables."""
    if isinstance(value, str) and dataclasses.is_dataclass(of):
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise InvalidSettings(f"{name} is not a TOML list of tables: {error}") from error
    elif isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple):
        raise InvalidSettings(f"{name} is not a list")  # not shown: it may hold a password
    return tuple(_value(of, item, f"{name}[{number}]") for number, item in enumerate(value))


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise InvalidSettings(f"{name} is neither true nor false: {value!r}")


def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(kind)
    return [(item, hints[item.name]) for item in dataclasses.fields(kind)]
