"""The instructions as values: what each of them says, with its flags, before variables are replaced.

`of` judges a parsed line; a text that may hold variables is kept as it was written, for `expanded` to replace once the
stage and its environment are known. A flag that is not known is refused, never passed over.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Self

from node.dockerfile.document import Heredoc, Instruction, heredoc_of
from node.dockerfile.errors import InvalidInstruction
from node.dockerfile.flags import Flags
from node.dockerfile.runmounts import RunMount, parse_mount

Word = Callable[[str], str]
"""Quotes away, variables replaced."""

STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
NETWORKS = ("default", "none", "host")
SECURITY = ("sandbox", "insecure")


@dataclass(frozen=True, slots=True)
class From:
    image: str
    """scratch, a stage or a reference."""

    name: str
    """Of this stage; empty: none."""

    platform: str


@dataclass(frozen=True, slots=True)
class Arg:
    """`None`: declared without a default."""

    names: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env:
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label:
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """`words`: as they are executed; or one text for the shell."""

    words: tuple[str, ...]
    exec_form: bool


@dataclass(frozen=True, slots=True)
class Run:
    command: Command
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Files:
    """COPY and ADD. A source that announced a heredoc is in `inline` by its place among the sources."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[Heredoc, ...] = ()
    add: bool = False
    source_stage: str = ""
    """--from: a stage, an image or a named context; empty: the build's own context."""

    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    """None: local archives are unpacked and downloads are not."""

    def expanded(self, word: Word, text: Word) -> Self:
        """`text`: variables replaced alone, quotes left."""
        return replace(self, sources=tuple(map(word, self.sources)), destination=word(self.destination),
                       chown=word(self.chown), chmod=word(self.chmod), checksum=word(self.checksum),
                       exclude=tuple(map(word, self.exclude)),
                       inline=tuple(replace(doc, content=text(doc.content) if doc.expand else doc.content)
                                    for doc in self.inline))


@dataclass(frozen=True, slots=True)
class Cmd:
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint:
    command: Command


@dataclass(frozen=True, slots=True)
class Expose:
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    user: str


@dataclass(frozen=True, slots=True)
class WorkDir:
    path: str


@dataclass(frozen=True, slots=True)
class StopSignal:
    signal: str


@dataclass(frozen=True, slots=True)
class Shell:
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Maintainer:
    name: str


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The line without its name, as `changes` carries it out."""

    text: str


@dataclass(frozen=True, slots=True)
class OnBuild:
    text: str
    """The trigger's line, for the builds that begin with this image."""


Typed = (From | Arg | Env | Label | Run | Files | Cmd | Entrypoint | Expose | Volume | User | WorkDir | StopSignal
         | Shell | Maintainer | HealthCheck | OnBuild)


def of(instruction: Instruction) -> Typed:
    """Raises InvalidInstruction."""
    reader = _READERS.get(instruction.name)
    if reader is None:
        near = get_close_matches(instruction.name, _READERS, n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InvalidInstruction(f"unknown instruction: {instruction.name[:50]}{hint}")
    flags = Flags(instruction.name, instruction.flags)
    found = reader(instruction, flags)
    flags.finish()
    return found


# -- one reader an instruction


def _from(line: Instruction, flags: Flags) -> From:
    platform = flags.text("platform")
    values = line.values
    if len(values) == 1:
        return From(values[0], "", platform)
    if len(values) != 3 or values[1].lower() != "as":
        raise InvalidInstruction("FROM requires either one or three arguments")
    name = values[2].lower()
    if not STAGE_NAME.fullmatch(name):
        raise InvalidInstruction(f'invalid name for build stage: "{values[2][:100]}", name can\'t start with a number '
                                 "or contain symbols")
    return From(values[0], name, platform)


def _arg(line: Instruction, _flags: Flags) -> Arg:
    _at_least_one(line)
    found: list[tuple[str, str | None]] = []
    for value in line.values:
        name, equals, default = value.partition("=")
        if not name:
            raise InvalidInstruction("ARG names can not be blank")
        found.append((name, default if equals else None))
    return Arg(tuple(found))


def _pairs(line: Instruction) -> tuple[tuple[str, str], ...]:
    _at_least_one(line)
    found = tuple(zip(line.values[::2], line.values[1::2], strict=True))
    if any(not name for name, _ in found):
        raise InvalidInstruction(f"{line.name} names can not be blank")
    return found


def _env(line: Instruction, _flags: Flags) -> Env:
    return Env(_pairs(line))


def _label(line: Instruction, _flags: Flags) -> Label:
    return Label(_pairs(line))


def _run(line: Instruction, flags: Flags) -> Run:
    mounts = tuple(parse_mount(text) for text in flags.texts("mount"))
    network = flags.choice("network", NETWORKS)
    security = flags.choice("security", SECURITY)
    if not line.values:
        raise InvalidInstruction("RUN requires at least one argument")
    return Run(Command(line.values, line.exec_form), mounts, network, security, line.heredocs)


def _files(line: Instruction, flags: Flags) -> Files:
    add = line.name == "ADD"
    # Values are read before sources are judged, so that a wrong flag is told first.
    plain = Files((), "", add=add, chown=flags.text("chown"), chmod=flags.text("chmod"), link=flags.boolean("link"),
                  parents=not add and flags.boolean("parents"), exclude=flags.texts("exclude"),
                  source_stage="" if add else flags.text("from"),
                  checksum=flags.text("checksum") if add else "",
                  keep_git_dir=add and flags.boolean("keep-git-dir"),
                  unpack=flags.maybe("unpack") if add else None)
    if len(line.values) < 2:
        raise InvalidInstruction(f"{line.name} requires at least two arguments, but only {len(line.values)} was "
                                 "provided. Destination could not be determined")
    *sources, destination = line.values
    if heredoc_of(destination) is not None and line.heredocs:
        raise InvalidInstruction(f"{line.name} cannot accept a heredoc as a destination")
    inline = [replace(doc, content=doc.chomped) for doc in line.heredocs]
    named = [source for source in sources if not (inline and heredoc_of(source) is not None)]
    if len(sources) > 1 and not destination.endswith("/") and not _has_variable(destination):
        raise InvalidInstruction(f"When using {line.name} with more than one source file, the destination must be a "
                                 "directory and end with a /")
    return replace(plain, sources=tuple(named), destination=destination, inline=tuple(inline))


def _has_variable(text: str) -> bool:
    return "$" in text or text in (".", "..") or text.endswith(("/.", "/.."))


def _command(line: Instruction) -> Command:
    return Command(line.values, line.exec_form)


def _cmd(line: Instruction, _flags: Flags) -> Cmd:
    return Cmd(_command(line))


def _entrypoint(line: Instruction, _flags: Flags) -> Entrypoint:
    return Entrypoint(_command(line))


def _expose(line: Instruction, _flags: Flags) -> Expose:
    _at_least_one(line)
    return Expose(line.values)


def _volume(line: Instruction, _flags: Flags) -> Volume:
    _at_least_one(line)
    if not all(value.strip() for value in line.values):
        raise InvalidInstruction("VOLUME specified can not be an empty string")
    return Volume(line.values)


def _user(line: Instruction, _flags: Flags) -> User:
    return User(_one(line))


def _workdir(line: Instruction, _flags: Flags) -> WorkDir:
    return WorkDir(_one(line))


def _stopsignal(line: Instruction, _flags: Flags) -> StopSignal:
    return StopSignal(_one(line))


def _shell(line: Instruction, _flags: Flags) -> Shell:
    if not line.exec_form or not line.values:
        raise InvalidInstruction("SHELL requires the arguments to be in JSON form")
    return Shell(line.values)


def _maintainer(line: Instruction, _flags: Flags) -> Maintainer:
    return Maintainer(_one(line))


def _healthcheck(line: Instruction, flags: Flags) -> HealthCheck:
    for name in ("interval", "timeout", "start-period", "start-interval", "retries"):
        flags.text(name)
    _at_least_one(line)
    kind = line.values[0].upper()
    if kind not in ("CMD", "NONE"):
        raise InvalidInstruction(f'Unknown type "{line.values[0][:50]}" in HEALTHCHECK (try CMD)')
    if kind == "NONE" and len(line.values) > 1:
        raise InvalidInstruction("HEALTHCHECK NONE takes no arguments")
    if kind == "CMD" and len(line.values) < 2:
        raise InvalidInstruction("Missing command after HEALTHCHECK CMD")
    return HealthCheck(re.sub(r"^\s*\S+\s+", "", line.original))


def _onbuild(line: Instruction, _flags: Flags) -> OnBuild:
    if line.trigger is None:
        raise InvalidInstruction("ONBUILD requires at least one argument")
    if line.trigger.name in ("ONBUILD", "FROM", "MAINTAINER"):
        text = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed" if line.trigger.name == "ONBUILD" else \
            f"{line.trigger.name} isn't allowed as an ONBUILD trigger"
        raise InvalidInstruction(text)
    # Wrong triggers are told to who writes them, not to who builds on the image.
    of(line.trigger)
    return OnBuild(re.sub(r"^\s*\S+\s+", "", line.original))


def _at_least_one(line: Instruction) -> None:
    if not line.values:
        raise InvalidInstruction(f"{line.name} requires at least one argument")


def _one(line: Instruction) -> str:
    if len(line.values) != 1 or not line.values[0]:
        raise InvalidInstruction(f"{line.name} requires exactly one argument")
    return line.values[0]


_READERS: Mapping[str, Callable[[Instruction, Flags], Typed]] = {
    "ADD": _files, "ARG": _arg, "CMD": _cmd, "COPY": _files, "ENTRYPOINT": _entrypoint, "ENV": _env,
    "EXPOSE": _expose, "FROM": _from, "HEALTHCHECK": _healthcheck, "LABEL": _label, "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild, "RUN": _run, "SHELL": _shell, "STOPSIGNAL": _stopsignal, "USER": _user, "VOLUME": _volume,
    "WORKDIR": _workdir,
}  # fmt: skip
