"""Refused requests, for the audit log and the metrics."""

import base64
import binascii

from aiohttp import web

from ocispec.errors import InvalidArgument, PermissionDenied, ResourceExhausted, SeawallError, Unauthenticated
from ocispec.reference import RepositoryName
from registry.api import requests
from registry.api.paths import parse
from registry.errors import answer_for
from registry.notifications.audit import Refusals
from registry.telemetry.requests import RequestMeter
from storage.events import Action, Event, Result, printable

MAX_PATH = 300
THROTTLED = 429


class Refused:
    def __init__(self, refusals: Refusals, meter: RequestMeter) -> None:
        self._refusals = refusals
        self._meter = meter

    def note(self, request: web.BaseRequest, remote: str, error: SeawallError) -> None:
        """A client that came without credentials and is told to log in was not refused anything yet."""
        shown = request.headers.get("Authorization")
        if isinstance(error, PermissionDenied):
            self._meter.denied.add()
            self._record(Action.ACCESS_DENIED, request, remote, {})
        elif isinstance(error, Unauthenticated) and shown:
            self._meter.logins_failed.add()
            self._record(Action.LOGIN_FAILED, request, remote, _claimed(shown))
        elif isinstance(error, ResourceExhausted) and answer_for(error).status == THROTTLED:
            self._meter.throttled.add()

    def _record(self, action: Action, request: web.BaseRequest, remote: str, detail: dict[str, object]) -> None:
        actor = request.actor if isinstance(request, requests.Request) else ""
        path = printable(request.raw_path.partition("?")[0][:MAX_PATH])
        self._refusals.note(Event(action, requests.origin(request, actor, remote), _repository(request),
                                  result=Result.DENIED, detail={"path": path, **detail}))


def _claimed(authorization: str) -> dict[str, object]:
    """The name that was given with a wrong password; it proves nothing, and the password is not kept."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return {"scheme": printable(scheme[:20])}
    try:
        name = base64.b64decode(encoded, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return {"scheme": "Basic"}
    return {"scheme": "Basic", "claimed": printable(name[:100])}


def _repository(request: web.BaseRequest) -> RepositoryName | None:
    target = parse(request.raw_path.partition("?")[0])
    if target is None or not target.name:
        return None
    try:
        return RepositoryName.parse(target.name)
    except InvalidArgument:
        return None
