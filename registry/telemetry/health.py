"""Whether this worker should be sent requests."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from ocispec.errors import SeawallError

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]
"""Returns when all is well, raises when not."""

PATIENCE = 3.0
"""Seconds for one check: a database that answers later serves nobody."""

BELIEVED = 5.0
"""Seconds for which an answer is given again: a dozen load balancers ask each second."""


class Health:
    """`draining`: this worker is about to end; whoever asks should send requests elsewhere."""

    def __init__(self, checks: Mapping[str, Check], believed: float = BELIEVED) -> None:
        self._checks = dict(checks)
        self._believed = believed
        self._asked = asyncio.Lock()
        self._results: dict[str, bool] = {}
        self._at = float("-inf")
        self.draining = False

    async def results(self) -> Mapping[str, bool]:
        """Each check and whether it went well, not older than a few seconds."""
        async with self._asked:
            if time.monotonic() - self._at > self._believed:
                names = list(self._checks)
                found = await asyncio.gather(*(self._run(name) for name in names))
                self._results, self._at = dict(zip(names, found, strict=True)), time.monotonic()
        return {**self._results, "serving": not self.draining}

    async def _run(self, name: str) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._checks[name]()
        except TimeoutError:
            log.warning("not ready: %s gave no answer within %g s", name, PATIENCE)
        except SeawallError as error:
            log.warning("not ready: %s: %s", name, error.message)
        except Exception:
            log.exception("not ready: %s", name)
        else:
            return True
        return False
