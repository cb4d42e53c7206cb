"""Every error code that a client can meet, and which failure answers with which.

The upper-case words are those of the distribution-spec ("Error Codes") where it has one; `docs/registry.md` shows the
table, and a test keeps the two equal.
"""

from dataclasses import dataclass

from ocispec import errors as kinds
from ocispec.digest import InvalidDigest
from ocispec.errors import InvalidArgument, OutOfRange, ResourceExhausted, SeawallError
from ocispec.manifest import InvalidManifest
from ocispec.reference import InvalidName, InvalidTag
from registry.auth.throttle import TooManyLogins
from registry.proxy.errors import (
    PushRefused,
    UpstreamBroken,
    UpstreamDenied,
    UpstreamSlow,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from storage.errors import BlobUnknown, DigestMismatch, RepositoryUnknown, StoreFull
from storage.repository.manifests import ManifestBlobUnknown, ManifestSizeMismatch, ManifestUnknown
from storage.repository.pointing import TagChanged
from storage.uploads.errors import OffsetMismatch, UploadBusy, UploadUnknown


class BodyTooLarge(ResourceExhausted):
    """A request body is larger than a limit allows; `limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes", detail={"limit": limit})


class TooManyRequests(ResourceExhausted):
    """The client, or its address, asks more often than a setting allows; `seconds`: when it may again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many requests: try again in {seconds} s", detail={"seconds": seconds})
        self.seconds = seconds


class TooManyTags(ResourceExhausted):
    """One manifest push names more tags than it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} tags for one manifest", detail={"limit": limit})


class BodySlow(kinds.Unavailable):
    """The client stopped sending in the middle of a body, or sends it too slowly."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request body did not come within {seconds:g} s")


class BodyBroken(InvalidArgument):
    """The transfer coding of a request body is broken."""


class LengthMismatch(InvalidArgument):
    """A chunk has not the length that its Content-Range gives."""

    def __init__(self, promised: int, arrived: int | None = None) -> None:
        told = f"{arrived} arrived" if arrived is not None else "more arrived"
        super().__init__(f"Content-Range promises {promised} bytes, {told}")


class InvalidContentRange(InvalidArgument):
    """The Content-Range of a chunk is not `<first>-<last>`."""


class InvalidCondition(InvalidArgument):
    """`If-Match` or `If-None-Match` of a write cannot be read."""


class InvalidPage(InvalidArgument):
    """A listing's `n` is no count."""


class RangeUnsatisfiable(OutOfRange):
    """None of the bytes asked for exist; the blob has `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside the {size} bytes of the blob", detail={"size": size})
        self.size = size


class NoSuchEndpoint(kinds.NotFound):
    """The path is none of this API's."""


class MethodNotAllowed(kinds.Unimplemented):
    """The path exists and does not answer to this method; `allowed` are those that it does answer to."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method[:20]} is not supported here (want {', '.join(allowed)})")
        self.allowed = allowed


class ExpectationFailed(InvalidArgument):
    """An `Expect` header asks for something else than 100-continue."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a failure is answered: the error code and the HTTP status, and what it means in the manual's words."""

    code: str
    status: int
    meaning: str


INTERNAL = Answer("UNKNOWN", 500, "a fault of the registry; its log has the reason")

ANSWERS: dict[type[SeawallError], Answer] = {
    BlobUnknown: Answer("BLOB_UNKNOWN", 404, "the repository has no such blob"),
    UploadUnknown: Answer("BLOB_UPLOAD_UNKNOWN", 404, "no such upload session in the repository, or it is over"),
    UploadBusy: Answer("BLOB_UPLOAD_INVALID", 409, "another request is writing this upload"),
    OffsetMismatch: Answer("BLOB_UPLOAD_INVALID", 416, "a chunk does not begin where the upload ends; see `Range`"),
    InvalidContentRange: Answer("BLOB_UPLOAD_INVALID", 400, "the chunk's Content-Range cannot be read"),
    LengthMismatch: Answer("SIZE_INVALID", 400, "the chunk's length is not that of its Content-Range"),
    InvalidDigest: Answer("DIGEST_INVALID", 400, "no digest, or of an algorithm that is not supported"),
    DigestMismatch: Answer("DIGEST_INVALID", 400, "the content has another digest"),
    ManifestUnknown: Answer("MANIFEST_UNKNOWN", 404, "the repository has no such manifest or tag"),
    ManifestBlobUnknown: Answer("MANIFEST_BLOB_UNKNOWN", 400, "the manifest names content the repository lacks"),
    ManifestSizeMismatch: Answer("MANIFEST_INVALID", 400, "a descriptor gives another size than its content has"),
    InvalidManifest: Answer("MANIFEST_INVALID", 400, "the document is no manifest that may be stored"),
    InvalidTag: Answer("MANIFEST_INVALID", 400, "the tag to push to is malformed"),
    InvalidName: Answer("NAME_INVALID", 400, "the repository name is malformed"),
    RepositoryUnknown: Answer("NAME_UNKNOWN", 404, "no such repository"),
    BodyTooLarge: Answer("SIZE_INVALID", 413, "the body exceeds a limit (manifests: 4 MiB)"),
    TooManyLogins: Answer("TOOMANYREQUESTS", 429, "too many failed logins; see `Retry-After`"),
    TooManyRequests: Answer("TOOMANYREQUESTS", 429, "too many requests from one client; see `Retry-After`"),
    TooManyTags: Answer("MANIFEST_INVALID", 414, "too many `tag` parameters in one push"),
    BodySlow: Answer("BLOB_UPLOAD_INVALID", 408, "the client stopped sending"),
    BodyBroken: Answer("SIZE_INVALID", 400, "the transfer coding of the body is broken"),
    RangeUnsatisfiable: Answer("RANGE_INVALID", 416, "the byte range lies outside the blob"),
    TagChanged: Answer("CONFLICT", 412, "the tag does not name what `If-Match` or `If-None-Match` says"),
    InvalidPage: Answer("PAGINATION_NUMBER_INVALID", 400, "`n` is not a count"),
    StoreFull: Answer("UNAVAILABLE", 507, "the disk is full"),
    MethodNotAllowed: Answer("UNSUPPORTED", 405, "the path does not answer to this method; see `Allow`"),
    NoSuchEndpoint: Answer("UNSUPPORTED", 404, "the path is none of the API's"),
    ExpectationFailed: Answer("UNSUPPORTED", 417, "`Expect` asks for something else than 100-continue"),
    PushRefused: Answer("DENIED", 403, "the name belongs to an upstream: nothing is pushed there"),
    UpstreamDenied: Answer("DENIED", 403, "an upstream, or what is allowed of it, does not let this be pulled"),
    UpstreamThrottled: Answer("TOOMANYREQUESTS", 429, "an upstream wants fewer requests; see `Retry-After`"),
    UpstreamSlow: Answer("UNAVAILABLE", 504, "an upstream takes too long"),
    UpstreamUnavailable: Answer("UNAVAILABLE", 502, "an upstream does not answer and there is no copy"),
    UpstreamBroken: Answer("UNAVAILABLE", 502, "an upstream's answer cannot be right; nothing of it was kept"),
    kinds.Unauthenticated: Answer("UNAUTHORIZED", 401, "log in first"),
    kinds.PermissionDenied: Answer("DENIED", 403, "not allowed"),
    kinds.ResourceExhausted: Answer("TOOMANYREQUESTS", 429, "a limit was reached"),
    kinds.Unavailable: Answer("UNAVAILABLE", 503, "database or store do not answer; try again"),
    kinds.Unimplemented: Answer("UNSUPPORTED", 501, "not done by this registry"),
    kinds.InvalidArgument: Answer("UNSUPPORTED", 400, "the request is malformed"),
    kinds.OutOfRange: Answer("RANGE_INVALID", 416, "an offset lies outside what exists"),
    kinds.NotFound: Answer("UNKNOWN", 404, "no such thing"),
    kinds.AlreadyExists: Answer("CONFLICT", 409, "it exists already"),
    kinds.FailedPrecondition: Answer("CONFLICT", 409, "the state does not permit this now"),
    SeawallError: INTERNAL,
}
"""By class, the nearest ancestor decides."""


def answer_for(error: SeawallError) -> Answer:
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
