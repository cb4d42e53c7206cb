"""What may be wrong with images; the messages are Docker's, as people and programs look for them."""

from ocispec.digest import Digest
from ocispec.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented


class ImageNotFound(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"No such image: {name}")


class AmbiguousImage(InvalidArgument):
    def __init__(self, prefix: str) -> None:
        super().__init__(f"multiple IDs found with provided prefix: {prefix}")


class PullFailed(NotFound):
    """The registry has no such image, or does not show it to us."""


class NoMatchingPlatform(NotFound):
    """The index has no image for the platform; Docker's wording."""


class PlatformMissing(NotFound):
    def __init__(self, name: str, platform: object) -> None:
        super().__init__(
            f"image with reference {name} was found but does not provide the specified platform ({platform})")


class OldManifest(Unimplemented):
    """A schema 1 manifest: its layers carry no digests of what they unpack to, and Docker has given it up too."""


class NotAnImage(InvalidArgument):
    """The manifest is of something else than a container image, or contradicts its own config."""


class DiffIdMismatch(InvalidArgument):
    def __init__(self, layer: Digest, expected: Digest, actual: Digest) -> None:
        super().__init__(f"layer {layer} unpacks to {actual}, but the image's config says diff_id {expected}")


class UnsupportedLayer(Unimplemented):
    """A layer whose media type we cannot unpack (encrypted, another compression)."""


class ImageInUse(FailedPrecondition):
    """A conflict on removal."""


class NothingToPush(NotFound):
    """No image under the name that should be pushed."""


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first in a group of tasks: the others were cancelled for it, and a user is told one thing."""
    first = group.exceptions[0]
    return first_failure(first) if isinstance(first, BaseExceptionGroup) else first
