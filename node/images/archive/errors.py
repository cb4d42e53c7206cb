"""Why an archive is no image."""

from ocispec.errors import InvalidArgument, NotFound


class NotAnArchive(InvalidArgument):
    """It holds no image, or not all of one."""


class NothingOfPlatform(NotFound):
    """No image of the archive is for the platform that was asked for."""
