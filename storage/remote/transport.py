"""One request to a registry, done properly: scheme, authorization, redirects, retries, bounded bodies.

Rules kept here and nowhere else:
- plain HTTP goes to loopback and to registries configured as insecure, never elsewhere, redirects included;
- an Authorization header goes to the registry's own origin (and the password to a tied realm), to no redirect's target;
- what may be repeated (`GET`, `HEAD`) is repeated after 429, 5xx and broken connections, as Retry-After says or with
  growing pauses; a body is sent again only by who can produce it again (`upload`).
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp
from yarl import URL

from storage.remote import errors
from storage.remote.addresses import AddressRefused, MakeSocket, guarded_sockets, plain_sockets
from storage.remote.auth import Challenge, Credentials, Realm, TokenCache, is_loopback, parse_challenges, tied

DOCKER_HUB = "docker.io"
_HUB_ENDPOINT = "registry-1.docker.io"
_MAX_REDIRECTS = 5
_MAX_ERROR_BODY = 64 * 1024
_MAX_TOKEN_BODY = 1024 * 1024
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_THROTTLED = 429
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Seconds and counts of the patience with another registry."""

    connect_timeout: float = 15.0
    stall_timeout: float = 30.0
    """Longest wait for the next bytes of an answer."""
    attempts: int = 5
    first_pause: float = 0.25
    longest_pause: float = 20.0
    """Also the most of a Retry-After that is obeyed."""
    wait_when_throttled: bool = True
    """Whether a 429 is waited out here, or is the caller's to deal with (RemoteThrottled)."""
    read_buffer: int = 1024 * 1024
    """Bytes of an answer that wait in memory, twice as many at most."""
    user_agent: str = "seawall"
    sockets: MakeSocket = socket.socket
    """Makes them in the network that registries are asked from."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a transport may go, for a registry that an administrator described rather than a user named.

    `base` is its address (what `v2/` is appended to); plain HTTP is spoken when that says http, and to its host alone.
    `realms` are hosts, beside its own, that may see the credentials; nothing is derived from names here. `tls` is what
    certificates are verified against.
    """

    base: URL
    allow_private: bool = False
    realms: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """`scope` is what a token must allow, as `repository:<path>:pull` (several separated by spaces)."""

    method: str
    url: URL
    scope: str = ""
    headers: Mapping[str, str] | None = None
    ok: frozenset[int] = frozenset({200})


class Transport:
    """HTTP to one registry. An async context manager; one connection pool, one token cache."""

    def __init__(self, host: str, *, insecure: bool, credentials: Credentials | None, settings: RemoteSettings,
                 reach: Reach | None = None) -> None:
        self.host = host
        self._insecure = insecure
        self._reach = reach
        self._tls: ssl.SSLContext | bool = reach.tls if reach and reach.tls else not insecure
        self._credentials = credentials or Credentials()
        self._settings = settings
        self._tokens = TokenCache()
        self._challenges: list[Challenge] = []
        self._base: URL | None = reach.base if reach else None
        self._finding = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        # Whether it ever answered: one that is not there from the start is a typing mistake more often than a restart.
        self._met = False

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout,
                                        sock_read=self._settings.stall_timeout)
        make = self._settings.sockets
        guard = guarded_sockets(make, allow_private=self._reach.allow_private) if self._reach else plain_sockets(make)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=guard), timeout=timeout, auto_decompress=False,
            read_bufsize=self._settings.read_buffer, cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"},
            # trust_env stays off: it would also send what ~/.netrc holds.
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    # -- where

    @property
    def address(self) -> str:
        return str(self._reach.base) if self._reach is not None else self.host

    async def url(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        """An absolute URL of this registry. The first call finds out the scheme."""
        base = await self._endpoint()
        url = base.joinpath(*path.strip("/").split("/"))
        if path.endswith("/"):
            url = url / ""
        return url.with_query(query) if query else url

    async def _endpoint(self) -> URL:
        async with self._finding:
            if self._base is None:
                self._base = await self._find_endpoint()
            return self._base

    async def _find_endpoint(self) -> URL:
        name = _HUB_ENDPOINT if self.host == DOCKER_HUB else self.host
        try:
            secure, plain = URL(f"https://{name}"), URL(f"http://{name}")
        except ValueError as error:
            raise errors.RemoteInvalid(f"{name[:200]!r} is no registry host") from error
        if is_loopback(secure.host or ""):
            return secure if await self._wants_tls(plain) else plain
        if not self._insecure:
            return secure
        try:
            async with self._client.get(secure / "v2" / "", ssl=False, allow_redirects=False):
                return secure
        except (aiohttp.ClientError, TimeoutError, OSError):
            return plain

    async def _wants_tls(self, plain: URL) -> bool:
        """Whether this machine's registry answers plain HTTP as a TLS server does: with a 400, or not in HTTP. Its
        certificate is not verified then, as with Docker: nobody is in between."""
        try:
            async with self._client.get(plain / "v2" / "", allow_redirects=False) as response:
                wants = response.status == 400
        except aiohttp.ClientConnectorError:
            return False
        except (aiohttp.ClientResponseError, aiohttp.ServerDisconnectedError):
            wants = True
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        self._tls = not wants
        return wants

    @property
    def _client(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the transport inside its context"
        return self._session

    def _may_go(self, url: URL) -> bool:
        """https anywhere; http to loopback, and to the registry's own host when that is insecure."""
        if url.scheme == "https":
            return True
        host = url.host or ""
        if self._reach is not None:
            return url.scheme == self._reach.base.scheme == "http" and self._own(host)
        own = self._base is not None and host == self._base.host
        return url.scheme == "http" and ((own and (self._insecure or is_loopback(host))) or
                                         (is_loopback(host) and self._is_local()))

    def _own(self, host: str) -> bool:
        """Whether the registry's credentials may be shown there (a token service; not a redirect)."""
        if self._reach is not None:
            return host == self._reach.base.host or host in self._reach.realms
        return self._base is not None and tied(host, self._base.host or "")

    def _is_local(self) -> bool:
        return self._base is not None and is_loopback(self._base.host or "")

    # -- requests

    @contextlib.asynccontextmanager
    async def open(self, request: Request, body: AsyncIterator[bytes] | bytes | None = None, *,
                   retry: bool | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, its body unread, with one of the statuses `request.ok`.

        `retry` defaults to whether the method is GET or HEAD. Raises RemoteNotFound, RemoteUnauthorized, RemoteDenied,
        RemoteRefused, RemoteUnavailable, RemoteInvalid. A body that breaks off while the caller reads it raises
        aiohttp's own errors; `reading` translates them.
        """
        repeat = retry if retry is not None else request.method in ("GET", "HEAD")
        response = await self._answer(request, body, self._settings.attempts if repeat else 1)
        try:
            if response.status not in request.ok:
                raise await _failure(request, response)
            yield response
        finally:
            response.release()

    async def _answer(self, request: Request, body: AsyncIterator[bytes] | bytes | None,
                      attempts: int) -> aiohttp.ClientResponse:
        for attempt in range(1, attempts + 1):
            try:
                response = await self._authorized(request, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == attempts or (not self._met and isinstance(error, aiohttp.ClientConnectorError)):
                    raise unreachable(request, error) from error
                await self.pause(attempt)
                continue
            self._met = True
            final = attempt == attempts or (response.status == _THROTTLED and not self._settings.wait_when_throttled)
            if response.status not in _RETRIED or response.status in request.ok or final:
                return response
            wait = _retry_after(response.headers.get("Retry-After", ""))
            response.close()
            await self.pause(attempt, wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def pause(self, attempt: int, wanted: float | None = None) -> None:
        settings = self._settings
        pause = settings.first_pause * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        await asyncio.sleep(min(settings.longest_pause, pause if wanted is None else max(wanted, settings.first_pause)))

    async def _authorized(self, request: Request, body: AsyncIterator[bytes] | bytes | None) -> aiohttp.ClientResponse:
        """Once with what we know, once more with what the challenge asks for. A body that is a stream was used up by
        the first try: then the 401 is the answer."""
        sent = await self._authorization(request.scope)
        response = await self._redirected(request, body, sent)
        if response.status != 401:
            return response
        challenges = parse_challenges(",".join(response.headers.getall("WWW-Authenticate", [])))
        self._tokens.drop(request.scope)
        self._challenges = challenges or self._challenges
        if not challenges or (body is not None and not isinstance(body, bytes)):
            return response
        authorization = await self._authorization(request.scope)
        # Nothing to offer, or what was just refused: by what this request sent, for others learn the challenges too.
        if authorization is None or (authorization == sent and authorization.startswith("Basic ")):
            return response
        response.close()
        return await self._redirected(request, body, authorization)

    async def _redirected(self, request: Request, body: AsyncIterator[bytes] | bytes | None,
                          authorization: str | None) -> aiohttp.ClientResponse:
        url, method = request.url, request.method
        for _ in range(_MAX_REDIRECTS + 1):
            if not self._may_go(url):
                raise errors.RemoteInvalid(f"{self.host} leads to {url.origin()}, which is not https")
            headers = dict(request.headers or {})
            if authorization is not None and self._base is not None and url.origin() == self._base.origin():
                headers["Authorization"] = authorization
            response = await self._client.request(method, url, headers=headers, data=body, allow_redirects=False,
                                                  ssl=self._tls)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
                return response
            response.close()
            url = resolve(url, location)
        raise errors.RemoteInvalid(f"{self.host} redirects more than {_MAX_REDIRECTS} times")

    # -- authorization

    async def _authorization(self, scope: str) -> str | None:
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        schemes = {challenge.scheme: challenge for challenge in reversed(self._challenges)}
        if "bearer" in schemes:
            token = self._tokens.get(scope) or await self._fetch_token(Realm.parse(schemes["bearer"]), scope)
            return f"Bearer {token}"
        if "basic" in schemes and self._credentials.username:
            return self._credentials.basic()
        return None

    async def _fetch_token(self, realm: Realm, scope: str) -> str:
        try:
            status, raw = await self._ask_for_token(realm, scope)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.RemoteUnavailable(f"the token service {realm.url.origin()} of {self.host} does not answer: "
                                           f"{_reason(error)}") from error
        if status in (401, 403):
            raise errors.RemoteUnauthorized(_message(raw) or "unauthorized: incorrect username or password")
        if status != 200:
            raise errors.RemoteUnavailable(f"the token service {realm.url.origin()} answers {status}: {_message(raw)}")
        answer = _json_object(raw)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise errors.RemoteInvalid(f"the token service {realm.url.origin()} gives no token")
        self._tokens.put(scope, token, answer.get("expires_in"))
        return token

    async def _ask_for_token(self, realm: Realm, scope: str) -> tuple[int, bytes]:
        await self._endpoint()
        if not self._may_go(realm.url):
            raise errors.RemoteInvalid(f"{self.host} names the token service {realm.url.origin()}, which is not https")
        if not self._own(realm.url.host or "") and not self._credentials.empty:
            raise errors.RemoteInvalid(f"{self.host} asks to send its password to {realm.url.origin()}, which is "
                                       "not tied to it: refused")
        scopes = scope.split(" ") if scope else []
        if self._credentials.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": self._credentials.identity_token,
                    "service": realm.service, "client_id": "seawall", "scope": scope}
            asking = self._client.post(realm.url, data=form, allow_redirects=False, ssl=self._tls)
        else:
            query = [("service", realm.service)] if realm.service else []
            query += [("scope", one) for one in scopes]
            headers = {}
            if self._credentials.username:
                query.append(("account", self._credentials.username))
                headers["Authorization"] = self._credentials.basic()
            asking = self._client.get(realm.url.extend_query(query), headers=headers, allow_redirects=False,
                                      ssl=self._tls)
        async with asking as response:
            return response.status, await read_at_most(response, _MAX_TOKEN_BODY)


def resolve(base: URL, location: str) -> URL:
    """A Location header against the URL that gave it. Raises RemoteInvalid."""
    try:
        url = base.join(URL(location, encoded=True))
        if url.host and url.user is None:
            return url.with_fragment(None)
    except ValueError:
        pass
    raise errors.RemoteInvalid(f"{base.origin()} answers with a broken Location")


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises RemoteInvalid when it is longer than `limit` bytes, or in a content coding."""
    coding = response.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise errors.RemoteInvalid(f"{response.url.origin()} answers in content coding {coding[:50]!r}, unasked")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise errors.RemoteInvalid(f"the answer of {response.url.origin()} is longer than {limit} bytes")
    return bytes(body)


def unreachable(request: Request, error: Exception) -> errors.RemoteUnavailable:
    """A broken connection in the words that Docker's users know."""
    method = request.method.capitalize()
    return errors.RemoteUnavailable(f'{method} "{request.url.with_query(None)}": {_reason(error)}')


_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"})
"""OpenSSL's words for bytes that are no TLS at all."""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out while waiting for an answer"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused):
        return str(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ssl.SSLError):
        # Its errno is OpenSSL's, not the kernel's.
        if error.os_error.reason in _NO_TLS:
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {getattr(error.os_error, 'verify_message', '') or error.os_error.reason or error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        with contextlib.suppress(ValueError):
            return f"dial tcp {error.host}:{error.port}: connect: {os.strerror(error.os_error.errno).lower()}"
    return str(error) or type(error).__name__


async def _failure(request: Request, response: aiohttp.ClientResponse) -> Exception:
    try:
        raw = b"" if request.method == "HEAD" else await read_at_most(response, _MAX_ERROR_BODY)
    except (aiohttp.ClientError, TimeoutError, errors.RemoteInvalid):
        raw = b""
    status, code = response.status, _code(raw)
    message = _message(raw) or f"{response.url.host} answers {status} {response.reason or ''}".rstrip()
    if status == 404:
        return errors.RemoteNotFound(message, code)
    if status == 401:
        return errors.RemoteUnauthorized(message if _code(raw) else "unauthorized: authentication required")
    if status == 403:
        return errors.RemoteDenied(message)
    if status == _THROTTLED:
        return errors.RemoteThrottled(f"{response.url.host} answers {status}: {message}",
                                      _retry_after(response.headers.get("Retry-After", "")))
    if status in _RETRIED or status >= 500:
        return errors.RemoteUnavailable(f"{response.url.host} answers {status}: {message}")
    return errors.RemoteRefused(message)


def _first_error(raw: bytes) -> Mapping[str, Any]:
    found = _json_object(raw).get("errors")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}


def _code(raw: bytes) -> str:
    code = _first_error(raw).get("code")
    return code[:100] if isinstance(code, str) else ""


def _message(raw: bytes) -> str:
    """`manifest unknown: manifest unknown`: the code in words, then the message, as Docker shows them."""
    message = _first_error(raw).get("message")
    text = message[:500] if isinstance(message, str) else ""
    return ": ".join(filter(None, (_code(raw).replace("_", " ").lower(), text)))


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(value: str) -> float | None:
    """Seconds, or an HTTP date (RFC 9110 §10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value[:6])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
