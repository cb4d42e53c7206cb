"""What a registry says of an image, without pulling it (`docker manifest inspect`'s first question)."""

from dataclasses import dataclass

from node.images.catalog import is_image
from node.images.mirrors import Place
from node.images.pull import resolve_top
from ocispec import image as images
from ocispec.descriptor import Descriptor, Platform
from ocispec.image import ImageConfig
from ocispec.reference import Reference


@dataclass(frozen=True, slots=True)
class Distributed:
    """The descriptor that a name stands for, and the platforms it serves."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


async def inspect(place: Place, reference: Reference) -> Distributed:
    """Raises PullFailed, OldManifest and the remote's own errors."""
    async with place.remote:
        top = await resolve_top(place, reference)
        descriptor = Descriptor(top.manifest.media_type, top.digest, len(top.manifest.raw))
        if top.manifest.is_index:
            named = tuple(child.platform for child in top.manifest.children if child.platform is not None)
            return Distributed(descriptor, named)
        config = top.manifest.config
        if config is None or not is_image(top.manifest):
            return Distributed(descriptor, ())
        raw = await place.remote.small_blob(place.path, config, images.MAX_BYTES)
        return Distributed(descriptor, (ImageConfig.parse(raw).platform,))
