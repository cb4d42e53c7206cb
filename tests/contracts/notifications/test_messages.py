"""What is sent: CloudEvents, distribution's envelope, signatures; and where it is not sent."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import jsonschema
import pytest
from aiohttp import web
from yarl import URL

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry.notifications import envelopes
from registry.notifications.endpoints import Endpoint, Format, InvalidEndpoint
from registry.notifications.envelopes import Source
from registry.notifications.sending import Sender
from registry.notifications.signing import signed
from registry.settings import WebhookSettings
from storage.events import Action, Event, Origin, Result
from storage.metadata.events import LoggedEvent, Position

ORIGIN = Origin("mia", "req-1", "192.0.2.7", "docker/27 \"x\" é%", "PUT", "registry.example")
DIGEST = Digest.of(b"manifest")
AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
ENVELOPE = {  # what the documentation of distribution's notifications and its event format promise
    "type": "object", "required": ["events"], "additionalProperties": False,
    "properties": {"events": {"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["id", "timestamp", "action", "target", "request", "actor", "source"],
        "additionalProperties": False,
        "properties": {
            "id": TEXT, "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$"},
            "action": {"enum": ["push", "pull", "mount", "delete"]},
            "target": {"type": "object", "additionalProperties": False, "required": ["repository"], "properties": {
                "mediaType": TEXT, "size": COUNT, "digest": TEXT, "length": COUNT, "repository": TEXT,
                "fromRepository": TEXT, "url": TEXT, "tag": TEXT}},
            "request": {"type": "object", "additionalProperties": False, "required": ["id", "method", "useragent"],
                        "properties": {"id": TEXT, "addr": TEXT, "host": TEXT, "method": {"type": "string"},
                                       "useragent": {"type": "string"}}},
            "actor": {"type": "object", "additionalProperties": False, "properties": {"name": TEXT}},
            "source": {"type": "object", "additionalProperties": False,
                       "properties": {"addr": TEXT, "instanceID": TEXT}},
        }}}},
}
CLOUDEVENT = {  # the JSON format of CloudEvents 1.0
    "type": "object", "required": ["id", "source", "specversion", "type"],
    "properties": {"id": TEXT, "source": {"type": "string", "format": "uri-reference", "minLength": 1},
                   "specversion": {"const": "1.0"}, "type": TEXT, "datacontenttype": TEXT, "subject": TEXT,
                   "time": {"type": "string", "format": "date-time"}},
    "patternProperties": {"^[a-z0-9]{1,20}$": {}}, "additionalProperties": False,
}


def logged(action: Action = Action.MANIFEST_PUSH, **fields) -> LoggedEvent:
    event = {"repository": RepositoryName("team/app"), "digest": DIGEST, "tag": Tag("v1"), "size": 7,
             "media_type": "application/vnd.oci.image.manifest.v1+json", **fields}
    return LoggedEvent(Position(0, 5), "4f4b1c1e-0000-4000-8000-000000000001", AT, Event(action, ORIGIN, **event))


@pytest.mark.parametrize("action", Action)
def test_every_event_is_a_cloudevent(action, source) -> None:
    for fields in ({}, {"repository": None, "digest": None, "tag": None, "size": 0, "media_type": ""}):
        made = envelopes.message(Format.CLOUDEVENTS, logged(action, **fields), source)
        assert made.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
        document = json.loads(made.body)
        jsonschema.validate(document, CLOUDEVENT, format_checker=jsonschema.FormatChecker())
        assert document["type"] == f"dev.seawall.{action.value}"
        assert document["time"] == "2030-01-02T03:04:05.678901Z"
        assert document["data"]["actor"] == "mia"
        assert len(made.body) < envelopes.MAX_BODY


def test_a_cloudevent_says_what_happened(source) -> None:
    document = json.loads(envelopes.message(Format.CLOUDEVENTS, logged(detail={"from": "x"}, result=Result.OK), source).body)
    assert document["subject"] == f"team/app:v1@{DIGEST}"
    assert document["source"] == "https://registry.example"
    assert document["data"] == {
        "action": "manifest.push", "result": "ok", "repository": "team/app", "tag": "v1", "digest": str(DIGEST),
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7, "detail": {"from": "x"}, "actor": "mia",
        "request": {"id": "req-1", "remote": "192.0.2.7", "agent": ORIGIN.agent, "method": "PUT",
                    "host": "registry.example"}}


def test_the_binary_form_says_the_same(source) -> None:
    structured = json.loads(envelopes.message(Format.CLOUDEVENTS, logged(), source).body)
    made = envelopes.message(Format.CLOUDEVENTS_BINARY, logged(), source)
    assert made.headers["Content-Type"] == "application/json"
    assert json.loads(made.body) == structured["data"]
    for name in ("id", "source", "type", "time", "subject", "specversion"):
        assert made.headers[f"ce-{name}"] == structured[name]


def test_headers_of_the_binary_form_are_percent_encoded() -> None:
    made = envelopes.message(Format.CLOUDEVENTS_BINARY, logged(), Source("https://x/é \"%", "http", "", ""))
    assert made.headers["ce-source"] == "https://x/%C3%A9%20%22%25"


@pytest.mark.parametrize(("action", "word"), [
    (Action.MANIFEST_PUSH, "push"), (Action.BLOB_PUSH, "push"), (Action.TAG_PUT, "push"), (Action.BLOB_MOUNT, "mount"),
    (Action.MANIFEST_PULL, "pull"), (Action.BLOB_PULL, "pull"), (Action.MANIFEST_DELETE, "delete"),
    (Action.TAG_DELETE, "delete"), (Action.BLOB_DELETE, "delete"), (Action.REPOSITORY_DELETE, "delete")])
def test_distribution_s_envelope(action, word, source) -> None:
    fields = {"detail": {"from": "team/base"}} if action is Action.BLOB_MOUNT else {}
    made = envelopes.message(Format.DISTRIBUTION, logged(action, **fields), source)
    assert made.headers["Content-Type"] == "application/vnd.docker.distribution.events.v1+json"
    document = json.loads(made.body)
    jsonschema.validate(document, ENVELOPE)
    event, = document["events"]
    kind = "blobs" if action.value.startswith("blob.") else "manifests"
    assert event["action"] == word
    assert event["target"] == {
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7, "length": 7, "digest": str(DIGEST),
        "repository": "team/app", "tag": "v1", "url": f"https://registry.example/v2/team/app/{kind}/{DIGEST}",
        **({"fromRepository": "team/base"} if fields else {})}
    assert event["request"] == {"id": "req-1", "addr": "192.0.2.7", "host": "registry.example", "method": "PUT",
                                "useragent": ORIGIN.agent}
    assert event["actor"] == {"name": "mia"}
    assert event["source"] == {"addr": "host:5000", "instanceID": "instance-1"}


def test_what_is_empty_is_left_out_as_distribution_does(source) -> None:
    bare = LoggedEvent(Position(0, 1), "id", AT, Event(Action.REPOSITORY_DELETE, Origin("", "r"), RepositoryName("a")))
    event, = json.loads(envelopes.message(Format.DISTRIBUTION, bare, source).body)["events"]
    assert event["target"] == {"repository": "a"}
    assert event["request"] == {"id": "r", "method": "", "useragent": ""}
    assert event["actor"] == {}


@pytest.mark.parametrize("action", [action for action in Action if action.value.partition(".")[0] not in (
    "manifest", "blob", "tag", "repository")])
def test_what_distribution_knows_nothing_of_is_not_told_to_it(action) -> None:
    assert not envelopes.can_tell(Format.DISTRIBUTION, Event(action, ORIGIN))
    assert envelopes.can_tell(Format.CLOUDEVENTS, Event(action, ORIGIN))


def test_the_largest_event_is_small(source) -> None:
    long = Origin(*["\U0001f4a3" * 500] * 6)
    event = Event(Action.MANIFEST_PUSH, long, RepositoryName("a" * 511), DIGEST, Tag("v" * 128), "m" * 255, 1,
                  detail={"text": "x" * 3900})
    for form in Format:
        assert len(envelopes.message(form, LoggedEvent(Position(0, 1), "id", AT, event), source).body) < envelopes.MAX_BODY


@pytest.mark.parametrize("secret", ["a secret of some length", "whsec_" + base64.b64encode(b"k" * 24).decode()])
def test_a_receiver_verifies_the_signature_as_the_manual_says(secret) -> None:
    body = b'{"x": 1}'
    headers = signed(secret, "id-1", AT, body)
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    expected = hmac.new(key, b"id-1." + headers["webhook-timestamp"].encode() + b"." + body, hashlib.sha256).digest()
    version, _, signature = headers["webhook-signature"].partition(",")
    assert version == "v1"
    assert hmac.compare_digest(base64.b64decode(signature), expected)
    assert int(headers["webhook-timestamp"]) == int(AT.timestamp())
    assert signed(secret, "id-1", AT, body + b" ")["webhook-signature"] != headers["webhook-signature"]
    assert signed(secret, "id-2", AT, body)["webhook-signature"] != headers["webhook-signature"]
    assert "webhook-signature" not in signed("", "id-1", AT, body)


def test_the_signature_is_that_of_the_standard_s_example() -> None:
    """From the Standard Webhooks specification's own example."""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", at,
                     b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:{}/", "http://localhost:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://169.254.169.254/",
    "http://10.0.0.1/", "http://0.0.0.0:{}/", "http://2130706433:{}/", "http://[::1]:{}/"])
async def test_private_addresses_are_not_reached(receiver, url) -> None:
    port = URL(receiver.url).port
    hook = Endpoint("x", URL(url.format(port)), "")
    async with Sender(hook, 2) as sender:
        outcome = await sender.send(envelopes.Message({}, b"{}"))
    assert outcome.problem
    assert receiver.got == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data", "http://[fe80::1]/"])
async def test_link_local_addresses_are_refused_even_when_private_ones_are_allowed(url) -> None:
    async with Sender(Endpoint("x", URL(url), "", allow_private=True), 2) as sender:
        assert "not a public address" in (await sender.send(envelopes.Message({}, b"{}"))).problem


async def test_redirects_are_not_followed(receivers, to) -> None:
    here, there = await receivers(), await receivers()

    async def away(number, received) -> web.Response:
        return web.Response(status=307, headers={"Location": there.url})

    here.answer = away
    async with Sender(to(here), 2) as sender:
        assert "redirect" in (await sender.send(envelopes.Message({}, b'{"request": {"id": "x"}}'))).problem
    assert there.got == []


@pytest.mark.parametrize("answer", [b"x" * 50_000_000, b"\x1f\x8b" + b"\0" * 1000])
async def test_what_it_answers_is_not_kept(receiver, to, answer) -> None:
    async def much(number, received) -> web.Response:
        return web.Response(body=answer, headers={"Content-Encoding": "gzip"})

    receiver.answer = much
    async with Sender(to(receiver), 5) as sender:
        assert (await sender.send(envelopes.Message({}, b'{"request": {"id": "x"}}'))).problem == ""


async def test_credentials_are_sent_and_never_shown(receiver, to) -> None:
    hook = to(receiver, token="a bearer token")
    async with Sender(hook, 2) as sender:
        await sender.send(envelopes.Message({}, b'{"request": {"id": "x"}}'))
    assert receiver.got[0].headers["Authorization"] == "Bearer a bearer token"
    assert "bearer token" not in repr(hook)
    assert "secret of" not in repr(hook)
    assert "secret of" not in repr(WebhookSettings(secret="a secret of some length"))


@pytest.mark.parametrize("wrong", [
    {"name": ""}, {"name": "Upper"}, {"name": "a/b"}, {"url": "ftp://x/"}, {"url": "https://"}, {"url": "nonsense"},
    {"url": "https://user:pass@x/"}, {"url": "https://x/#y"}, {"url": "https://x:99999/"}, {"secret": "short"},
    {"format": "xml"}, {"actions": ("a b",)}, {"repositories": ("\n",)}, {"url": "https://x/" + "a" * 3000}])
def test_endpoints_that_cannot_be(wrong) -> None:
    given = {"name": "ok", "url": "https://example.com/hook", "secret": "", **wrong}
    with pytest.raises(InvalidEndpoint):
        Endpoint.from_settings(WebhookSettings(**given))
