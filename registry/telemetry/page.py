"""The document behind `/metrics`."""

import asyncio
from functools import partial

from registry.telemetry.exposition import exposition
from registry.telemetry.readings import Readings
from registry.telemetry.worker import Numbers


class MetricsPage:
    def __init__(self, numbers: Numbers, readings: Readings) -> None:
        self._numbers = numbers
        self._readings = readings

    async def __call__(self, accept: str) -> tuple[bytes, str]:
        """The document in a form that an `Accept` header asks for, and its content type."""
        readings = await self._readings.read()
        make = partial(exposition, self._numbers.board, self._numbers.families, readings, accept)
        return await asyncio.to_thread(make)  # some ten milliseconds that others need not wait for
