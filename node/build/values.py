"""What a build is asked for, what it stands on between two steps, and how it fails."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from node.containers.model import Resources
from node.dockerfile.stages import Options
from ocispec.descriptor import Descriptor, Platform
from ocispec.digest import Digest
from ocispec.errors import InvalidArgument
from ocispec.image import chain_ids
from ocispec.reference import Reference
from storage.remote.auth import Credentials


class StepFailed(InvalidArgument):
    """An instruction could not be carried out. `code`: of a RUN whose command said so, else 1."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Output(Protocol):
    """Where a build says what it does (node.api.progress.Lines)."""

    async def ready(self) -> None:
        """Until there is room for more: a command is read no faster than its output is taken."""
        ...

    def stream(self, text: str) -> None: ...
    def aux(self, value: Mapping[str, Any]) -> None: ...
    def status(self, text: str, id: str = "") -> None: ...  # noqa: A002 - the wire's own name
    def layer(self, id: str, status: str, current: int = 0, total: int = 0) -> None: ...  # noqa: A002


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Of the containers that RUN is carried out in."""

    resources: Resources = field(default_factory=Resources)
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    cgroup_parent: str = ""
    security_opt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    dockerfile: bytes
    context: Path | None
    """The build's own context, a folder; None: there is none."""

    options: Options = field(default_factory=Options)
    tags: tuple[Reference, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    no_cache: bool = False
    pull: bool = False
    """Bases are looked for at their registries even when they are here."""

    limits: RunLimits = field(default_factory=RunLimits)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    """By registry."""

    epoch: int | None = None
    """SOURCE_DATE_EPOCH: seconds; nothing in the image is younger, whenever it is built."""

    keep_failed: bool = False
    """The container of a RUN that failed is left."""

    hidden: tuple[str, ...] = ()
    """Paths of the context that no COPY sees."""


@dataclass(frozen=True, slots=True)
class State:
    """An image in the making. `key` stands for everything that led here."""

    key: str
    config: Mapping[str, Any]
    platform: Platform
    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    created: str = ""
    author: str = ""
    docker: bool = False
    """Its manifest is of Docker's type, as that of its base."""

    @property
    def chain(self) -> tuple[Digest, ...]:
        return chain_ids(self.diff_ids)

    @property
    def short(self) -> str:
        """What is shown of the key: of a base image, its id."""
        return self.key.removeprefix("image sha256:")[:12]

    def step(self, *parts: object) -> str:
        """The key after a step that these parts say everything about."""
        return digest_of(self.key, *parts)

    def told(self, key: str, entry: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Self:
        """After a step that made no layer."""
        return replace(self, key=key, history=(*self.history, {**entry, "empty_layer": True}),
                       config=self.config if config is None else config, created=str(entry["created"]))

    def layered(self, key: str, entry: Mapping[str, Any], layer: Descriptor, diff_id: Digest) -> Self:
        return replace(self, key=key, history=(*self.history, entry), layers=(*self.layers, layer),
                       diff_ids=(*self.diff_ids, diff_id), created=str(entry["created"]))

    def document(self) -> bytes:
        """The image's configuration (OCI image-spec config.md)."""
        about = {"architecture": self.platform.architecture, "os": self.platform.os, "variant": self.platform.variant,
                 "created": self.created, "author": self.author}
        config = {key: value for key, value in self.config.items() if value not in (None, "", [], {}, ())}
        return json.dumps({**{key: value for key, value in about.items() if value}, "config": config,
                           "history": [dict(entry) for entry in self.history],
                           "rootfs": {"type": "layers", "diff_ids": [str(one) for one in self.diff_ids]}},
                          separators=(",", ":")).encode()


def digest_of(*parts: object) -> str:
    """sha256 in hex over JSON: lists keep their order, mappings do not have one."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
