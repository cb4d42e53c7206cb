"""Stages, and which of them a target needs: a graph over `typed` instructions, without building anything.

A stage's base and what it copies or mounts from may be other stages, named contexts or images. Only what the target
needs, directly or not, is built; the rest of the file is read (its mistakes are told) and left alone.
"""

import graphlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from node.dockerfile import shell, typed
from node.dockerfile.document import Document, Instruction
from node.dockerfile.errors import InvalidDockerfile, InvalidInstruction

MAX_STAGES = 1000
SCRATCH = "scratch"
PREDEFINED = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)  # fmt: skip
"""Build arguments that need no ARG; they reach RUN and stay out of history and cache keys."""


@dataclass(frozen=True, slots=True)
class Step:
    line: Instruction
    says: typed.Typed


@dataclass(frozen=True, slots=True)
class Stage:
    number: int
    base: typed.From
    line: Instruction
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return self.base.name or str(self.number)


@dataclass(frozen=True, slots=True)
class Script:
    """A whole Dockerfile: the ARGs before the first FROM, and the stages."""

    arguments: tuple[typed.Arg, ...]
    stages: tuple[Stage, ...]
    escape: str
    directives: Mapping[str, str]
    warnings: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Exactly one is set: a stage of this file, a named context, an image's reference; none of them: scratch."""

    stage: int | None = None
    context: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Needed:
    """A stage that is to be built."""

    stage: Stage
    base: Source
    platform: str
    """As the FROM says it, variables replaced; empty: the target's."""

    uses: Mapping[str, Source]
    """By the word of --from or from=."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The needed stages, each after all that it needs; the last one is the target."""

    needed: tuple[Needed, ...]
    arguments: Mapping[str, str]
    """Global ARGs with their values, for stages that declare them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a build was asked for."""

    target: str = ""
    """A stage's name or number; empty: the last."""

    build_args: Mapping[str, str] = field(default_factory=dict)
    platform_args: Mapping[str, str] = field(default_factory=dict)
    """BUILDPLATFORM, TARGETPLATFORM, TARGETOS …: known in every FROM."""

    contexts: frozenset[str] = frozenset()
    """Names given by --build-context; they win over stages and images."""


def script(document: Document) -> Script:
    """Raises InvalidDockerfile."""
    arguments: list[typed.Arg] = []
    stages: list[Stage] = []
    steps: list[list[Step]] = []
    for line in document.instructions:
        try:
            says = typed.of(line)
        except InvalidInstruction as error:
            raise InvalidDockerfile(str(error), line.first) from error
        if isinstance(says, typed.From):
            if len(stages) == MAX_STAGES:
                raise InvalidDockerfile(f"more than {MAX_STAGES} stages", line.first)
            steps.append([])
            stages.append(Stage(len(stages), says, line, ()))
        elif stages:
            steps[-1].append(Step(line, says))
        elif isinstance(says, typed.Arg):
            arguments.append(says)
        else:
            raise InvalidDockerfile("no build stage in current context", line.first)
    if not stages:
        raise InvalidDockerfile("no build stage in current context")
    whole = tuple(replace(stage, steps=tuple(own)) for stage, own in zip(stages, steps, strict=True))
    return Script(tuple(arguments), whole, document.escape, document.directives, document.warnings)


def plan(script: Script, options: Options) -> Plan:
    """Raises InvalidDockerfile: a stage that does not exist, a circle, a FROM without a value."""
    arguments = _global_arguments(script, options)
    target = _target(script, options.target)
    resolved = {stage.number: _resolve(script, stage, {**options.platform_args, **arguments}, options)
                for stage in script.stages}
    wanted, graph = [target.number], {}
    while wanted:
        number = wanted.pop()
        if number not in graph:
            graph[number] = _stages_of(resolved[number])
            wanted += graph[number]
    try:
        order = tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        names = " -> ".join(script.stages[number].name for number in error.args[1])
        line = script.stages[error.args[1][0]].line.first
        raise InvalidDockerfile(f"circular dependency detected on stage: {names}", line) from error
    # The target depends on all others, so it comes last.
    return Plan(tuple(resolved[number] for number in order), arguments)


def _stages_of(needed: Needed) -> list[int]:
    return [source.stage for source in (needed.base, *needed.uses.values()) if source.stage is not None]


def _global_arguments(script: Script, options: Options) -> dict[str, str]:
    found: dict[str, str] = {}
    for argument in script.arguments:
        for name, default in argument.names:
            if name in options.build_args:
                found[name] = options.build_args[name]
            elif default is not None:
                try:
                    found[name] = shell.word(default, {**options.platform_args, **found}, shell.Rules(script.escape))
                except InvalidInstruction as error:
                    raise InvalidDockerfile(f"ARG {name}: {error}") from error
    return found


def _target(script: Script, name: str) -> Stage:
    if not name:
        return script.stages[-1]
    found = [stage for stage in script.stages if stage.base.name == name.lower()]
    if not found and name.isdecimal() and int(name) < len(script.stages):
        found = [script.stages[int(name)]]
    if not found:
        raise InvalidDockerfile(f"target stage {name[:100]!r} could not be found")
    return found[-1]


def _resolve(script: Script, stage: Stage, environment: Mapping[str, str], options: Options) -> Needed:
    rules = shell.Rules(script.escape)
    try:
        image = shell.word(stage.base.image, environment, rules)
        platform = shell.word(stage.base.platform, environment, rules)
        if not image:
            raise InvalidInstruction(f"base name ({stage.base.image}) should not be blank")
        if stage.base.platform and not platform:
            raise InvalidInstruction(f"empty platform value from expression {stage.base.platform}")
    except InvalidInstruction as error:
        raise InvalidDockerfile(str(error), stage.line.first) from error
    base = _base(script, stage, image, options)
    uses = {word: _used(script, stage, word, options) for word in _words(stage)}
    return Needed(stage, base, platform, uses)


def _base(script: Script, stage: Stage, image: str, options: Options) -> Source:
    """A base is an earlier stage, the last of that name."""
    if image == SCRATCH:
        return Source()
    if image in options.contexts:
        return Source(context=image)
    for earlier in reversed(script.stages[:stage.number]):
        if earlier.base.name and earlier.base.name == image.lower():
            return Source(stage=earlier.number)
    return Source(image=image)


def _words(stage: Stage) -> Iterator[str]:
    for step in stage.steps:
        if isinstance(step.says, typed.Files) and step.says.source_stage:
            yield step.says.source_stage
        elif isinstance(step.says, typed.Run):
            yield from (mount.source_stage for mount in step.says.mounts if mount.source_stage)


def _used(script: Script, stage: Stage, word: str, options: Options) -> Source:
    """A name may be that of a later stage; a number is that of an earlier one."""
    if word in options.contexts:
        return Source(context=word)
    for other in reversed(script.stages):
        if other.base.name and other.base.name == word.lower():
            return Source(stage=other.number)
    if word.isdecimal():
        if int(word) >= stage.number:
            raise InvalidDockerfile(f"invalid stage index {word} in stage {stage.name}: only earlier stages have one",
                                    stage.line.first)
        return Source(stage=int(word))
    return Source() if word == SCRATCH else Source(image=word)
