"""`seawall cp`: where a copy goes, by docker's rules, and local files as archives."""

import base64
import json
import os
import posixpath
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from node.cli.output import human_size
from node.cli.session import Session, session
from node.client import DaemonError

_CHUNK = 1024 * 1024
_GO_DIR, _GO_LINK = 1 << 31, 1 << 27
_STAT = "x-docker-container-path-stat"


@dataclass(frozen=True, slots=True)
class Place:
    """`container` is empty for a local path. `contents`: the path ends in `/.`: what is in it, not it itself."""

    container: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """`CONTAINER:PATH`, or a local path when it begins with `/` or `.` or has no colon."""
        name, colon, path = text.partition(":")
        if text.startswith(("/", ".")) or not colon or not name or "/" in name:
            return cls("", text)
        return cls(name, path if path.startswith("/") else f"/{path}")

    @property
    def contents(self) -> bool:
        return self.path.endswith("/.") or self.path == "."

    @property
    def name(self) -> str:
        return posixpath.basename(posixpath.normpath(self.path)) or "/"


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Give what is copied into a container to its user.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a symbolic link at the source leads to.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was copied.")
@click.argument("source", metavar="CONTAINER:PATH|PATH|-")
@click.argument("target", metavar="CONTAINER:PATH|PATH|-")
@session
def cp(session: Session, archive: bool, follow_link: bool, quiet: bool, source: str, target: str) -> None:
    """Copy files between a container and this machine."""
    here, there = Place.parse(source), Place.parse(target)
    if here.container and there.container:
        raise click.UsageError("copying between containers is not supported")
    if not here.container and not there.container:
        raise click.UsageError("must specify at least one container source")
    copier = Copier(session, follow=follow_link, as_user=archive)
    size = copier.out(here, there.path) if here.container else copier.into(here.path, there)
    if not quiet and "-" not in (source, target):
        click.echo(f"Successfully copied {human_size(size)} to {target}", err=True)


class Copier:
    def __init__(self, session: Session, *, follow: bool, as_user: bool) -> None:
        self._client = session.client
        self._follow = follow
        self._as_user = as_user

    # -- out of a container

    def out(self, source: Place, target: str) -> int:
        """Bytes copied."""
        if self._follow and (stat := self._stat(source)) and stat["mode"] & _GO_LINK:
            return self._take(Place(source.container, stat["linkTarget"]), source.name, target)
        return self._take(source, source.name, target)

    def _take(self, source: Place, name: str, target: str) -> int:
        path = f"/containers/{source.container}/archive"
        chunks = self._client.stream("GET", path, {"path": source.path})
        if target == "-":
            return sum(sys.stdout.buffer.write(chunk) for chunk in chunks)
        with tarfile.open(fileobj=Reader(chunks), mode="r|", bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
            return self._extract(source, name, target, archive)

    def _extract(self, source: Place, name: str, target: str, archive: tarfile.TarFile) -> int:
        size, place = 0, None
        for member in archive:
            if place is None:
                place = destination(member, "." if source.contents else name.strip("/") or ".", target)
            folder, called = place
            size += member.size
            renamed = rebased(member, called)
            if renamed is not None:
                archive.extract(renamed, folder, set_attrs=not renamed.issym(), filter=contained)
        return size

    # -- into a container

    def into(self, source: str, target: Place) -> int:
        folder = self._landing(target)
        if source == "-":
            if folder is None or not folder[1]:
                raise click.ClickException(f'destination "{target.container}:{target.path}" must be a directory')
            return self._put(target.container, folder[0], lambda write: copy(sys.stdin.buffer, write))
        local = Path(source)
        if self._follow:
            local = local.resolve()
        if not os.path.lexists(source):
            raise click.ClickException(f"lstat {source}: no such file or directory")
        where, name = self._name(local, source, target, folder)
        return self._put(target.container, where, lambda write: pack(local, name, write))

    def _landing(self, target: Place) -> tuple[str, bool] | None:
        """What is at the target, links followed, and whether it is a directory; None: nothing."""
        stat = self._stat(target)
        if stat is None:
            return None
        if stat["mode"] & _GO_LINK:
            target = Place(target.container, stat["linkTarget"])
            stat = self._stat(target)
        return target.path, stat is not None and bool(stat["mode"] & _GO_DIR)

    def _name(self, local: Path, source: str, target: Place, folder: tuple[str, bool] | None) -> tuple[str, str]:
        """The directory to put into, and what the source is called there (`.`: its contents alone)."""
        is_folder = local.is_dir() and not (local.is_symlink() and not source.endswith("/"))
        if folder is not None and folder[1]:
            return folder[0], "." if Place("", source).contents else local.name or Path.cwd().name
        if folder is not None and is_folder:
            raise click.ClickException("cannot copy directory")
        if folder is None and not is_folder and target.path.endswith("/"):
            raise click.ClickException("no such directory")
        path = posixpath.normpath(folder[0] if folder is not None else target.path)
        return posixpath.dirname(path), posixpath.basename(path)

    def _put(self, container: str, folder: str, produce: Callable[[Callable[[bytes], None]], int]) -> int:
        sizes: list[int] = []
        query = {"path": folder, "noOverwriteDirNonDir": "true", "copyUIDGID": self._as_user}
        list(self._client.upload("PUT", f"/containers/{container}/archive", query,
                                 lambda write: sizes.append(produce(write))))  # fmt: skip
        return sum(sizes)

    def _stat(self, place: Place) -> dict[str, Any] | None:
        try:
            connection, head = self._client.begin("HEAD", f"/containers/{place.container}/archive",
                                                  {"path": place.path})  # fmt: skip
        except DaemonError as error:
            if error.status != 404:
                raise
            self._client.json("GET", f"/containers/{place.container}/json")  # is it the container that is not there?
            return None
        connection.socket.close()
        stat: dict[str, Any] = json.loads(base64.b64decode(head.headers[_STAT]))
        return stat


def destination(member: tarfile.TarInfo, name: str, text: str) -> tuple[Path, str]:
    """The local folder to extract into, and what the archive's first member is called there: `name` in a folder that
    is there already, else what the target says."""
    target = Path(text)
    if target.is_dir():
        return target, name
    if target.exists() and member.isdir():
        raise click.ClickException("cannot copy directory")
    if text.endswith("/") and not member.isdir():
        raise click.ClickException("no such directory")
    if not target.parent.is_dir():
        raise click.ClickException(f"invalid output path: directory {str(target.parent)!r} does not exist")
    return target.parent, target.name


def rebased(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo | None:
    """The member under the new name of the archive's first; None for what is that itself and needs no making."""
    path = _moved(member.name, name)
    if path in ("", "."):
        return None
    link = _moved(member.linkname, name) if member.islnk() else member.linkname
    return member.replace(name=path, linkname=link, uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)


def _moved(path: str, name: str) -> str:
    _, _, rest = path.lstrip("/").partition("/") if not path.startswith("/") else ("", "", path.lstrip("/"))
    return posixpath.normpath(posixpath.join(name, rest))


def contained(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """The archive comes out of a container: no name of it leads out of the folder, also not through a link that it
    brought itself (tarfile's own check); modes stay what they are, as `docker cp` keeps them."""
    checked = tarfile.tar_filter(member, folder)
    return checked.replace(mode=member.mode, deep=False)


def pack(local: Path, name: str, write: Callable[[bytes], None]) -> int:
    """The file or tree as a tar, called `name`. Gives the bytes of its files."""
    size = 0

    def counted(member: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal size
        size += member.size
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=Writer(write), mode="w|", format=tarfile.PAX_FORMAT,  # type: ignore[call-overload]
                      bufsize=_CHUNK) as archive:  # fmt: skip
        archive.add(local, name, filter=counted)
    return size


def copy(file: Any, write: Callable[[bytes], None]) -> int:
    size = 0
    while data := file.read(_CHUNK):
        write(data)
        size += len(data)
    return size


class Reader:
    """Chunks as a file that tarfile reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:left], self._rest[left:]
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class Writer:
    """A file that tarfile writes to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)
