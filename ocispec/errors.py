"""The kinds of failure. A specific error is declared beside the code that raises it and derives from one of
these; only the edge's middleware turns a kind into an HTTP status or an exit code."""


class SeawallError(Exception):
    """Base of every error a user may be shown.

    `message` is a complete sentence that names what was wrong. `detail` is optional machine-readable context
    (it lands in the `detail` field of a distribution-spec error body).
    """

    def __init__(self, message: str, *, detail: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class InvalidArgument(SeawallError):
    """What the caller sent cannot be right, whatever the state of the store."""


class NotFound(SeawallError):
    """What the caller named does not exist (or must not be known to the caller)."""


class AlreadyExists(SeawallError):
    """What the caller wants to create is there already."""


class FailedPrecondition(SeawallError):
    """The state of the store or container does not permit this now (a conflict)."""


class OutOfRange(SeawallError):
    """An offset or range lies outside what exists."""


class ResourceExhausted(SeawallError):
    """A limit was reached: body too large, disk full, no free address."""


class Unauthenticated(SeawallError):
    """The caller must say who it is, or said it wrongly."""


class PermissionDenied(SeawallError):
    """The caller is known and may not do this."""


class Unavailable(SeawallError):
    """A part that this depends on (upstream, kernel facility, database) does not answer; trying again may help."""


class Unimplemented(SeawallError):
    """Seawall does not do this yet, and says so rather than pretending."""
