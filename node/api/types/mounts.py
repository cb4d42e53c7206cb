"""Mounts of a create body: `Binds` and `Mounts`, and `Mounts` as inspect shows them.

Beyond Docker: types `secret` and `config` (Options: SecretOptions, ConfigOptions with UID, GID, Mode), and `IdMap` in
BindOptions and VolumeOptions.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from node.api.types.fields import Fields
from node.api.version import NEWEST, ApiVersion
from node.containers.idmap import parse_idmap
from node.containers.mountspec import PROPAGATIONS, MountSpec, check_subpath, check_target
from ocispec.errors import InvalidArgument, Unimplemented

Json = dict[str, Any]
KINDS = ("bind", "volume", "tmpfs", "image", "secret", "config")
READ_ONLY_BELOW = ApiVersion(1, 44)
"""Before it, a read-only entry of Mounts was not so for what is mounted below."""

_SINCE = (
    ("Bind", "CreateMountpoint", ApiVersion(1, 42)), ("Bind", "ReadOnlyForceRecursive", ApiVersion(1, 44)),
    ("Volume", "Subpath", ApiVersion(1, 45)), ("Tmpfs", "Options", ApiVersion(1, 46)),
)  # fmt: skip
_RUN = "/run/secrets/"


def parse_mounts(
    host: Fields, version: ApiVersion = NEWEST, labels: Mapping[str, str] | None = None
) -> tuple[MountSpec, ...]:
    """Binds, then Mounts, then what the labels of the request ask for. The same target twice is refused, as in Docker.

    `labels` are the request's own: an image must not ask for secrets. Raises InvalidArgument, Unimplemented."""
    mounts = [MountSpec.parse_bind(text) for text in host.texts("Binds")]
    mounts += [_mount(item, version) for item in host.objects("Mounts")]
    seen = set(host.mapping("Tmpfs"))
    for mount in mounts:
        if mount.target in seen:
            raise InvalidArgument(f"Duplicate mount point: {mount.target}")
        seen.add(mount.target)
    # A container made again from what inspect shows has its files among Mounts already.
    mounts += [mount for mount in _labelled(labels or {}) if mount.target not in seen]
    return tuple(mounts)


def _labelled(labels: Mapping[str, str]) -> Iterator[MountSpec]:
    """`seawall.secrets: NAME[:TARGET[:MODE[:UID[:GID]]]], …` and `seawall.configs`, for clients without such mounts."""
    for kind in ("secret", "config"):
        for entry in labels.get(f"seawall.{kind}s", "").split(","):
            name, target, mode, uid, gid, *rest = [*(part.strip() for part in entry.split(":")), "", "", "", ""]
            if not name and entry.strip() == "":
                continue
            numbers = all(_is_number(text, base) for text, base in ((mode, 8), (uid, 10), (gid, 10)))
            if not name or any(rest) or not numbers:
                raise InvalidArgument(f"invalid label seawall.{kind}s: '{entry.strip()[:100]}' is not "
                                      "NAME[:TARGET[:MODE[:UID[:GID]]]]")
            yield MountSpec(
                kind, check_target(_file_target(kind, name, target)), name, read_only=True,
                owner=(int(uid or 0), int(gid or 0)), file_mode=_mode(int(mode or "444", 8), f"seawall.{kind}s"),
            )  # fmt: skip


def _is_number(text: str, base: int) -> bool:
    digits = "01234567" if base == 8 else "0123456789"
    return len(text) < 10 and all(letter in digits for letter in text)


def _file_target(kind: str, name: str, target: str) -> str:
    """As swarm: a secret without a path of its own lies in /run/secrets, a config in the root."""
    if target.startswith("/"):
        return target
    return f"{_RUN}{target or name}" if kind == "secret" else f"/{target or name}"


def _mount(item: Fields, version: ApiVersion) -> MountSpec:
    kind, source, target = item.text("Type"), item.text("Source"), item.text("Target")
    if kind in ("npipe", "cluster"):
        raise Unimplemented(f"{item.name('Type')}: mounts of type {kind} are not supported yet")
    if kind not in KINDS:
        raise InvalidArgument(f'mount type unknown: "{kind[:50]}"')
    if kind in ("secret", "config"):
        target = _file_target(kind, source, target)
    _check(item, kind, source, target)
    _check_version(item, kind, version)
    bind, volume, tmpfs, image = (item.object(f"{name}Options") for name in ("Bind", "Volume", "Tmpfs", "Image"))
    driver, file = volume.object("DriverConfig"), item.object(f"{kind.title()}Options")
    idmap = (bind if kind == "bind" else volume).text("IdMap")
    parse_idmap(idmap)
    in_file = kind in ("secret", "config")
    mode = file.optional_number("Mode") if in_file else None
    return MountSpec(
        kind,
        check_target(target),
        source,
        read_only=item.flag("ReadOnly") or in_file,
        propagation=bind.text("Propagation"),
        no_copy=volume.flag("NoCopy"),
        create_source=bind.flag("CreateMountpoint"),
        recursive=not bind.flag("NonRecursive"),
        read_only_below=_below(bind, kind, version),
        subpath=check_subpath((image if kind == "image" else volume).text("Subpath")),
        idmap=idmap,
        labels=volume.mapping("Labels"),
        driver=driver.text("Name"),
        driver_options=driver.mapping("Options"),
        tmpfs_size=tmpfs.number("SizeBytes"),
        tmpfs_mode=tmpfs.number("Mode"),
        tmpfs_options=_tmpfs_options(tmpfs),
        owner=(_id(file, "UID"), _id(file, "GID")) if in_file else (0, 0),
        file_mode=0o444 if mode is None else _mode(mode, file.name("Mode")),
    )


def _below(bind: Fields, kind: str, version: ApiVersion) -> str:
    force, not_below = bind.flag("ReadOnlyForceRecursive"), bind.flag("ReadOnlyNonRecursive")
    if force and not_below:
        raise InvalidArgument('invalid mount config for type "bind": fields ReadOnlyForceRecursive and '
                              "ReadOnlyNonRecursive are mutually exclusive")  # fmt: skip
    if force:
        return "force"
    return "no" if not_below or (kind == "bind" and version < READ_ONLY_BELOW) else ""


def _check(item: Fields, kind: str, source: str, target: str) -> None:
    problem = f'invalid mount config for type "{kind}": '
    if not target:
        raise InvalidArgument(f"{problem}field Target must not be empty")
    if kind in ("bind", "image", "secret", "config") and not source:
        raise InvalidArgument(f"{problem}field Source must not be empty")
    if kind == "bind" and not source.startswith("/"):
        raise InvalidArgument(f"{problem}invalid mount path: '{source[:300]}' mount path must be absolute")
    if kind == "tmpfs" and source:
        raise InvalidArgument(f"{problem}field Source must not be specified")
    for name in ("Bind", "Volume", "Tmpfs", "Image", "Secret", "Config"):
        if name.lower() != kind and item.has(f"{name}Options"):
            raise InvalidArgument(f"{problem}field {name}Options must not be specified")
    _check_bind(item, problem)
    tmpfs = item.object("TmpfsOptions")
    if tmpfs.number("SizeBytes") < 0:
        raise InvalidArgument(f"{problem}invalid tmpfs size: {tmpfs.number('SizeBytes')}")
    if not 0 <= tmpfs.number("Mode") <= 0o7777:
        raise InvalidArgument(f"{problem}invalid tmpfs mode: {tmpfs.number('Mode'):o}")


def _check_bind(item: Fields, problem: str) -> None:
    bind = item.object("BindOptions")
    propagation = bind.text("Propagation")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidArgument(f"{problem}invalid propagation mode: {propagation[:50]}")
    if bind.flag("ReadOnlyForceRecursive"):
        if not item.flag("ReadOnly"):
            raise InvalidArgument(f"{problem}field ReadOnly must be true for ReadOnlyForceRecursive")
        if propagation not in ("", "rprivate"):
            raise InvalidArgument(f"{problem}field Propagation must be rprivate for ReadOnlyForceRecursive")


def _check_version(item: Fields, kind: str, version: ApiVersion) -> None:
    if kind == "image" and version < ApiVersion(1, 48):
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    for group, name, since in _SINCE:
        if version < since and item.object(f"{group}Options").raw(name) not in (None, False, "", []):
            raise InvalidArgument(f"{group}Options.{name} needs API v{since} or newer")


def _tmpfs_options(tmpfs: Fields) -> tuple[str, ...]:
    """`[["noexec"], ["uid", "1000"]]` as words of mount(8)."""
    options = tmpfs.raw("Options") or []
    if not isinstance(options, list):
        raise tmpfs.wrong("Options", "a list of lists", options)
    words = []
    for option in options:
        if not isinstance(option, list) or not all(isinstance(word, str) for word in option):
            raise tmpfs.wrong("Options", "a list of lists of strings", option)
        if len(option) not in (1, 2) or any("," in word for word in option):
            raise InvalidArgument('invalid mount config for type "tmpfs": invalid option array length or a comma in it')
        words.append("=".join(option))
    return tuple(words)


def _id(file: Fields, name: str) -> int:
    """As swarm has them, in a string; empty is 0."""
    text = file.text(name) or "0"
    if not text.isascii() or not text.isdigit() or int(text[:11]) >= 0xFFFF_FFFF:
        raise InvalidArgument(f"{file.name(name)} must be a number: {text[:50]}")
    return int(text)


def _mode(value: int, name: str) -> int:
    if not 0 <= value <= 0o7777:
        raise InvalidArgument(f"{name} must be a file mode: {value}")
    return value


def mount_view(item: MountSpec) -> Json:
    document: Json = {"Type": item.kind, "Target": item.target}
    if item.source:
        document["Source"] = item.source
    if item.read_only and item.kind not in ("secret", "config"):
        document["ReadOnly"] = True
    options = _VIEWS[item.kind](item)
    held = {name: value for name, value in options.items() if value}
    if held:
        document[f"{item.kind.title()}Options"] = held
    return document


def _bind(item: MountSpec) -> Json:
    return {
        "Propagation": item.propagation, "NonRecursive": not item.recursive, "CreateMountpoint": item.create_source,
        "ReadOnlyNonRecursive": item.read_only_below == "no", "IdMap": item.idmap,
        "ReadOnlyForceRecursive": item.read_only_below == "force",
    }  # fmt: skip


def _volume(item: MountSpec) -> Json:
    options = {"Name": item.driver or "local", "Options": dict(item.driver_options)}
    return {
        "NoCopy": item.no_copy, "Labels": dict(item.labels), "Subpath": item.subpath, "IdMap": item.idmap,
        "DriverConfig": options if item.driver or item.driver_options else None,
    }  # fmt: skip


def _tmpfs(item: MountSpec) -> Json:
    options = [option.split("=", 1) for option in item.tmpfs_options]
    return {"SizeBytes": item.tmpfs_size, "Mode": item.tmpfs_mode, "Options": options}


def _image(item: MountSpec) -> Json:
    return {"Subpath": item.subpath}


def _file(item: MountSpec) -> Json:
    return {"UID": str(item.owner[0]), "GID": str(item.owner[1]), "Mode": item.file_mode}


_VIEWS = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image, "secret": _file, "config": _file}
