"""What `docker rmi` takes away, decided before anything is: pure rules over a catalog, with Docker's messages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from node.images.catalog import Catalog, NamedBy
from node.images.errors import ImageInUse
from node.images.image import UNNAMED, Image, Removal
from ocispec.reference import Tag


@dataclass(frozen=True, slots=True)
class Plan:
    """`names` go, in this order; `deletes`: nothing names the image any more."""

    image: Image
    names: tuple[NamedBy, ...]
    deletes: bool

    def lines(self) -> list[Removal]:
        lines = [Removal("Untagged", name.familiar()) for name in self.names if name.repository != UNNAMED]
        return [*lines, Removal("Deleted", str(self.image.id))] if self.deletes else lines


@dataclass(frozen=True, slots=True)
class Users:
    """The containers made from each image (by image id), and which of them run."""

    containers: Mapping[str, Sequence[str]]
    running: Collection[str]

    def of(self, image: Image) -> Sequence[str]:
        """Of the image and of its siblings for other platforms, which have no names of their own."""
        return [one for image_id in (image.id, *image.variants) for one in self.containers.get(str(image_id), ())]

    def running_one(self, image: Image) -> str | None:
        return next((container for container in self.of(image) if container in self.running), None)


def plan(catalog: Catalog, name: str, users: Users, *, force: bool) -> Plan:
    """Raises ImageNotFound, AmbiguousImage, ImageInUse."""
    image = catalog.find(name)
    names = list(catalog.references.get(image.id, ()))
    asked = catalog.named(name)
    if asked is None:
        return _by_id(image, names, users, force=force)
    return _by_reference(image, name, asked, names, users, force=force)


def _by_reference(image: Image, text: str, asked: NamedBy, names: list[NamedBy], users: Users, *,
                  force: bool) -> Plan:
    used = users.of(image)
    if used and not force and single_reference(names):
        raise ImageInUse(f'conflict: unable to remove repository reference "{text}" (must force) - container '
                         f"{used[0][:12]} is using its referenced image {image.id.short}")
    left = [one for one in names if one != asked]
    running = users.running_one(image)
    if running is not None and isinstance(asked.name, Tag):
        return Plan(image, (asked,), deletes=False)  # forced: the name goes, the digests keep the image
    going = [asked]
    if isinstance(asked.name, Tag) and not any(
            isinstance(one.name, Tag) and one.repository == asked.repository for one in left):
        # The digests under which it was pulled go with the repository's last tag.
        going += [one for one in left if one.repository == asked.repository]
        left = [one for one in left if one.repository != asked.repository]
    if running is not None and not left:
        raise _conflict(image, "cannot be forced", f"image is being used by running container {running[:12]}")
    return Plan(image, tuple(going), deletes=not left)


def _by_id(image: Image, names: list[NamedBy], users: Users, *, force: bool) -> Plan:
    running = users.running_one(image)
    if running is not None:
        raise _conflict(image, "cannot be forced", f"image is being used by running container {running[:12]}")
    if not force:
        if not single_reference(names):
            raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
        if users.of(image):
            raise _conflict(image, "must be forced",
                            f"image is being used by stopped container {users.of(image)[0][:12]}")
    return Plan(image, tuple(names), deletes=True)


def single_reference(names: Sequence[NamedBy]) -> bool:
    """At most one tag, and every digest in the same repository as that tag."""
    tags = [one for one in names if isinstance(one.name, Tag)]
    return len(tags) <= 1 and len({one.repository for one in names}) <= 1


def _conflict(image: Image, how: str, why: str) -> ImageInUse:
    return ImageInUse(f"conflict: unable to delete {image.id.short} ({how}) - {why}")
