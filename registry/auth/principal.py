"""Who is asking, and what they showed to prove it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class Kind(Enum):
    """What sort of name a principal's is: `user:ann` and `robot:ann` are two."""

    USER = "user"
    ROBOT = "robot"
    CERTIFICATE = "certificate"
    EXTERNAL = "external"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one credential lets its bearer do at most: `type` is `repository` or `registry`, `name` a name or a pattern
    (see `patterns`), `actions` are the token specification's words (`pull`, `push`, `delete`, `*`)."""

    type: str
    name: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody the registry knows by name; the empty name is nobody in particular.

    `grants` belong to the credential that was shown: None when it has no limits of its own and only the policy decides.
    A bearer token of our own is limited to its grants and to the policy, an external issuer's (EXTERNAL) to its grants
    alone. `scope` belongs to a robot: what its maker allows it. `owner` is the user a robot acts for, whose rights
    then bound it. `stamp` changes with the account's password or token: what is issued carries it, and is void when it
    has changed, or when `expires` has come.
    """

    name: str
    kind: Kind = Kind.USER
    groups: frozenset[str] = frozenset()
    grants: tuple[Grant, ...] | None = None
    admin: bool = False
    scope: tuple[Grant, ...] | None = None
    owner: str = ""
    stamp: str = field(default="", repr=False, compare=False)
    expires: datetime | None = field(default=None, compare=False)

    @property
    def is_anonymous(self) -> bool:
        return not self.name

    @property
    def subject(self) -> str:
        """The name with its kind, for logs, for policies and for binding what belongs to somebody."""
        return f"{self.kind.value}:{self.name}" if self.name else ""

    @property
    def administers(self) -> bool:
        """Whether this may use an administration API: an administrator who did not come with a registry token, which
        a client hands to whatever it pulls through (Quay's CVE-2026-123710)."""
        return self.admin and self.grants is None and self.scope is None


ANONYMOUS = Principal("", Kind.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What TLS verified: the subject's common name, its alternative names (`DNS:host`, `URI:spiffe://…`,
    `EMAIL:a@b`), and the SHA-256 of the certificate in hex."""

    common_name: str
    names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Presented:
    """All that a request shows of who sent it. `remote` is the client's address, also behind a trusted proxy."""

    authorization: str | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = None
    session: str | None = field(default=None, repr=False)
    remote: str = ""

    @property
    def nothing(self) -> bool:
        return self.authorization is None and self.certificate is None and self.session is None
