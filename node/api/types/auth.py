"""Credentials on the wire: the X-Registry-Auth header and the body of /auth."""

import base64
import binascii
import json

from node.api.types.fields import Fields
from ocispec.errors import InvalidArgument
from storage.remote.auth import Credentials


class InvalidAuth(InvalidArgument):
    """X-Registry-Auth is no base64url JSON object."""


def read_header(value: str) -> Credentials | None:
    """As `parse_header`, but what cannot be read is nobody: Docker pulls and pushes then as without a login, and some
    clients that have none send a word of their own."""
    try:
        return parse_header(value)
    except InvalidArgument:
        return None


def parse_header(value: str) -> Credentials | None:
    """None when it names nobody: clients send an empty object then. Raises InvalidAuth."""
    if not value:
        return None
    try:
        document = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidAuth("invalid X-Registry-Auth header: not base64url-encoded JSON") from error
    if document is None:
        return None
    if not isinstance(document, dict):
        raise InvalidAuth("invalid X-Registry-Auth header: not a JSON object")
    credentials = parse_auth(Fields(document))
    return None if credentials.empty else credentials


def parse_auth(body: Fields) -> Credentials:
    username, password = body.text("username"), body.text("password")
    if not username and (auth := body.text("auth")):
        username, password = split_basic(auth)
    return Credentials(username, password, body.text("identitytoken"), body.text("registrytoken"))


def split_basic(text: str) -> tuple[str, str]:
    """The `auth` field of a config.json: base64 of user:password. Raises InvalidAuth."""
    try:
        name, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (ValueError, binascii.Error) as error:
        raise InvalidAuth("invalid auth: not base64 of user:password") from error
    if not colon:
        raise InvalidAuth("invalid auth: not base64 of user:password")
    return name, password.rstrip("\0")


def registry_host(address: str) -> str:
    """The registry of a server address as `docker login` sends it: a host, or a URL."""
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("", "index.docker.io", "registry-1.docker.io") else host
