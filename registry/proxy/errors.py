"""What can go wrong with an upstream, in the words of whoever asked us for its content."""

from ocispec.errors import InvalidArgument, PermissionDenied, SeawallError, Unavailable
from storage.remote import errors as remote


class UpstreamUnavailable(Unavailable):
    """It does not answer, or answers 5xx. `retry_after`: seconds until it is asked again."""

    def __init__(self, upstream: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"upstream {upstream} does not serve this now: {reason}")
        self.retry_after = retry_after


class UpstreamThrottled(UpstreamUnavailable):
    """It answered 429, and is left alone for a while."""


class UpstreamSlow(UpstreamUnavailable):
    """It took too long."""


class UpstreamBroken(Unavailable):
    """Its answer cannot be right."""

    def __init__(self, upstream: str, reason: str) -> None:
        super().__init__(f"upstream {upstream} gives a wrong answer: {reason}")


class UpstreamDenied(PermissionDenied):
    """It does not let us pull, or the settings do not."""


class PushRefused(PermissionDenied):
    """The name belongs to an upstream."""

    def __init__(self, repository: str, upstream: str) -> None:
        super().__init__(f"{repository} is pulled through from {upstream}: nothing can be pushed there")


def translated(upstream: str, error: SeawallError) -> SeawallError:
    """An error of storage.remote as ours; RemoteNotFound is for the caller, who knows what was asked for."""
    match error:
        case remote.RemoteThrottled():
            return UpstreamThrottled(upstream, error.message, error.retry_after)
        case remote.RemoteUnavailable():
            return UpstreamUnavailable(upstream, error.message)
        case remote.RemoteUnauthorized() | remote.RemoteDenied():
            return UpstreamDenied(f"upstream {upstream} does not let this registry pull: {error.message}")
        case remote.RemoteNotFound() | UpstreamUnavailable() | UpstreamBroken() | UpstreamDenied():
            return error
        case InvalidArgument():  # no manifest, another digest, a length or range or redirect that cannot be
            return UpstreamBroken(upstream, error.message)
    return error
