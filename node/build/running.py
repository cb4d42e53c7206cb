"""RUN: a container of the node, with its isolation and limits, upon what the steps before made."""

import asyncio
import contextlib
import os
import posixpath
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from node.build.values import Output, RunLimits, StepFailed, digest_of
from node.containers.errors import CannotInvoke
from node.containers.live import AttachStream, WaitResult
from node.containers.model import Container, Created, CreateSpec, Healthcheck, LogSpec, NetworkSpec, Security
from node.containers.mountspec import MountSpec
from node.dockerfile.runmounts import RunMount
from ocispec.errors import Unimplemented

STUBS = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/console", "/dev", "/proc", "/sys")
"""Places that a container is given: what was made only to mount over them is no part of the layer."""

LABEL, STEP = "io.seawall.build", "step"
AT_ONCE = 4
"""Of all builds together."""

_STRICTER = ("shared", "private", "locked")
_READ = 64 * 1024
_HEADER = 8


class Contained(Protocol):
    """node.containers.manager.Containers."""

    async def create(self, spec: CreateSpec) -> Created: ...
    async def start(self, name: str) -> bool: ...
    async def wait(self, name: str, condition: str = "not-running") -> "asyncio.Future[WaitResult]": ...
    async def attach(self, name: str, *, stdin: bool, stdout: bool, stderr: bool) -> AttachStream: ...
    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None: ...
    async def list(self, *, all: bool = False) -> Sequence[Container]: ...  # noqa: A002


@dataclass(frozen=True, slots=True)
class Job:
    """One RUN: `image` is the id of what it stands on."""

    image: str
    words: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    workdir: str
    mounts: tuple[MountSpec, ...] = ()
    network: str = "default"
    insecure: bool = False
    tmpfs: Mapping[str, str] | None = None


class Runner:
    def __init__(self, containers: Contained, caches: Path) -> None:
        self._containers = containers
        self._caches = caches
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def clear(self) -> None:
        """Remove containers of builds that ended with a daemon."""
        for container in await self._containers.list(all=True):
            if container.spec.labels.get(LABEL) == STEP:
                await self._remove(container.id)

    @asynccontextmanager
    async def run(self, job: Job, limits: RunLimits, output: Output, *, keep_failed: bool) -> AsyncIterator[str]:
        """The id of the container that did it and has ended; it is removed at the end. Raises StepFailed."""
        async with self._slots, self._ran(job, limits, output, keep_failed=keep_failed) as container:
            yield container

    @asynccontextmanager
    async def _ran(self, job: Job, limits: RunLimits, output: Output, *, keep_failed: bool) -> AsyncIterator[str]:
        created = await self._created(_spec(job, limits))
        failed = True
        try:
            output.stream(f" ---> Running in {created.id[:12]}\n")
            await self._carry_out(created.id, job, output)
            failed = False
            yield created.id
        finally:
            if not (failed and keep_failed):
                await asyncio.shield(self._remove(created.id))

    async def _created(self, spec: CreateSpec) -> Created:
        """Who is cancelled meanwhile leaves no container that nobody knows of."""
        creating = asyncio.ensure_future(self._containers.create(spec))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            await asyncio.wait({creating})
            if not creating.cancelled() and creating.exception() is None:
                await asyncio.shield(self._remove(creating.result().id))
            raise

    async def _start(self, container: str) -> None:
        """To its end: what has started half cannot be removed."""
        starting = asyncio.ensure_future(self._containers.start(container))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})
            raise

    async def _remove(self, container: str) -> None:
        await self._containers.remove(container, force=True, volumes=True)

    async def _carry_out(self, container: str, job: Job, output: Output) -> None:
        place = await self._containers.attach(container, stdin=False, stdout=True, stderr=True)
        shown = asyncio.ensure_future(_show(place, output))
        try:
            ended = await self._containers.wait(container, "next-exit")
            try:
                await self._start(container)
            except CannotInvoke as error:
                raise StepFailed(f"failed to run {_line(job.words)}: {error.message}", error.exit_code) from error
            result = await ended
            await shown
        finally:
            place.cancel()
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)
        if result.status_code:
            raise StepFailed(f"The command '{_line(job.words)}' returned a non-zero code: {result.status_code}",
                             result.status_code)

    # -- mounts

    async def caches(self, mounts: Sequence[RunMount], stack: AsyncExitStack) -> list[MountSpec]:
        """Folders that outlive the build, of one RUN. `locked`: one RUN at a time; `private`: a second one has its own.
        """
        asked: dict[str, str] = {}
        for mount in mounts:
            if mount.source or mount.source_stage:
                raise Unimplemented("RUN --mount=type=cache with from or source is not supported yet")
            asked[_cache(mount)] = max(asked.get(_cache(mount), "shared"), mount.sharing, key=_STRICTER.index)
        names = {name: name for name in asked}
        # Each once and in one order: no two RUNs wait for one another.
        for name, sharing in sorted(asked.items()):
            if sharing == "private" and self._locks[name].locked():
                names[name] = digest_of("private", name, id(stack))
            elif sharing != "shared":
                await stack.enter_async_context(self._locks[name])
        specs = []
        for mount in mounts:
            folder = self._caches / names[_cache(mount)]
            await asyncio.to_thread(_make_cache, folder, mount)
            specs.append(MountSpec("bind", _target(mount.target), str(folder), read_only=mount.read_only))
        return specs


def _cache(mount: RunMount) -> str:
    return digest_of("cache", mount.id or mount.target)


def _make_cache(folder: Path, mount: RunMount) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        os.chown(folder, mount.uid, mount.gid)
        folder.chmod(0o755 if mount.mode is None else mount.mode)


def _target(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _line(words: Sequence[str]) -> str:
    return " ".join(words)


def _spec(job: Job, limits: RunLimits) -> CreateSpec:
    return CreateSpec(
        image=job.image,
        cmd=job.words,
        entrypoint=(),
        env=job.env,
        workdir=job.workdir,
        user=job.user,
        labels={LABEL: STEP},
        healthcheck=Healthcheck(("NONE",)),
        mounts=job.mounts,
        tmpfs=job.tmpfs or {},
        resources=limits.resources,
        security=Security(privileged=job.insecure, security_opt=limits.security_opt),
        network=NetworkSpec(job.network if job.network != "default" else limits.network,
                            extra_hosts=limits.extra_hosts),
        log=LogSpec("none"),
        cgroup_parent=limits.cgroup_parent,
    )


async def _show(place: AttachStream, output: Output) -> None:
    """Both streams, in the order they come."""
    socket = await place.open()
    if socket is None:
        return
    reader, writer = await asyncio.open_unix_connection(sock=socket)
    try:
        while True:
            header = await reader.readexactly(_HEADER)
            left = int.from_bytes(header[4:], "big")
            while left:
                data = await reader.read(min(left, _READ))
                if not data:
                    return
                left -= len(data)
                output.stream(data.decode("utf-8", "replace"))
                await output.ready()
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


def with_mounts(job: Job, mounts: Sequence[MountSpec], tmpfs: Mapping[str, str]) -> Job:
    return replace(job, mounts=tuple(mounts), tmpfs=dict(tmpfs))
