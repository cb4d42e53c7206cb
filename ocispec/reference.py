"""Names: repository, tag, and Docker's reference `[domain/]path[:tag][@digest]`.

Grammar: OCI distribution-spec "Pulling manifests" for what a registry accepts; distribution/reference's published
grammar for what a Docker user may type. Every pattern is matched in full, so a value never holds a character that
could mean something to a path, a header or a URL.
"""

import re
from dataclasses import dataclass, replace

from ocispec.digest import Digest, InvalidDigest
from ocispec.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_BARE_HEX = re.compile(r"[a-f0-9]{64}")


class InvalidName(InvalidArgument):
    """The text is no repository name."""


class InvalidTag(InvalidArgument):
    """The text is no tag."""


class InvalidReference(InvalidArgument):
    """The text is no image reference; the message is Docker's."""


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository in one store.

    In a registry it is the path alone (`parse`). In a node's image store, where repositories of many registries live
    side by side, it is `domain/path` (`qualified`): the same images under another host are another repository.
    """

    value: str

    @classmethod
    def parse(cls, text: str) -> "RepositoryName":
        """Raises InvalidName."""
        if not 0 < len(text) <= MAX_NAME or not _PATH.fullmatch(text):
            raise InvalidName(f"invalid repository name: {text[:300]!r}", detail={"name": text[:300]})
        return cls(text)

    @classmethod
    def qualified(cls, domain: str, path: "RepositoryName") -> "RepositoryName":
        if not _DOMAIN.fullmatch(domain):
            raise InvalidName(f"invalid registry host: {domain[:300]!r}")
        return cls(f"{domain}/{path.value}")

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag; at most 128 characters. Raises InvalidTag from `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "Tag":
        if not _TAG.fullmatch(text):
            raise InvalidTag(f"invalid tag: {text[:200]!r}", detail={"tag": text[:200]})
        return cls(text)

    def __str__(self) -> str:
        return self.value


def parse_tag_or_digest(text: str) -> Tag | Digest:
    """The `<reference>` of `/v2/<name>/manifests/<reference>`: with a colon it is a digest.

    Raises InvalidDigest or InvalidTag.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def referrers_tag(digest: Digest) -> Tag:
    """Where clients list the referrers of a manifest in a registry without the referrers API (distribution-spec,
    "Referrers Tag Schema"): the algorithm cut at 32 characters, the encoded part at 64."""
    return Tag.parse(f"{digest.algorithm[:32]}-{digest.encoded[:64]}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image reference: the domain is always present (`docker.io` when none was typed)."""

    domain: str
    path: RepositoryName
    tag: Tag | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Normalises as Docker does: `alpine` → `docker.io/library/alpine`. Adds no tag (see `with_default_tag`).

        Raises InvalidReference with Docker's wording.
        """
        if _BARE_HEX.fullmatch(text):
            raise InvalidReference(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        rest, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except InvalidDigest as error:
            raise InvalidReference(f"invalid reference format: {error.message}") from error
        domain, remainder = _split_domain(rest)
        path_text, colon, tag_text = remainder.rpartition(":")
        if not colon:
            path_text, tag_text = remainder, ""
        if path_text != path_text.lower():
            raise InvalidReference(f"invalid reference format: repository name ({path_text[:300]}) must be lowercase")
        tag = _tag(tag_text) if colon else None
        if len(path_text) > MAX_NAME:
            raise InvalidReference(f"repository name must not be more than {MAX_NAME} characters")
        if not _PATH.fullmatch(path_text) or not _DOMAIN.fullmatch(domain):
            raise InvalidReference("invalid reference format")
        return cls(domain, RepositoryName(path_text), tag, digest)

    @property
    def repository(self) -> RepositoryName:
        """The repository in a node's store: `domain/path`."""
        return RepositoryName.qualified(self.domain, self.path)

    @property
    def familiar_name(self) -> str:
        """What Docker shows: `alpine` for `docker.io/library/alpine`, without tag or digest."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        return self.path.value.removeprefix("library/") if self.path.value.count("/") == 1 else self.path.value

    def with_default_tag(self) -> "Reference":
        return self if self.tag or self.digest else replace(self, tag=Tag(DEFAULT_TAG))

    def familiar(self) -> str:
        suffix = (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        return self.familiar_name + suffix

    def __str__(self) -> str:
        suffix = (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        return f"{self.domain}/{self.path}{suffix}"


def familiar_repository(name: RepositoryName) -> str:
    """A node repository (`docker.io/library/alpine`) as Docker shows it (`alpine`)."""
    domain, _, path = name.value.partition("/")
    return Reference(domain, RepositoryName(path)).familiar_name


def _split_domain(text: str) -> tuple[str, str]:
    """The first component is a domain if it has a dot or a colon, is `localhost`, or has upper-case letters."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first)
    if not is_domain:
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder


def _tag(text: str) -> Tag:
    try:
        return Tag.parse(text)
    except InvalidTag as error:
        raise InvalidReference("invalid reference format") from error
