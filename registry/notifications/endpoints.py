"""Endpoints of webhooks: where to, what about, and in which form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from yarl import URL

from ocispec.errors import InvalidArgument
from registry.settings import WebhookSettings
from storage.events import Event
from storage.metadata.webhooks import HookRow

MAX_URL = 2000
MIN_SECRET, MAX_SECRET = 16, 500
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?\Z")
_PATTERN = re.compile(r"[a-z0-9._*?/\[\]!-]{1,300}\Z")


class InvalidEndpoint(InvalidArgument):
    """A webhook that cannot be; the message says why."""


class Format(StrEnum):
    CLOUDEVENTS = "cloudevents"
    CLOUDEVENTS_BINARY = "cloudevents-binary"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`actions` and `repositories` are patterns (`*` also crosses slashes); empty: whichever. An event that concerns
    no repository goes to endpoints without `repositories` alone."""

    name: str
    url: URL
    secret: str = field(repr=False)
    format: Format = Format.CLOUDEVENTS
    actions: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    allow_private: bool = False
    ca: str = ""

    def wants(self, event: Event) -> bool:
        return _among(event.action.value, self.actions) and (
            not self.repositories or (event.repository is not None
                                      and _among(event.repository.value, self.repositories)))

    @classmethod
    def from_settings(cls, given: WebhookSettings) -> "Endpoint":
        """Raises InvalidEndpoint."""
        checked = _checked(given.name, given.url, given.secret, given.format, given.actions, given.repositories)
        return cls(*checked, token=given.token, allow_private=given.allow_private, ca=given.ca)

    @classmethod
    def from_row(cls, row: HookRow) -> "Endpoint":
        """Never at a private address: whoever may administer the registry need not be who may reach its network.
        Raises InvalidEndpoint."""
        return cls(*_checked(row.name, row.url, row.secret, row.format, row.actions, row.repositories))


def _checked(name: str, url: str, secret: str, form: str, actions: Sequence[str], repositories: Sequence[str],
             ) -> tuple[str, URL, str, Format, tuple[str, ...], tuple[str, ...]]:
    if not _NAME.match(name):
        raise InvalidEndpoint(f"a webhook's name is of a-z, 0-9 and ._- and at most 100 characters: {name[:100]!r}")
    if secret and not MIN_SECRET <= len(secret) <= MAX_SECRET:
        raise InvalidEndpoint(f"webhook {name}: the secret has less than {MIN_SECRET} or more than {MAX_SECRET} "
                              "characters")
    if form not in tuple(Format):
        raise InvalidEndpoint(f"webhook {name}: format is none of {', '.join(Format)}: {form[:50]!r}")
    for pattern in (*actions, *repositories):
        if not _PATTERN.match(pattern):
            raise InvalidEndpoint(f"webhook {name}: not a pattern: {pattern[:100]!r}")
    return name, _url(name, url), secret, Format(form), tuple(actions), tuple(repositories)


def _url(name: str, text: str) -> URL:
    try:
        url = URL(text)
        usable = len(text) <= MAX_URL and url.scheme in ("http", "https") and url.host and url.port
    except ValueError as error:
        raise InvalidEndpoint(f"webhook {name}: not a URL: {error}") from error
    if not usable:
        raise InvalidEndpoint(f"webhook {name}: not an http or https URL: {text[:200]!r}")
    if url.user is not None or url.password is not None or url.fragment:
        raise InvalidEndpoint(f"webhook {name}: a URL with credentials or a fragment; use `token` for credentials")
    return url


def _among(value: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
