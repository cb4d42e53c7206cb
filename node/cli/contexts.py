"""Docker's contexts: named hosts, kept in files that docker and seawall share ($DOCKER_CONFIG/contexts)."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.hosts import TlsFiles
from ocispec.errors import AlreadyExists, InvalidArgument, NotFound

DEFAULT = "default"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")


@dataclass(frozen=True, slots=True)
class Context:
    name: str
    host: str
    description: str = ""
    tls: TlsFiles | None = None


class Contexts:
    def __init__(self, folder: Path) -> None:
        """`folder` is Docker's configuration folder."""
        self._folder = folder

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Contexts":
        named = environment.get("DOCKER_CONFIG")
        return cls(Path(named) if named else Path(environment.get("HOME", "/root")) / ".docker")

    @property
    def current(self) -> str:
        value = self._config().get("currentContext")
        return value if isinstance(value, str) and value else DEFAULT

    def use(self, name: str) -> None:
        """Raises NotFound."""
        if name != DEFAULT:
            self.get(name)
        config = self._config()
        config.pop("currentContext", None)
        if name != DEFAULT:
            config["currentContext"] = name
        self._write(self._folder / "config.json", config)

    def get(self, name: str) -> Context:
        """Raises NotFound; InvalidArgument for a file that holds something else."""
        try:
            document = json.loads(self._meta(name).read_text())
            endpoint = document["Endpoints"]["docker"]
            description = document.get("Metadata", {}).get("Description", "")
            found = Context(document["Name"], endpoint["Host"], description, self._tls(name))
        except FileNotFoundError:
            raise NotFound(f'context "{name}": context not found') from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"{self._meta(name)} is no context: {error}") from error
        return found

    def all(self) -> Iterator[Context]:
        for file in sorted((self._folder / "contexts" / "meta").glob("*/meta.json")):
            name = json.loads(file.read_text()).get("Name", "")
            yield self.get(name)

    def create(self, context: Context) -> None:
        """Raises AlreadyExists, InvalidArgument."""
        check_name(context.name)
        if self._meta(context.name).exists():
            raise AlreadyExists(f'context "{context.name}" already exists')
        self.put(context)

    def put(self, context: Context) -> None:
        """Made or replaced; TLS files are copied. Raises InvalidArgument for one that cannot be read."""
        if context.tls is not None:
            folder = self._tls_folder(context.name)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for source, name in ((context.tls.authority, "ca.pem"), (context.tls.certificate, "cert.pem"),
                                 (context.tls.key, "key.pem")):  # fmt: skip
                _copy(source, folder / name)
        self._write(self._meta(context.name), {
            "Name": context.name,
            "Metadata": {"Description": context.description},
            "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": False}},
        })  # fmt: skip

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound, InvalidArgument (in use)."""
        if name == DEFAULT:
            raise InvalidArgument('context "default" cannot be removed')
        if name == self.current:
            if not force:
                raise InvalidArgument(f'context "{name}" is in use, set -f flag to force remove')
            self.use(DEFAULT)
        if not force:
            self.get(name)
        for folder in (self._meta(name).parent, self._tls_folder(name).parent):
            shutil.rmtree(folder, ignore_errors=True)

    def _tls(self, name: str) -> TlsFiles | None:
        folder = self._tls_folder(name)
        return TlsFiles.of_folder(folder) if folder.is_dir() else None

    def _meta(self, name: str) -> Path:
        return self._folder / "contexts" / "meta" / _key(name) / "meta.json"

    def _tls_folder(self, name: str) -> Path:
        return self._folder / "contexts" / "tls" / _key(name) / "docker"

    def _config(self) -> dict[str, Any]:
        try:
            value = json.loads((self._folder / "config.json").read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InvalidArgument(f"{self._folder / 'config.json'} is no JSON: {error}") from error
        return value if isinstance(value, dict) else {}

    def _write(self, file: Path, document: Mapping[str, Any]) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = file.with_name(file.name + ".new")
        new.write_text(json.dumps(document, indent=2))
        new.chmod(0o600)
        new.replace(file)


def check_name(name: str) -> None:
    """Raises InvalidArgument."""
    if name == DEFAULT:
        raise InvalidArgument('"default" is a reserved context name')
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f'context name "{name}" is invalid, names are validated against regexp "{_NAME.pattern}"')


def _copy(source: Path, target: Path) -> None:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{source}: {error.strerror}") from error
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
