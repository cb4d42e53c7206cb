"""A whole build: the stages that the target needs, side by side where they can be, and the image at the end."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from node.build import metadata
from node.build.copying import Context
from node.build.results import of_image
from node.build.stage import Means, StageBuild, moment
from node.build.turns import Turns
from node.build.values import Output, Request, State, StepFailed, digest_of
from node.dockerfile.document import parse
from node.dockerfile.errors import InvalidDockerfile
from node.dockerfile.stages import Needed, Plan, Script, Source, plan, script
from node.images.errors import ImageNotFound, PlatformMissing
from node.images.image import Image
from node.images.progress import Progress
from ocispec.descriptor import Platform
from ocispec.digest import Digest
from ocispec.errors import SeawallError
from ocispec.reference import Reference
from storage.remote.auth import Credentials


class Images(Protocol):
    """node.images.store.Images."""

    async def get(self, name_or_id: str, platform: Platform | None = None) -> Image: ...
    async def pull(self, reference: Reference, *, platform: Platform | None = None, auth: Credentials | None = None,
                   progress: Progress | None = None) -> Image: ...
    async def ensure_unpacked(self, image: Image) -> tuple[Digest, ...]: ...


class Builder:
    def __init__(self, means: Means, images: Images, platform: Platform) -> None:
        self._means = means
        self._images = images
        self._platform = platform

    async def build(self, request: Request, output: Output) -> Digest:
        """The id of the image. Raises InvalidDockerfile, StepFailed and what bases and files bring about; then there is
        no image, and what steps made so far is in the cache."""
        here = request.platform or self._platform
        known = {**platform_arguments(here, self._platform), **request.options.platform_args}
        request = replace(request, options=replace(request.options, platform_args=known), epoch=_epoch(request))
        # A hostile file takes a while.
        whole = await asyncio.to_thread(lambda: script(parse(request.dockerfile)))
        for line, text in whole.warnings:
            output.stream(f"[Warning] line {line}: {text}\n")
        wanted = plan(whole, request.options)
        self._told_unused(whole, request, output)
        with self._means.results.building():
            return await self._carried_out(request, here, whole, wanted, output)

    async def _carried_out(self, request: Request, here: Platform, whole: Script, wanted: Plan,
                           output: Output) -> Digest:
        state = await _Run(self._means, self._images, here, request, whole, wanted, output).state()
        if request.labels:
            told = "LABEL " + " ".join(f"{name}={value}" for name, value in request.labels.items())
            labels = {**(state.config.get("Labels") or {}), **request.labels}
            state = state.told(state.step("says", told), metadata.entry(moment(request), told),
                               {**state.config, "Labels": labels})
        state = replace(state, config=metadata.with_path(state.config))
        return await self._finish(request, state, output)

    async def _finish(self, request: Request, state: State, output: Output) -> Digest:
        """Built again from the cache it is the same image, to the byte."""
        final = f"{state.step('image', request.labels)}"
        kept = None if request.no_cache else await self._means.results.find(final)
        if (kept is None or kept.diff_ids != state.diff_ids or kept.config != _plain(state)
                or _said(kept) != _said(state)):
            await self._means.results.keep(state, final)
            kept = state
        identity = await self._means.results.finish(kept, request.tags)
        output.aux({"ID": str(identity)})
        output.stream(f"Successfully built {identity.encoded[:12]}\n")
        for tag in request.tags:
            output.stream(f"Successfully tagged {tag.with_default_tag().familiar()}\n")
        return identity

    @staticmethod
    def _told_unused(whole: Script, request: Request, output: Output) -> None:
        declared = {name for says in whole.arguments for name, _ in says.names}
        for stage in whole.stages:
            declared |= {name for step in stage.steps for name, _ in getattr(step.says, "names", ())}
        unused = sorted(name for name in request.options.build_args
                        if name not in declared and name.lower() not in _ALWAYS)
        if unused:
            output.stream(f"[Warning] One or more build-args {unused} were not consumed\n".replace("'", ""))


_ALWAYS = frozenset(("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "source_date_epoch"))


def _epoch(request: Request) -> int | None:
    """Raises StepFailed."""
    text = request.options.build_args.get("SOURCE_DATE_EPOCH", "")
    if text and not (text.isdecimal() and len(text) < 12):
        raise StepFailed(f"invalid SOURCE_DATE_EPOCH: {text[:50]!r} is no number of seconds")
    return int(text) if text else None


def _said(state: State) -> list[object]:
    return [entry.get("created_by") for entry in state.history]


def _plain(state: State) -> Mapping[str, Any]:
    return {key: value for key, value in state.config.items() if value not in (None, "", [], {}, ())}


class _Run:
    """One build under way: each needed stage is a task that waits for those it needs."""

    def __init__(self, means: Means, images: Images, platform: Platform, request: Request, whole: Script, wanted: Plan,
                 output: Output) -> None:  # fmt: skip
        self._means = means
        self._images = images
        self._platform = platform
        self._request = request
        self._whole = whole
        self._plan = wanted
        self._turns = Turns(output, len(wanted.needed))
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._pulls: dict[tuple[str, str], asyncio.Task[State]] = {}

    @property
    def context(self) -> Path | None:
        return self._request.context

    @property
    def hidden(self) -> tuple[str, ...]:
        return self._request.hidden

    async def state(self) -> State:
        """Of the target."""
        number, total = 0, sum(len(needed.stage.steps) + 1 for needed in self._plan.needed)
        try:
            for place, needed in enumerate(self._plan.needed):
                work = self._stage(needed, place, number, total)
                self._stages[needed.stage.number] = asyncio.ensure_future(work)
                number += len(needed.stage.steps) + 1
            tasks = [*self._stages.values()]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task in done and task.exception() is not None:
                    raise task.exception() or AssertionError
            return tasks[-1].result()
        finally:
            everything = [*self._stages.values(), *self._pulls.values()]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def _stage(self, needed: Needed, place: int, number: int, total: int) -> State:
        output = self._turns.of(place)
        platform = Platform.parse(needed.platform) if needed.platform else self._platform
        base = await self.source(needed.base, platform, output, needed.stage.line.first)
        assert isinstance(base, State)
        output.stream(f"Step {number + 1}/{total} : {needed.stage.line.original.strip()}\n")
        output.stream(f" ---> {base.short}\n")
        stage = StageBuild(
            self._means, self._request, _Sources(self, needed, platform, output), output, base,
            self._whole.escape, self._plan.arguments, number + 1, total,
        )  # fmt: skip
        try:
            state = await stage.carry_out(needed.stage.steps)
        except SeawallError:
            self._turns.show(place)
            raise
        self._turns.end(place)
        return state

    async def source(self, source: Source, platform: Platform, output: Output, line: int) -> State:
        if source.stage is not None:
            # The one that is waited for may be cancelled with the build alone.
            return await asyncio.shield(self._stages[source.stage])
        if source.context:
            raise InvalidDockerfile(f"the named context {source.context} cannot be used as a base yet", line)
        if not source.image:
            return State(digest_of("scratch", str(platform)), {}, platform)
        key = (source.image, str(platform))
        if key not in self._pulls:
            self._pulls[key] = asyncio.ensure_future(self._image(source.image, platform, output, line))
        return await asyncio.shield(self._pulls[key])

    async def _image(self, name: str, platform: Platform, output: Output, line: int) -> State:
        try:
            image = await self._found(name, platform, output)
            await self._images.ensure_unpacked(image)
        except SeawallError as error:
            raise StepFailed(f"failed to get {name} (line {line}): {error.message}") from error
        return of_image(image)

    async def _found(self, name: str, platform: Platform, output: Output) -> Image:
        if not self._request.pull:
            try:
                return await self._images.get(name, platform)
            except (ImageNotFound, PlatformMissing):
                pass
        reference = Reference.parse(name).with_default_tag()
        auth = self._request.credentials.get(reference.domain)
        return await self._images.pull(reference, platform=platform, auth=auth, progress=output)


class _Sources:
    """What --from leads to in one stage."""

    def __init__(self, run: _Run, needed: Needed, platform: Platform, output: Output) -> None:
        self._run = run
        self._needed = needed
        self._platform = platform
        self._output = output

    async def of(self, word: str) -> State | Context:
        if not word:
            context = self._run.context
            if context is None:
                raise StepFailed("this build has no context to copy from")
            return Context(context, self._run.hidden)
        if word not in self._needed.uses:
            # Of a trigger or with a variable: what the plan does not know.
            raise StepFailed(f"--from={word[:100]}: only what the Dockerfile itself names can be copied from")
        return await self._run.source(self._needed.uses[word], self._platform, self._output,
                                       self._needed.stage.line.first)


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    """BUILDPLATFORM, TARGETPLATFORM and their parts."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found |= {f"{prefix}PLATFORM": str(platform), f"{prefix}OS": platform.os,
                  f"{prefix}ARCH": platform.architecture, f"{prefix}VARIANT": platform.variant}
    return found
