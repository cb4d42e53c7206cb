"""Events as receivers know them: CloudEvents 1.0 (structured and binary), and the envelope of CNCF distribution.

The ids are those of the log, so a receiver that hears something twice can tell.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from registry.notifications.endpoints import Format
from storage.events import Action, Event
from storage.metadata.events import LoggedEvent

DISTRIBUTION_TYPE = "application/vnd.docker.distribution.events.v1+json"
TYPE_PREFIX = "dev.seawall."
MAX_BODY = 64 * 1024

_DISTRIBUTION_ACTIONS = {
    Action.MANIFEST_PUSH: "push", Action.BLOB_PUSH: "push", Action.TAG_PUT: "push",
    Action.MANIFEST_PULL: "pull", Action.BLOB_PULL: "pull", Action.BLOB_MOUNT: "mount",
    Action.MANIFEST_DELETE: "delete", Action.TAG_DELETE: "delete", Action.BLOB_DELETE: "delete",
    Action.REPOSITORY_DELETE: "delete",
}
_BLOBS = frozenset({Action.BLOB_PUSH, Action.BLOB_PULL, Action.BLOB_MOUNT, Action.BLOB_DELETE})


@dataclass(frozen=True, slots=True)
class Message:
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """Who tells. `base`: scheme and host under which clients reach the registry, empty when only they know it;
    `scheme` then goes with the host that the client named."""

    base: str
    scheme: str
    instance: str
    address: str


def can_tell(form: Format, event: Event) -> bool:
    """Distribution's envelope knows content alone: pushes, pulls, mounts and deletions."""
    return form is not Format.DISTRIBUTION or event.action in _DISTRIBUTION_ACTIONS


def message(form: Format, logged: LoggedEvent, source: Source) -> Message:
    match form:
        case Format.CLOUDEVENTS:
            document = {**_attributes(logged, source), "datacontenttype": "application/json",
                        "data": _data(logged.event)}
            return Message({"Content-Type": "application/cloudevents+json; charset=utf-8"}, _json(document))
        case Format.CLOUDEVENTS_BINARY:
            headers = {f"ce-{name}": _header(value) for name, value in _attributes(logged, source).items()}
            return Message({**headers, "Content-Type": "application/json"}, _json(_data(logged.event)))
        case Format.DISTRIBUTION:
            return Message({"Content-Type": DISTRIBUTION_TYPE}, _json({"events": [_distribution(logged, source)]}))


def _attributes(logged: LoggedEvent, source: Source) -> dict[str, str]:
    """`subject` is the content as one writes it on a command line; `source` a URI-reference, as the spec demands."""
    event = logged.event
    found = {"specversion": "1.0", "id": logged.uid, "type": TYPE_PREFIX + event.action.value,
             "source": source.base or "/seawall-registry", "time": _moment(logged.at)}
    if event.repository is not None:
        tag = f":{event.tag}" if event.tag else ""
        digest = f"@{event.digest}" if event.digest else ""
        found["subject"] = f"{event.repository}{tag}{digest}"
    return found


def _data(event: Event) -> dict[str, Any]:
    origin = event.origin
    found: dict[str, Any] = {
        "action": event.action.value, "result": event.result.value,
        "repository": event.repository.value if event.repository else None,
        "tag": event.tag.value if event.tag else None, "digest": str(event.digest) if event.digest else None,
        "mediaType": event.media_type or None, "size": event.size or None, "detail": dict(event.detail) or None,
    }
    request = {"id": origin.request_id, "remote": origin.remote, "agent": origin.agent, "method": origin.method,
               "host": origin.host}
    return {**{name: value for name, value in found.items() if value is not None}, "actor": origin.actor,
            "request": request}


def _distribution(logged: LoggedEvent, source: Source) -> dict[str, Any]:
    """Fields that are empty are left out where distribution leaves them out."""
    event, origin = logged.event, logged.event.origin
    target = {
        "mediaType": event.media_type or ("application/octet-stream" if event.action in _BLOBS else ""),
        "size": event.size, "digest": str(event.digest) if event.digest else "", "length": event.size,
        "repository": event.repository.value if event.repository else "",
        "fromRepository": str(event.detail.get("from", "")), "url": _link(event, source),
        "tag": event.tag.value if event.tag else "",
    }
    request = {"addr": origin.remote, "host": origin.host}
    return {
        "id": logged.uid, "timestamp": _moment(logged.at), "action": _DISTRIBUTION_ACTIONS[event.action],
        "target": _filled(target),
        "request": {"id": origin.request_id, **_filled(request), "method": origin.method, "useragent": origin.agent},
        "actor": _filled({"name": origin.actor}),
        "source": _filled({"addr": source.address, "instanceID": source.instance}),
    }


def _link(event: Event, source: Source) -> str:
    base = source.base or (f"{source.scheme}://{event.origin.host}" if event.origin.host else "")
    if not base or event.repository is None or event.digest is None:
        return ""
    return f"{base}/v2/{event.repository}/{'blobs' if event.action in _BLOBS else 'manifests'}/{event.digest}"


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _header(value: str) -> str:
    """As the HTTP binding of CloudEvents wants it (section 3.1.3.2): percent-encoded but for printable ASCII without
    space, double quote and percent."""
    return quote(value, safe="!#$&'()*+,/:;<=>?@[\\]^_`{|}~-.")


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
