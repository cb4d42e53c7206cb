"""What the node has, for the guard."""

from collections.abc import Mapping

from node.api.parts import Catalogue, Execs, Networks, Volumes


class NodeThings:
    def __init__(self, catalogue: Catalogue, execs: Execs, networks: Networks, volumes: Volumes) -> None:
        self._catalogue = catalogue
        self._execs = execs
        self._networks = networks
        self._volumes = volumes

    async def container(self, name: str) -> tuple[str, Mapping[str, str]]:
        container = await self._catalogue.get(name)
        return container.id, container.spec.labels

    async def network(self, name: str) -> tuple[str, Mapping[str, str]]:
        network = self._networks.inspect(name)
        return network.id, getattr(network, "labels", {})

    async def volume(self, name: str) -> Mapping[str, str]:
        return (await self._volumes.inspect(name)).labels

    async def claim_volume(self, name: str, labels: Mapping[str, str]) -> None:
        await self._volumes.create(name, labels=labels, driver_opts={}, driver="")

    async def container_of_exec(self, exec_id: str) -> str:
        return self._execs.get(exec_id).container_id
