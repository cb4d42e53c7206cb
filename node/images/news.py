"""What happens to images, as events of Docker's kind: of names and images, not of layers."""

from collections.abc import Iterable, Mapping

from node.events import Event, EventBus
from node.images.image import Image, Removal


class ImageNews:
    def __init__(self, events: EventBus) -> None:
        self._events = events

    def tell(self, action: str, image: Image, name: str) -> None:
        self._events.publish(Event("image", action, str(image.id), _attributes(image, name)))

    def removed(self, removals: Iterable[Removal], images: Iterable[Image]) -> None:
        """`images` are those that were there before, which the lines are about."""
        by_id = {str(image.id): image for image in images}
        by_name = {name: image for image in by_id.values() for name in (*image.repo_tags, *image.repo_digests)}
        for removal in removals:
            deleted = removal.kind == "Deleted"
            image = by_id.get(removal.text) if deleted else by_name.get(removal.text)
            if image is not None:
                self.tell("delete" if deleted else "untag", image, str(image.id))

    def pruned(self, freed: int) -> None:
        self._events.publish(Event("image", "prune", "", {"reclaimed": str(freed)}))


def _attributes(image: Image, name: str) -> Mapping[str, str]:
    labels = image.config.config.get("Labels")
    said = {key: value for key, value in labels.items() if isinstance(value, str)} if isinstance(labels, dict) else {}
    return {**said, "name": name}
