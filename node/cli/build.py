"""`seawall build`: the context sent as a tar, without what .dockerignore leaves out."""

import base64
import contextlib
import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from node.cli.options import size, ulimit
from node.cli.registryauth import AuthStore
from node.cli.session import Session, session
from node.client import Produce
from node.dockerfile.document import parse
from node.dockerfile.errors import InvalidDockerfile
from node.dockerfile.ignore import Ignore
from node.dockerfile.stages import Options, plan, script
from ocispec.reference import InvalidReference, Reference

STDIN_FILE = ".dockerfile.stdin"
_REMOTE = ("http://", "https://", "git://", "git@", "github.com/")


class BuildFailed(click.ClickException):
    def __init__(self, message: str, code: int) -> None:
        """`code`: of the command that failed, where one did; it becomes the exit status."""
        super().__init__(message)
        setattr(self, "exit_code", code)  # noqa: B010 -- click reads it of the instance, its types say of the class


@click.command()
@click.option("-t", "--tag", "tags", metavar="NAME[:TAG]", multiple=True, help="Name the image; may be repeated.")
@click.option("-f", "--file", "file", metavar="FILE", help="The Dockerfile; - is standard input. [default: Dockerfile]")
@click.option("--build-arg", "build_args", metavar="NAME[=VALUE]", multiple=True,
              help="Set an ARG; without a value, from the environment.")  # fmt: skip
@click.option("--target", metavar="STAGE", help="Build this stage.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Label the image; may be repeated.")
@click.option("--no-cache", is_flag=True, help="Carry every step out.")
@click.option("--pull", is_flag=True, help="Look for newer bases at their registries.")
@click.option("-q", "--quiet", is_flag=True, help="Only print the image's id.")
@click.option("--rm/--no-rm", "remove", default=True, help="Remove the container of a RUN that failed. [default: rm]")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of the image.")
@click.option("--network", metavar="MODE", help="Network of RUN: default, none, host or a network's name.")
@click.option("--add-host", "hosts", metavar="NAME:IP", multiple=True, help="Add a host to /etc/hosts of RUN.")
@click.option("-m", "--memory", type=size, metavar="BYTES", help="Memory of RUN.")
@click.option("--memory-swap", type=size, metavar="BYTES", help="Memory and swap of RUN; -1 is unlimited.")
@click.option("--shm-size", type=size, metavar="BYTES", help="Size of /dev/shm in RUN.")
@click.option("--cpu-shares", type=int, metavar="N", help="Relative weight of RUN.")
@click.option("--cpu-quota", type=int, metavar="MICROSECONDS", help="CPU time of RUN in each period.")
@click.option("--cpu-period", type=int, metavar="MICROSECONDS", help="Length of a period.")
@click.option("--cpuset-cpus", metavar="LIST", help="CPUs of RUN, as 0-2,4.")
@click.option("--cpuset-mems", metavar="LIST", help="Memory nodes of RUN.")
@click.option("--ulimit", "ulimits", metavar="NAME=SOFT[:HARD]", multiple=True, help="Limit of RUN's processes.")
@click.option("--cgroup-parent", metavar="PATH", help="Parent cgroup of RUN.")
@click.option("--security-opt", "security", metavar="OPTION", multiple=True, help="Security option of RUN.")
@click.argument("context", metavar="PATH|URL|-")
@session
def build(session: Session, /, context: str, file: str | None, tags: Sequence[str], **asked: Any) -> None:
    """Build an image of a Dockerfile."""
    remote = context.startswith(_REMOTE)
    sending = _nothing if remote else _stream() if context == "-" else None
    name, dockerfile = file or "Dockerfile", b""
    if sending is None:
        folder = Path(context)
        if not folder.is_dir():
            raise click.ClickException(f"unable to prepare context: path {context!r} not found")
        name, dockerfile = _dockerfile(folder, file)
        sending = _packed(folder, name, dockerfile)
    query = _query(asked) | {"t": tuple(tags) or None, "dockerfile": name, "remote": context if remote else None}
    headers = {"X-Registry-Config": _logins(dockerfile, asked)}
    _show(session.client.upload("POST", "/build", query, sending, headers), quiet=asked["quiet"])


def _query(asked: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(_argument(text) for text in asked["build_args"])
    labels = dict((*text.split("=", 1), "")[:2] for text in asked["labels"])
    return {
        "q": asked["quiet"] or None, "nocache": asked["no_cache"] or None, "pull": asked["pull"] or None,
        "rm": asked["remove"], "forcerm": None, "target": asked["target"], "platform": asked["platform"],
        "networkmode": asked["network"], "extrahosts": ",".join(asked["hosts"]) or None,
        "memory": asked["memory"], "memswap": asked["memory_swap"], "shmsize": asked["shm_size"],
        "cpushares": asked["cpu_shares"], "cpuquota": asked["cpu_quota"], "cpuperiod": asked["cpu_period"],
        "cpusetcpus": asked["cpuset_cpus"], "cpusetmems": asked["cpuset_mems"],
        "cgroupparent": asked["cgroup_parent"], "buildargs": json.dumps(arguments) if arguments else None,
        "labels": json.dumps(labels) if labels else None,
        "ulimits": json.dumps([ulimit(text) for text in asked["ulimits"]]) if asked["ulimits"] else None,
        "securityopt": json.dumps(asked["security"]) if asked["security"] else None,
    }  # fmt: skip


def _argument(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


# -- the context


def _dockerfile(folder: Path, file: str | None) -> tuple[str, bytes]:
    """Its name in the context, and its text. One from elsewhere is sent beside the context's own files."""
    if file == "-":
        return STDIN_FILE, sys.stdin.buffer.read()
    path = folder / "Dockerfile" if file is None else Path(file)
    if file is not None and not path.is_file() and (folder / file).is_file():
        path = folder / file
    try:
        text = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read the Dockerfile {path}: {error.strerror}") from error
    inside = os.path.relpath(path.resolve(), folder.resolve())
    return (STDIN_FILE if inside.startswith("..") else inside), text


def _ignore(folder: Path, dockerfile: str) -> Ignore:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return Ignore.parse((folder / name).read_bytes())
    return Ignore([])


def _packed(folder: Path, dockerfile: str, text: bytes) -> Produce:
    ignore = _ignore(folder, dockerfile)

    def produce(write: Callable[[bytes], None]) -> None:
        with tarfile.open(fileobj=_Writer(write), mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path, entry in _walk(folder, "", ignore, dockerfile):
                _add(archive, path, entry)
            if dockerfile == STDIN_FILE:
                member = tarfile.TarInfo(dockerfile)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))

    return produce


def _walk(folder: Path, below: str, ignore: Ignore, dockerfile: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Files in order of their names, folders before what is in them. The Dockerfile and the list itself always go."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            path = f"{below}{entry.name}"
            out = ignore.leaves_out(path) and path not in (dockerfile, ".dockerignore", f"{dockerfile}.dockerignore")
            is_folder = entry.is_dir(follow_symlinks=False)
            if not out:
                yield path, entry
            if is_folder and (not out or ignore.takes_back or dockerfile.startswith(f"{path}/")):
                yield from _walk(Path(entry.path), f"{path}/", ignore, dockerfile)


def _add(archive: tarfile.TarFile, path: str, entry: "os.DirEntry[str]") -> None:
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISSOCK(info.st_mode):
        return
    member = archive.gettarinfo(entry.path, arcname=path)
    # The builder gives every file of a context to root.
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    # Each file by itself: two names of one file may be treated differently by the Dockerfile.
    if member.islnk():
        member.type, member.linkname, member.size = tarfile.REGTYPE, "", info.st_size
    if not member.isreg():
        archive.addfile(member)
        return
    with Path(entry.path).open("rb") as file:
        archive.addfile(member, file)


class _Writer(io.RawIOBase):
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._write(bytes(data))
        return len(data)


def _stream() -> Produce:
    """Of standard input: an archive as it is, a Dockerfile alone packed."""
    source: IO[bytes] = sys.stdin.buffer
    head = source.read(512)
    plain = b"\0" not in head and not head.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd"))

    def produce(write: Callable[[bytes], None]) -> None:
        if not plain:
            write(head)
            while data := source.read(1 << 20):
                write(data)
            return
        text = head + source.read()
        with tarfile.open(fileobj=_Writer(write), mode="w|") as archive:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))

    return produce


def _nothing(_write: Callable[[bytes], None]) -> None:
    return


# -- logins and output


def _logins(dockerfile: bytes, asked: Mapping[str, Any]) -> str:
    """Credentials of the registries that bases come from, and of no others."""
    store, found = AuthStore.of_user(), {}
    for host in _hosts(dockerfile, asked):
        held = store.get(host)
        if held:
            found[host] = held
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()


_PLATFORMS = {f"{side}{part}": "linux" for side in ("BUILD", "TARGET")
              for part in ("PLATFORM", "OS", "ARCH", "VARIANT")}  # fmt: skip
"""Which it is says nothing about where bases come from."""


def _hosts(dockerfile: bytes, asked: Mapping[str, Any]) -> set[str]:
    arguments = {name: value for name, value in map(_argument, asked["build_args"]) if value is not None}
    try:
        wanted = plan(script(parse(dockerfile)), Options(asked["target"] or "", arguments, _PLATFORMS))
    except InvalidDockerfile:
        return set()  # the daemon says what is wrong with it
    hosts = set()
    for needed in wanted.needed:
        for source in (needed.base, *needed.uses.values()):
            with contextlib.suppress(InvalidReference):
                if source.image:
                    hosts.add(Reference.parse(source.image).domain)
    return hosts


def _show(lines: Any, *, quiet: bool) -> None:
    from node.cli.progress import show  # rich is loaded only where something is drawn

    def checked() -> Iterator[Mapping[str, Any]]:
        for line in lines:
            if "errorDetail" in line:
                raise BuildFailed(line["error"], int(line["errorDetail"].get("code") or 1))
            if not quiet or "stream" in line:
                yield line

    show(checked())
