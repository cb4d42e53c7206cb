"""Beyond Docker: a container that has become unhealthy is ended, and started again as after any exit.

Opt-in, by the label on the container (or its image) or by the node's setting; the label has the last word. The back-off
and `on-failure`'s bound hold as for every other restart, and so does a stop that somebody asks for meanwhile.
"""

import logging

from node.containers.live import Live
from node.containers.model import RestartMode
from node.containers.stopping import Stopper
from node.containers.tasks import Tasks
from ocispec.errors import SeawallError

LABEL = "seawall.restart-unhealthy"
YES, NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})

log = logging.getLogger(__name__)


class Revival:
    def __init__(self, stopper: Stopper, tasks: Tasks, *, by_default: bool) -> None:
        self._stopper = stopper
        self._tasks = tasks
        self._by_default = by_default

    async def unhealthy(self, live: Live) -> None:
        """Told of the verdict by the health check, whose own task ends with the run."""
        if wanted(live, by_default=self._by_default):
            self._tasks.spawn(self._end(live), f"watch revival {live.id}")

    async def _end(self, live: Live) -> None:
        if live.stopping or live.removing or not live.state.running:
            return
        log.warning("container %s is unhealthy and is started again", live.container.name)
        live.revive = True
        try:
            await self._stopper.end_run(live)
        except SeawallError as error:
            live.revive = False
            log.warning("container %s: %s", live.container.name, error.message)


def wanted(live: Live, *, by_default: bool) -> bool:
    spec = live.container.spec
    said = spec.labels.get(LABEL, "").strip().lower()
    if spec.auto_remove or said in NO or (said not in YES and not by_default):
        return False
    bound = spec.restart.max_retries if spec.restart.mode is RestartMode.ON_FAILURE else 0
    return not bound or live.state.restart_count < bound
