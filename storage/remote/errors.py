"""What another registry, or the way to it, may answer."""

from ocispec.errors import InvalidArgument, NotFound, PermissionDenied, Unauthenticated, Unavailable


class RemoteNotFound(NotFound):
    """404: no such manifest, blob or repository. `code` is the registry's error code (may be empty)."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RemoteUnauthorized(Unauthenticated):
    """401 after everything we have to offer."""


class RemoteDenied(PermissionDenied):
    """403."""


class RemoteUnavailable(Unavailable):
    """Not reachable, stalled, or 429/5xx for longer than we try."""


class RemoteThrottled(RemoteUnavailable):
    """429. `retry_after`: seconds that the registry wants to be left alone for, when it says so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RemoteRefused(InvalidArgument):
    """Another 4xx: the registry does not take what we sent; the message is the registry's."""


class RemoteOldManifest(InvalidArgument):
    """It answers with a manifest of schema 1, which nobody reads any more."""


class RemoteInvalid(InvalidArgument):
    """The registry's answer cannot be right: too long, a wrong range, a redirect or realm that we do not follow."""
