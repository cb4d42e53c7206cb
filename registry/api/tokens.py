"""`/token`: where clients get their bearer tokens (distribution's "Token Authentication", GET, and its OAuth2 form,
POST). Failures of the POST carry OAuth2's words (RFC 6749 section 5.2) beside the usual ones."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from ocispec.errors import InvalidArgument, SeawallError, Unauthenticated
from registry.api.answers import document, failure
from registry.api.bodies import Bodies
from registry.api.call import Call
from registry.auth.challenge import LoginRequired
from registry.auth.principal import Grant, Principal
from registry.auth.token_service import InvalidScope, Issued, Scope, TokenService
from registry.errors import NoSuchEndpoint

MAX_FORM = 64 * 1024
MAX_FIELDS = 200
NO_STORE = {"Cache-Control": "no-store"}
BASIC = {"WWW-Authenticate": 'Basic realm="seawall",charset="UTF-8"', **NO_STORE}


class TokenEndpoints:
    """`service` None: this registry has no token server."""

    def __init__(self, service: TokenService | None, bodies: Bodies) -> None:
        self._service = service
        self._bodies = bodies

    async def get(self, call: Call) -> web.StreamResponse:
        """Whoever shows nothing gets a token for nobody in particular, which is good where strangers may pull."""
        service = self._required()
        query = call.request.query
        try:
            service.check_service(query.get("service"))
            scopes = Scope.parse_all(query.getall("scope", []))
            principal = await call.access.identify(call.presented)
            issued = await service.issue(principal, scopes, offline=query.get("offline_token") == "true",
                                         client=query.get("client_id", ""))
        except Unauthenticated as error:
            return failure(error, BASIC)
        return document({"token": issued.token, **_described(issued)}, headers=NO_STORE)

    async def post(self, call: Call) -> web.StreamResponse:
        service = self._required()
        form = await self._form(call)
        try:
            service.check_service(form.get("service"))
            scopes = Scope.parse_all([form.get("scope", "")])
            principal = await self._granted(service, form, call.presented.remote)
            issued = await service.issue(principal, scopes, offline=form.get("access_type") == "offline",
                                         client=form.get("client_id", ""))
        except Unauthenticated as error:
            return _refused(error, "invalid_grant")
        except _Unsupported as error:
            return _refused(error, "unsupported_grant_type")
        except InvalidScope as error:
            return _refused(error, "invalid_scope")
        return document({**_described(issued), "token_type": "Bearer",
                         "scope": " ".join(map(_scope, issued.granted))}, headers=NO_STORE)

    async def _granted(self, service: TokenService, form: Mapping[str, str], remote: str) -> Principal:
        match form.get("grant_type"):
            case "password":
                return await service.log_in(form.get("username", ""), form.get("password", ""), remote)
            case "refresh_token":
                return await service.redeem(form.get("refresh_token", ""))
        raise _Unsupported("grant_type is password or refresh_token")

    async def _form(self, call: Call) -> dict[str, str]:
        if call.request.content_type != "application/x-www-form-urlencoded":
            raise InvalidArgument("want a form: application/x-www-form-urlencoded")
        raw = await self._bodies.whole(call.request, MAX_FORM)
        try:
            pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise InvalidArgument("the form cannot be read") from None
        form: dict[str, str] = {}
        for name, value in pairs:
            form[name] = f"{form[name]} {value}" if name == "scope" and name in form else value
        return form

    def _required(self) -> TokenService:
        if self._service is None:
            raise NoSuchEndpoint("this registry has no token server")
        return self._service


class _Unsupported(InvalidArgument):
    """Another grant type than ours."""


def _described(issued: Issued) -> dict[str, Any]:
    described = {"access_token": issued.token, "expires_in": issued.seconds,
                 "issued_at": issued.issued.isoformat(timespec="seconds").replace("+00:00", "Z")}
    return described if issued.refresh is None else {**described, "refresh_token": issued.refresh}


def _scope(grant: Grant) -> str:
    return f"{grant.type}:{grant.name}:{','.join(sorted(grant.actions))}"


def _refused(error: SeawallError, code: str) -> web.Response:
    answer = failure(error, BASIC if isinstance(error, LoginRequired) else NO_STORE)
    assert isinstance(answer.body, bytes)
    words = {"error": code, "error_description": error.message}
    answer.body = json.dumps({**words, **json.loads(answer.body)}).encode()
    return answer
