"""One stage, instruction by instruction: each either only says something or makes a layer, and is taken from the cache
when a step with the same key was carried out before."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from node.build import metadata
from node.build.copying import Context, Copier, From, Layers, is_remote
from node.build.results import Results
from node.build.roots import Roots
from node.build.running import STUBS, Job, Runner, with_mounts
from node.build.values import Output, Request, State, StepFailed, digest_of
from node.containers import clock
from node.containers.mountspec import MountSpec
from node.dockerfile import shell, typed
from node.dockerfile.changes import environment
from node.dockerfile.document import parse
from node.dockerfile.errors import InvalidDockerfile, InvalidInstruction
from node.dockerfile.runmounts import RunMount
from node.dockerfile.stages import PREDEFINED, Step
from node.files.workers import Workers
from node.snapshots.store import RootSnapshots
from ocispec.errors import Unimplemented


class Sources(Protocol):
    """What --from and from= lead to, once it is there."""

    async def of(self, word: str) -> State | Context: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What stages are built with."""

    results: Results
    copier: Copier
    runner: Runner
    roots: Roots
    workers: Workers
    snapshots: RootSnapshots


@dataclass(slots=True)
class StageBuild:
    """`number` and `total` count the steps of the whole build for what is shown."""

    means: Means
    request: Request
    sources: Sources
    output: Output
    state: State
    escape: str
    global_arguments: Mapping[str, str]
    number: int
    total: int
    arguments: dict[str, str] = field(default_factory=dict)
    """Of the ARGs so far that have a value."""

    cmd_set: bool = False

    async def carry_out(self, steps: Sequence[Step]) -> State:
        """Raises InvalidDockerfile and StepFailed, with the line."""
        for step in [*self._triggers(), *steps]:
            self.number += 1
            self.output.stream(f"Step {self.number}/{self.total} : {_shown(step)}\n")
            try:
                await self._step(step)
            except InvalidInstruction as error:
                raise InvalidDockerfile(str(error), step.line.first) from error
            self.output.stream(f" ---> {self.state.short}\n")
        return self.state

    def _now(self) -> str:
        return moment(self.request)

    def _triggers(self) -> list[Step]:
        """ONBUILD of the base, carried out now and not handed on."""
        lines = self.state.config.get("OnBuild") or ()
        if not lines:
            return []
        self.state = replace(self.state, config={**self.state.config, "OnBuild": None})
        text = "\n".join(str(line) for line in lines)
        try:
            return [Step(line, typed.of(line)) for line in parse(text.encode()).instructions]
        except (InvalidDockerfile, InvalidInstruction) as error:
            raise StepFailed(f"a trigger of the base image: {error}") from error

    async def _step(self, step: Step) -> None:
        match step.says:
            case typed.Arg():
                self._arg(step.says)
            case typed.Run():
                await self._run(step.says)
            case typed.Files():
                await self._files(step.says, _shown(step))
            case typed.WorkDir():
                await self._workdir(step.says)
            case says:
                config, line = metadata.carried_out(self.state.config, says, self._word, cmd_set=self.cmd_set)
                self.cmd_set = self.cmd_set or isinstance(says, typed.Cmd)
                if isinstance(says, typed.Maintainer):
                    self.state = replace(self.state, author=says.name)
                self._tell(line, config)

    def _word(self, text: str) -> str:
        return shell.word(text, {**self.arguments, **environment(self.state.config)}, shell.Rules(self.escape))

    def _text(self, text: str) -> str:
        """Of a heredoc: its quotes are its own."""
        return shell.word(text, {**self.arguments, **environment(self.state.config)}, shell.Rules(plain_quotes=True))

    def _tell(self, line: str, config: Mapping[str, object] | None = None) -> None:
        entry = metadata.entry(self._now(), line)
        self.state = self.state.told(self.state.step("says", line), entry, config)

    def _arg(self, says: typed.Arg) -> None:
        given = {**self.request.options.platform_args, **self.request.options.build_args}
        words = []
        for name, default in says.names:
            if name in given:
                self.arguments[name] = given[name]
            elif default is not None:
                self.arguments[name] = self._word(default)
            elif name in self.global_arguments:
                self.arguments[name] = self.global_arguments[name]
            words.append(f"{name}={self.arguments[name]}" if name in self.arguments else name)
        # Its value counts where it is used: in RUN by the environment, elsewhere by what is made of it.
        entry = metadata.entry(self._now(), "ARG " + " ".join(words))
        self.state = self.state.told(self.state.key, entry)

    # -- layers

    async def _cached(self, key: str, config: Mapping[str, object] | None = None) -> bool:
        """Go on from what an earlier build made of this very step."""
        if self.request.no_cache:
            return False
        found = await self.means.results.find(key)
        if found is None or found.diff_ids[:len(self.state.diff_ids)] != self.state.diff_ids:
            return False
        self.output.stream(" ---> Using cache\n")
        self.state = replace(self.state, key=key, layers=found.layers, diff_ids=found.diff_ids,
                             history=(*self.state.history, found.history[-1]), created=found.created,
                             config=self.state.config if config is None else config)
        return True

    async def _run(self, says: typed.Run) -> None:
        arguments = self._run_arguments()
        config = metadata.with_path(self.state.config)
        words = _command(says, config)
        mounts = [mount.expanded(self._word) for mount in says.mounts]
        async with AsyncExitStack() as stack:
            limits = self.request.limits
            network = limits.network if says.network == "default" else says.network
            key = self.state.step("run", words, sorted(arguments.items()), network, limits.extra_hosts, says.security,
                                  [await self._mount_key(mount) for mount in mounts], environment(config),
                                  self.request.epoch)
            entry = metadata.entry(self._now(), _run_line(words, arguments))
            if await self._cached(key):
                return
            if says.security == "insecure":
                raise StepFailed("security.insecure is not allowed: RUN --security=insecure needs an entitlement")
            job = await self._job(words, {**arguments, **self._proxies()}, config, says, mounts, stack)
            running = self.means.runner.run(job, self.request.limits, self.output,
                                            keep_failed=self.request.keep_failed)
            container = await stack.enter_async_context(running)
            stubs = [*(mount.target for mount in job.mounts), *(job.tmpfs or ()), *STUBS]
            await self._take_layer(container, key, entry, stubs)
            self.output.stream(f" ---> Removed intermediate container {container[:12]}\n")

    async def _job(self, words: tuple[str, ...], arguments: Mapping[str, str], config: Mapping[str, object],
                   says: typed.Run, mounts: Sequence[RunMount], stack: AsyncExitStack) -> Job:
        # Volumes of the image would swallow what RUN writes there.
        base = replace(self.state, config={"Env": config.get("Env")}, history=())
        image = await self.means.results.keep(base, digest_of("base", base.chain, base.config))
        held = environment(config)
        env = (*(f"{name}={value}" for name, value in arguments.items() if name not in held),)
        job = Job(str(image), words, env, str(config.get("User") or ""), str(config.get("WorkingDir") or "/"),
                  network=says.network)
        placed = [replace(mount, target=_absolute(mount.target, job)) for mount in mounts]
        caches = await self.means.runner.caches([mount for mount in placed if mount.kind == "cache"], stack)
        specs = [*caches, *[await self._mount(mount) for mount in placed if mount.kind == "bind"]]
        tmpfs = {_absolute(mount.target, job): f"size={mount.size}" if mount.size else "" for mount in mounts
                 if mount.kind == "tmpfs"}
        for mount in mounts:
            if mount.kind in ("secret", "ssh") and mount.required:
                raise StepFailed(f"{mount.kind} {mount.id or 'default'}: not found")
        return with_mounts(job, specs, tmpfs)

    async def _mount(self, mount: RunMount) -> MountSpec:
        if not mount.read_only:
            raise Unimplemented("RUN --mount=type=bind,rw is not supported yet")
        source = await self.sources.of(mount.source_stage)
        subpath = mount.source.strip("/")
        if isinstance(source, Context):
            return MountSpec("bind", mount.target, str(source.folder), read_only=True, subpath=subpath)
        image = await self.means.results.keep(source)
        return MountSpec("image", mount.target, str(image), read_only=True, subpath=subpath)

    async def _mount_key(self, mount: RunMount) -> object:
        plain = [mount.kind, mount.target, mount.source, mount.id, mount.read_only, mount.variable, mount.size]
        if mount.kind != "bind":
            return plain
        source = await self.sources.of(mount.source_stage)
        if isinstance(source, State):
            return [*plain, source.key]
        files = typed.Files((mount.source or "/",), "/")
        return [*plain, await self.means.copier.digest(source, files)]

    async def _files(self, says: typed.Files, shown: str) -> None:
        source = await self.sources.of(says.source_stage) if says.sources or says.source_stage else None
        files = says.expanded(self._word, self._text)
        destination = files.destination
        if not destination.startswith("/"):
            destination = f"{str(self.state.config.get('WorkingDir') or '/').rstrip('/')}/{destination}"
        files = replace(files, destination=destination)
        async with AsyncExitStack() as stack:
            fetched = [await self.means.copier.fetch(url, files.checksum, stack) for url in files.sources
                       if files.add and is_remote(url)]
            local = [path for path in files.sources if not (files.add and is_remote(path))]
            origin = _from(source) if source is not None and local else None
            contents = await self.means.copier.digest(origin, files) if origin is not None else ""
            key = self.state.step("files", files.add, contents, destination, files.chown, files.chmod, files.parents,
                                  len(files.sources), local, files.unpack, [(one.name, one.digest) for one in fetched],
                                  [(doc.name, doc.content) for doc in files.inline], self.request.epoch)
            entry = metadata.entry(self._now(), f"{shown} # buildkit")
            if await self._cached(key):
                return
            root = await stack.enter_async_context(self.means.roots.upon(self.state.chain))
            await self.means.copier.copy(origin, files, root, stack, fetched)
            await self._take_layer(root, key, entry, ())

    async def _workdir(self, says: typed.WorkDir) -> None:
        path = metadata.workdir(self.state.config, self._word(says.path))
        config = {**self.state.config, "WorkingDir": path}
        key = self.state.step("workdir", path, self.state.config.get("User") or "", self.request.epoch)
        line = f"WORKDIR {path}"
        if await self._cached(key, config):
            return
        if path == "/" or await self.means.copier.is_folder(self.state.chain, path):
            self.state = self.state.told(key, metadata.entry(self._now(), line), config)
            # Kept, so that the next build need not look.
            await self.means.results.keep(self.state)
            return
        owner = await self.means.copier.owner(self.state.chain, str(self.state.config.get("User") or ""))
        async with self.means.roots.upon(self.state.chain) as root:
            await self.means.copier.folder(root, path, owner)
            self.state = replace(self.state, config=config)
            await self._take_layer(root, key, metadata.entry(self._now(), line), ())

    async def _take_layer(self, root: str, key: str, entry: dict[str, object], stubs: Sequence[str]) -> None:
        difference = await self.means.snapshots.difference(root)
        if stubs and not difference.whole:
            await self.means.workers.tidy(difference, stubs)
        size = await self.means.snapshots.usage(root)
        epoch = self.request.epoch
        async with self.means.workers.layer(difference, epoch) as stream:
            # With times of its own the layer is not what lies on disk.
            made = await self.means.results.layer(self.state, key, entry, stream, root if epoch is None else "", size)
        self.state = made

    # -- RUN's environment

    def _run_arguments(self) -> dict[str, str]:
        held = environment(self.state.config)
        return {name: value for name, value in self.arguments.items() if name not in held}

    def _proxies(self) -> dict[str, str]:
        return {name: value for name, value in self.request.options.build_args.items() if name in PREDEFINED}


def moment(request: Request) -> str:
    """When a step is carried out: now, or what SOURCE_DATE_EPOCH says."""
    if request.epoch is None:
        return clock.now()
    return datetime.fromtimestamp(request.epoch, UTC).isoformat().replace("+00:00", "Z")


def _command(says: typed.Run, config: Mapping[str, object]) -> tuple[str, ...]:
    """With a heredoc, its text is the shell's script, or what the line reads."""
    if not says.heredocs:
        return tuple(metadata.words_of(says.command, config))
    line = says.command.words[0]
    if len(says.heredocs) == 1 and line.strip() in (f"<<{says.heredocs[0].name}", f"<<-{says.heredocs[0].name}",
                                                    f'<<"{says.heredocs[0].name}"', f"<<'{says.heredocs[0].name}'"):
        text = says.heredocs[0].chomped
        if text.startswith("#!"):
            raise Unimplemented("a heredoc of RUN that names its interpreter is not supported yet: call it in the line")
        return (*metadata.shell_of(config), text)
    bodies = "".join(f"\n{doc.content}{doc.name}" for doc in says.heredocs)
    return (*metadata.shell_of(config), line + bodies)


def _run_line(words: Sequence[str], arguments: Mapping[str, str]) -> str:
    given = "".join(f" {name}={value}" for name, value in arguments.items())
    return f"RUN {f'|{len(arguments)}{given} ' if arguments else ''}{' '.join(words)} # buildkit"


def _from(source: State | Context) -> From:
    return source if isinstance(source, Context) else Layers(source.chain)


def _absolute(path: str, job: Job) -> str:
    if path.startswith("/"):
        return path
    return f"{job.workdir.rstrip('/')}/{path}".rstrip("/") or job.workdir


def _shown(step: Step) -> str:
    return step.line.original.split("\n", 1)[0].strip()
