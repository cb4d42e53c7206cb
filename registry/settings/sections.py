"""The sections of the settings, each one frozen value with the checks that concern it alone."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ocispec.descriptor import Platform
from ocispec.errors import InvalidArgument
from registry.settings.fields import InvalidSettings, at_least, doc, secret
from storage.blobs.s3.options import CHECKSUMS, ENCRYPTIONS, SMALLEST_PART, Checksum, Encryption, S3Options
from storage.metadata.options import PostgresOptions


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate: str = doc("", "PEM file of the certificate and its chain; empty: plain HTTP")
    key: str = doc("", "PEM file of the certificate's private key")
    minimum: str = doc("1.2", "lowest version of TLS: `1.2` or `1.3`")
    reload_every: float = doc(10.0, "seconds between two looks at whether the files changed; 0: only on SIGHUP")
    client_ca: str = doc("", "PEM file of the authorities whose client certificates are believed; empty: none is"
                              " asked for")
    client_required: bool = doc(False, "refuse connections without a client certificate")
    client_name: str = doc("cn", "what of the certificate names the client: `cn`, `dns`, `uri` or `email`")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Sizes in bytes, times in seconds."""

    blob_bytes: int = doc(0, "largest blob in bytes; 0: as much as the disk takes")
    idle_timeout: float = doc(75.0, "seconds a connection may sit without a complete request head")
    receive_timeout: float = doc(60.0, "seconds a client may pause inside a request body")
    send_timeout: float = doc(60.0, "seconds a client may refuse to take any byte of an answer")
    drain_time: float = doc(0.0, "seconds after SIGTERM in which `/readyz` fails and everything is still answered")
    shutdown_timeout: float = doc(10.0, "seconds that running requests get to finish at the end")
    connections: int = doc(0, "most connections of one worker; 0: as many as it may have open files, less 512")
    page_size: int = doc(10_000, "most entries in one page of a listing; more come with a `Link`")
    tags_per_push: int = doc(100, "most tags that one manifest push may set")


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Requests a second, each worker process counting its own."""

    address: float = doc(0.0, "requests a second from one client address (IPv6: one /64 network); 0: no limit")
    principal: float = doc(0.0, "requests a second of one user or robot, from everywhere; 0: no limit")
    burst: int = doc(200, "requests that may come at once when few came before")


@dataclass(frozen=True, slots=True)
class UploadSettings:
    expire_after: float = doc(7 * 86400.0, "seconds after which an upload that nothing is added to is dropped")
    mount_from_any: bool = doc(True, "mount a blob without a named source from any repository the client may pull")
    chunk_min_bytes: int = doc(1024 * 1024, "smallest chunk that clients are advised to send; 0: no advice")


@dataclass(frozen=True, slots=True)
class ManifestSettings:
    require_layers: bool = doc(True, "an image is taken only when its layers are there")
    require_platforms: str = doc(
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
    interval: float = doc(60.0, "seconds between two turns of the garbage collection, each of which looks at what "
                           "changed; 0: never")
    full_interval: float = doc(86400.0, "seconds between two passes over everything, as a safety net")
    retention_interval: float = doc(3600.0, "seconds between two applications of the retention rules")
    grace: float = doc(86400.0, "seconds for which everything that was pushed, asked for or lost its tag stays")
    keep_untagged: bool = doc(True, "keep manifests that no tag names until they are deleted by digest")


_PLAIN = re.compile(r"[A-Za-z0-9._:/@-]{1,200}")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(?:/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Times in seconds."""

    mode: str = doc("none", "who is asked for: `none` (everybody may do everything), `accounts` (users of the"
                             " database), `htpasswd` (users of a file)")
    htpasswd: str = doc("", "file of `name:hash` lines, bcrypt or argon2; read again when it changes")
    admins: str = doc("", "names in the htpasswd file, separated by commas, that may administer")
    token_server: bool = doc(True, "issue bearer tokens at `/token`; off: name and password with every request")
    realm: str = doc("", "URL of the token server as clients reach it; empty: `/token` where they reached us")
    service: str = doc("seawall", "what tokens are for; the same in all replicas of one registry")
    issuer: str = doc("seawall", "whose tokens are taken; the same in all replicas of one registry")
    token_lifetime: float = doc(300.0, "seconds a bearer token is good for")
    refresh_lifetime: float = doc(90 * 86400.0, "seconds after which `docker login` has to be repeated")

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
        at_least("auth.token_lifetime", self.token_lifetime, 60)
        at_least("auth.refresh_lifetime", self.refresh_lifetime, 60)
        if self.token_lifetime > MAX_TOKEN_LIFETIME:
            raise InvalidSettings(f"auth.token_lifetime is more than {MAX_TOKEN_LIFETIME}")


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """Somebody else whose signed tokens are believed (`auth.issuers` explains)."""

    name: str = doc("", "what policies call it: `group:NAME:GROUP`, `external:NAME:WHO`")
    issuer: str = doc("", "what the tokens' `iss` is")
    audience: str = doc("", "what must be in the tokens' `aud`")
    keys: str = doc("", "URL or file of its JSON Web Key Set")
    algorithms: tuple[str, ...] = doc(("RS256", "ES256", "EdDSA", "Ed25519"), "what it may sign with")
    name_claim: str = doc("sub", "the claim that names who it is")
    groups_claim: str = doc("groups", "the claim that lists groups")
    grants: bool = doc(False, "whether a token's `access` claim decides what it may, instead of our policies")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Login of people in browsers through an OpenID Connect provider."""

    name: str = doc("sso", "what policies call it: `group:NAME:GROUP`, `external:NAME:WHO`")
    issuer: str = doc("", "the provider's URL; empty: no such login")
    client_id: str = doc("", "what the provider calls this registry")
    client_secret: str = field(default="", repr=False, metadata={"doc": "the secret that goes with it"})
    scopes: tuple[str, ...] = doc(("openid", "profile", "email"), "what to ask the provider for")
    name_claim: str = doc("preferred_username", "the claim that names a person")
    groups_claim: str = doc("groups", "the claim that lists groups")
    admin_group: str = doc("", "whoever the provider says is in it may administer; empty: nobody")
    session_lifetime: float = doc(12 * 3600.0, "seconds after which a browser has to log in again")


MAX_TOKEN_LIFETIME = 86400
"""Seconds: a token cannot be called back but with its account."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Sizes in bytes, times in seconds."""

    bucket: str = doc("", "keep blobs in this bucket; empty: in the data folder")
    prefix: str = doc("", "what the names of all objects begin with")
    endpoint: str = doc("", "URL of the service; empty: that of AWS for the region")
    region: str = doc("", "empty: from the environment or the shared configuration of AWS")
    path_style: bool = doc(False, "the bucket in the path, not in the host's name: most services that are not AWS")
    access_key: str = doc("", "empty: credentials from the environment, shared files or the machine's role")
    secret_key: str = secret("the access key's secret")
    session_token: str = secret("of temporary credentials")
    authorities: str = doc("", "PEM file of the authorities that the endpoint's certificate is checked against")
    redirect: bool = doc(False, "send clients to the bucket for blobs (307 to a presigned URL), do not pass bytes on")
    redirect_endpoint: str = doc("", "URL of the service as clients know it; empty: as `s3.endpoint`")
    redirect_expires: float = doc(1200.0, "seconds for which such a URL is good")
    part_size: int = doc(8 * 1024 * 1024, "bytes of a part of a multipart upload; S3 wants 5 MiB at least")
    checksum: str = doc("md5", "what the service checks what it receives against: `md5`, `crc32` or `none`")
    encryption: str = doc("", "`AES256` (SSE-S3), `aws:kms` (SSE-KMS); empty: as the bucket is set up")
    encryption_key: str = doc("", "id of the key for `aws:kms`; empty: the account's own")
    spool: str = doc("", "folder in which each upload gathers its next part; empty: the system's for temporary files")
    threads: int = doc(24, "requests to the service that run at once in a process, for writing and for reading each")
    connect_timeout: float = doc(5.0, "seconds to connect to the service")
    read_timeout: float = doc(60.0, "seconds the service may send nothing")
    attempts: int = doc(5, "times a request is tried, with growing pauses")

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
        at_least("s3.part_size", self.part_size, SMALLEST_PART)
        at_least("s3.threads", self.threads, 1)
        at_least("s3.attempts", self.attempts, 1)
        at_least("s3.connect_timeout", self.connect_timeout, 0.1)
        at_least("s3.read_timeout", self.read_timeout, 0.1)

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
    interval: float = doc(0.0, "seconds between two comparisons of all stored bytes with their digests; 0: never")
    rate: int = doc(20_000_000, "most bytes to read a second for it; 0: as fast as it goes")
    quarantine: bool = doc(False, "serve what is found damaged no more until it is pushed again")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """When `database` is a Postgres (docs/postgres.md). Times in seconds."""

    connections: int = doc(10, "connections of each worker, besides one that hears of other replicas' changes")
    patience: float = doc(30.0, "seconds for which a database that does not answer at the start is asked again")
    statement_timeout: float = doc(30.0, "seconds after which the database gives a statement up; 503 then")
    lock_timeout: float = doc(15.0, "seconds after which it gives up to wait for another's change; 503 then")

    def options(self) -> PostgresOptions:
        """For the database."""
        return PostgresOptions(connections=self.connections, statement_timeout=self.statement_timeout,
                               lock_timeout=self.lock_timeout)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = doc("INFO", "DEBUG, INFO, WARNING or ERROR")
    format: str = doc("text", "`text` or `json`: one object for each line of the log")
    access: bool = doc(False, "one JSON object for each request, on standard output")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One registry whose content is pulled through this one."""

    name: str = doc("", "first component of its repositories' names here, as in `docker.io/library/alpine`")
    url: str = doc("", "where it is; empty: `https://` and the name. `http://` only if you mean it")
    mirrors: tuple[str, ...] = doc((), "URLs of the same content, asked in this order when the one before fails")
    namespaces: tuple[str, ...] = doc((), "further values of clients' `ns` parameter that mean this upstream")
    prefix: str = doc("", "what its own repository names begin with, left out of the names here")
    repositories: tuple[str, ...] = doc((), "which repositories (without `prefix`); `*` within a component, `**`"
                                             " across; none: all")
    platforms: tuple[str, ...] = doc((), "which images of an index may be fetched, as `linux/amd64`; none: all")
    username: str = doc("", "who we are there")
    password: str = field(default="", repr=False, metadata={"doc": "the password or access token that goes with it"})
    password_file: str = doc("", "file whose first line is the password")
    realms: tuple[str, ...] = doc((), "hosts of its token service that may see the password, if not its own")
    ca: str = doc("", "PEM file of the certificates it is verified against, if not the system's")
    allow_private: bool = doc(False, "whether it, and what it redirects to, may be at private or loopback addresses")
    tag_ttl: float = doc(60.0, "seconds for which a tag is believed before the upstream is asked whether it moved")
    missing_ttl: float = doc(10.0, "seconds for which it is believed that something does not exist")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Pull-through, whatever the upstream."""

    own_names: tuple[str, ...] = doc((), "values of the `ns` parameter that mean this registry itself")
    unused_after: float = doc(30 * 86400.0, "seconds after which a cached tag that nobody pulls is dropped")
    downloads: int = doc(32, "most blobs that one process fetches at the same time from one upstream")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    allow: str = doc("127.0.0.0/8,::1", "addresses or networks, separated by commas, that may read `/metrics`")
    token: str = field(default="", repr=False, metadata={
        "doc": "bearer token that may read `/metrics` from anywhere; empty: none"})


@dataclass(frozen=True, slots=True)
class EventSettings:
    """The log of events: audit and webhooks."""

    retention: float = doc(90 * 86400.0, "seconds for which events are kept; 0: for ever")
    pulls: bool = doc(False, "record pulls too: how many of what, gathered for some seconds, without who")
    refusals_per_second: float = doc(10.0, "most refused requests that are recorded each second; more are counted")
    url: str = doc("", "scheme and host under which clients reach the registry, for links in webhooks")
    webhook_timeout: float = doc(10.0, "seconds an endpoint has to answer")
    give_up_after: float = doc(3 * 86400.0, "seconds after which an event that cannot be delivered is given up")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One endpoint that is told of events."""

    name: str = doc("", "what it is called in metrics, logs and commands; unique")
    url: str = doc("", "where events are sent")
    secret: str = field(default="", repr=False, metadata={
        "doc": "key that signs what is sent, 16 characters at least; empty: unsigned"})
    token: str = field(default="", repr=False, metadata={"doc": "sent as `Authorization: Bearer …`; empty: none"})
    format: str = doc("cloudevents", "`cloudevents`, `cloudevents-binary` or `distribution`")
    actions: tuple[str, ...] = doc((), "patterns of actions, as `manifest.*`; none: all")
    repositories: tuple[str, ...] = doc((), "patterns of repositories, as `team/*`; none: all, and what concerns none")
    allow_private: bool = doc(False, "whether it may be at a private or loopback address")
    ca: str = doc("", "PEM file of the certificates it is verified against, if not the system's")


@dataclass(frozen=True, slots=True)
class TracingSettings:
    endpoint: str = doc("", "URL of an OTLP/HTTP collector, e.g. `http://127.0.0.1:4318/v1/traces`; empty: no traces")
    service: str = doc("seawall-registry", "the name under which traces are found")
    ratio: float = doc(1.0, "share of requests that are traced, unless the caller's `traceparent` decides it")
    delay: float = doc(2.0, "seconds for which spans are gathered before they are sent")
    timeout: float = doc(5.0, "seconds the collector gets to take them")
