"""One operation of the administration API, as data."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from ocispec.reference import RepositoryName
from registry.auth.policy import Access, Action
from registry.auth.principal import Principal
from storage.events import Origin

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

DEFAULT_PAGE = 100
MAX_PAGE = 1000
MAX_CURSOR = 600


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends: a field that we do not know is an error, not a setting that is silently not made."""


class Nothing(Strict, frozen=True):
    """No parameters, or an empty body `{}`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: `parameters` from the path, unescaped; `query` and `body` as the operation's types."""

    principal: Principal
    access: Access
    origin: Origin
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None

    @property
    def repository(self) -> RepositoryName:
        """Raises InvalidName."""
        return RepositoryName.parse(self.parameters["repository"])


_DIGEST = "(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})"
_TAG = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
FORMS: Mapping[str, str] = {
    "repository": f"^{_COMPONENT}(?:/{_COMPONENT})*$",
    "tag": f"^{_TAG}$",
    "digest": f"^{_DIGEST}$",
    "reference": f"^(?:{_DIGEST}|{_TAG})$",
}
"""What the document says of parameters with these names. The values that handlers parse decide, not these: a test
holds the two to each other."""

NamePattern = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._/*?-]+$", min_length=1, max_length=255)]
"""See `ocispec.pattern`."""

RepositoryText = Annotated[str, msgspec.Meta(pattern=FORMS["repository"], max_length=255)]
DigestText = Annotated[str, msgspec.Meta(pattern=FORMS["digest"])]

Run = Callable[[Asked], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` has `{parameters}`, one segment each (a repository's slashes are sent as `%2F`). `needs` is asked of the
    `repository` parameter where the path has one, else of the registry as a whole; None: of nobody. `body` None: the
    operation takes none. `result` None: answered with 204."""

    method: Method
    path: str
    summary: str
    run: Run
    needs: Action | None = Action.ADMIN
    query: type[Strict] = Nothing
    body: type[Strict] | None = None
    result: Any = None
    status: int = 200
    failures: Sequence[int] = ()

    @property
    def parameters(self) -> Sequence[str]:
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def name(self) -> str:
        """As the OpenAPI document and the errors call it: unique, made of method and path."""
        words = re.sub(r"[{}]", "", self.path).strip("/").replace("/", "_").replace("-", "_")
        return f"{self.method.lower()}_{words}"


class Paged(Strict, frozen=True):
    """`after`: what the page before called `next`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    after: Annotated[str, msgspec.Meta(max_length=MAX_CURSOR)] = ""
