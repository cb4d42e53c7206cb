"""What containers tell the event bus, with the attributes Docker gives them."""

from collections.abc import Mapping

from node.containers.model import Container
from node.events import Event, EventBus


class News:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def tell(self, container: Container, action: str, attributes: Mapping[str, str] | None = None) -> None:
        about = {**container.spec.labels, "image": container.image, "name": container.name, **(attributes or {})}
        self._bus.publish(Event("container", action, container.id, about))
