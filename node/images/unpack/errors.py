"""Why a layer was not unpacked. The worker sends the class's name and the message; `pool` raises it again."""

from ocispec.errors import InvalidArgument, ResourceExhausted, Unavailable, Unimplemented


class InvalidLayer(InvalidArgument):
    """The bytes are no layer: a broken archive or compression, a name that means nothing, a wrong media type."""


class LayerTooLarge(ResourceExhausted):
    """The layer unpacks to more bytes or entries than the settings allow."""


class LayerUnsupported(Unimplemented):
    """An archive feature or compression that nobody uses in images."""


class DiskFull(ResourceExhausted):
    """No space (or inodes) left where layers are unpacked."""


class UnpackFailed(Unavailable):
    """The worker died or met an error of the machine; trying again may help."""
