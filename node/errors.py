"""Failures of the node as a whole; a room's own are declared beside their raiser."""

from ocispec.errors import FailedPrecondition, SeawallError


class StateTooNew(FailedPrecondition):
    """The state database was written by a later Seawall; this one would corrupt it and does not open it."""


class HomeBusy(FailedPrecondition):
    """Another daemon holds this home."""


class MissingPrivilege(FailedPrecondition):
    """The daemon lacks what it needs from the kernel; the message names it."""


class InternalError(SeawallError):
    """Something that should have worked did not, and no other kind says why (HTTP 500)."""
