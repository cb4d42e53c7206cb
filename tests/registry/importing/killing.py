"""An import that stops for ever at a named step, to be killed there: `killing.py DATA SOURCE STEP`."""

import asyncio
import sys
from pathlib import Path

from registry import app
from registry.importing.journal import Journal
from registry.importing.progress import Counts
from registry.importing.service import Import, take_over
from registry.importing.target import Bytes, Mode, Store
from registry.settings import Settings
from storage.repository.intake import Intake

BEFORE = {"link": (Intake, "share"), "record": (Intake, "record"), "put": (Store, "put"), "tags": (Store, "put_tags"),
          "backdate": (Store, "backdate")}
AFTER = {"linked": (Intake, "share"), "recorded": (Intake, "record"), "tagged": (Store, "put_tags")}


def stop_at(step: str) -> None:
    word, _, number = step.partition(":")
    kind, name = {**BEFORE, **AFTER}[word]
    method, left = getattr(kind, name), [int(number)]

    async def counted(*args, **kwargs):
        if word in BEFORE:
            await stop()
        result = await method(*args, **kwargs)
        if word in AFTER:
            await stop()
        return result

    async def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            print(step, flush=True)
            await asyncio.Event().wait()

    setattr(kind, name, counted)


async def main(data: str, source: str, step: str) -> None:
    stop_at(step)
    wanted = Import("distribution", source, Bytes(Mode.LINK), jobs=1)
    async with app.open_registry(Settings(data=Path(data)), migrate=False) as registry:
        await take_over(wanted, registry.content.manifests, registry.intake, registry.leases, Journal(), Counts())


asyncio.run(main(*sys.argv[1:]))
