"""Why nothing was copied. The worker sends the class's name and the message; `workers` raises it again."""

from ocispec.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unavailable


class PathMissing(NotFound):
    """Nothing is at that path of the container."""


class NotADirectory(InvalidArgument):
    """A directory was asked for and something else is there."""


class Misfit(InvalidArgument):
    """What the archive holds cannot be put there."""


class ReadOnly(PermissionDenied):
    """The place is mounted read-only."""


class NoSpace(ResourceExhausted):
    """No space (or inodes) left where the files go."""


class TooMuch(ResourceExhausted):
    """More than a worker takes: bytes, entries, depth, memory."""


class FilesFailed(Unavailable):
    """The worker died or met an error of the machine."""


KINDS = {kind.__name__: kind for kind in (PathMissing, NotADirectory, Misfit, ReadOnly, NoSpace, TooMuch)}
