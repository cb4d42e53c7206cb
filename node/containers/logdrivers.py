"""Log drivers: which there are, what each may be told, and what a container's log comes to on this node.

json-file and local are files that the container's monitor writes. syslog and journald are delivered by the daemon from
a spool, a file of format local beside the container: a container is never held up by a log service that does not
answer, a daemon that was away goes on where it was, and `docker logs` reads the spool.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from node.containers import patterns
from node.containers.delivery.syslog import SyslogTarget
from node.containers.launcher import LogTarget
from node.containers.model import Container, LogSpec
from node.containers.sizes import parse_size
from node.settings import LogSettings
from ocispec.errors import InvalidArgument, Unimplemented

NONE, JSON, LOCAL, SYSLOG, JOURNALD = "none", "json-file", "local", "syslog", "journald"
_EVERY = frozenset({"mode", "max-buffer-size"})
_WORDS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_FILES = frozenset({"max-size", "max-file", "compress"})
_SPOOL = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_SYSLOG = frozenset({
    "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key",
    "syslog-tls-skip-verify",
})  # fmt: skip
OPTIONS: Mapping[str, frozenset[str]] = {
    NONE: frozenset(),
    JSON: _EVERY | _WORDS | _FILES,
    LOCAL: _EVERY | _FILES,
    SYSLOG: _EVERY | _WORDS | _SPOOL | _SYSLOG,
    JOURNALD: _EVERY | _WORDS | _SPOOL,
}
_DOCKERS_OTHERS = frozenset({"gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs", "logentries"})
_TAG = re.compile(r"\{\{ *\.(\w+) *\}\}")
_REGEX_LENGTH = 256
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class FilePlan:
    """How the files of a driver are kept unless it is told otherwise."""

    format: str
    max_size: int
    max_files: int
    compress: bool


def check(log: LogSpec) -> None:
    """Raises InvalidArgument in Docker's words, Unimplemented for a driver of Docker's that is not here."""
    driver, options = log.driver, log.options
    if driver in _DOCKERS_OTHERS:
        raise Unimplemented(f"HostConfig.LogConfig.Type: log driver {driver} is not supported yet")
    if driver not in OPTIONS:
        raise InvalidArgument(f"logger: no log driver named '{driver[:50]}' is registered")
    for option in options:
        if option not in OPTIONS[driver]:
            raise InvalidArgument(f"unknown log opt '{option[:50]}' for {driver} log driver")
    _check_mode(driver, options)
    _check_regex(options)
    _check_tag(options.get("tag", ""))
    if log.driver in (JSON, LOCAL):
        _check_files(options, "")
    elif log.driver in (SYSLOG, JOURNALD):
        _check_files(options, "cache-")
        if driver == SYSLOG:
            SyslogTarget.parse(options)
        if _flag(options, "cache-disabled"):
            raise Unimplemented("log option cache-disabled is not supported: what is delivered comes from the cache")


def resolve(log: LogSpec, settings: LogSettings) -> LogSpec:
    """With the node's default driver, and its options, where none is named. Raises as `check`."""
    if not log.driver or (log.driver == settings.driver and not log.options):
        log = replace(log, driver=settings.driver, options={**settings.options, **log.options})
    check(log)
    if log.driver == JOURNALD and not Path(settings.journal_socket).exists():
        raise InvalidArgument("journald is not enabled on this host")
    return log


def target(container: Container, settings: LogSettings) -> LogTarget | None:
    """Where the monitor writes."""
    log = container.spec.log
    if not container.log_path:
        return None
    plan, options = _plan(log.driver, settings), log.options
    prefix = "cache-" if log.driver in (SYSLOG, JOURNALD) else ""
    size = _size(options.get(f"{prefix}max-size", ""))
    if size is None:
        # What a container of an earlier Seawall was created with.
        size = plan.max_size if log.max_size is None else log.max_size
    files = options.get(f"{prefix}max-file", "")
    attributes = attrs(container) if log.driver == JSON else {}
    return LogTarget(
        path=Path(container.log_path),
        format=plan.format,
        max_size=size,
        max_files=int(files) if files else plan.max_files,
        compress=_flag(options, f"{prefix}compress", default=plan.compress),
        attrs=json.dumps(attributes, sort_keys=True) if attributes else "",
    )


def log_path(directory: Path, container_id: str, driver: str) -> str:
    """Empty: nothing is kept."""
    if driver == NONE:
        return ""
    return str(directory / (f"{container_id}-json.log" if driver == JSON else "local.log"))


def shown_path(container: Container) -> str:
    """What inspect says: only json-file's is anybody's to read."""
    return container.log_path if container.spec.log.driver == JSON else ""


def attrs(container: Container) -> dict[str, str]:
    """What labels, env and tag ask to be said with every line."""
    options, spec = container.spec.log.options, container.spec
    env = dict(entry.split("=", 1) for entry in spec.env if "=" in entry)
    found = {**_chosen(options, "labels", spec.labels), **_chosen(options, "env", env)}
    if options.get("tag"):
        found["tag"] = tag(container)
    return found


def tag(container: Container) -> str:
    """`{{.Name}}/{{.ID}}` filled in; the short id unless asked otherwise."""
    known = _tag_fields(container)
    return _TAG.sub(lambda match: known[match[1]], container.spec.log.options.get("tag") or "{{.ID}}")


def _tag_fields(container: Container) -> dict[str, str]:
    return {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": container.image,
        "Command": " ".join((container.path, *container.args)),
        "DaemonName": "docker",
    }


_TAG_FIELDS = frozenset({"ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Command", "DaemonName"})


def _check_tag(text: str) -> None:
    rest = _TAG.sub("", text)
    unknown = [match[1] for match in _TAG.finditer(text) if match[1] not in _TAG_FIELDS]
    if unknown or "{{" in rest:
        raise InvalidArgument(f"invalid log opt tag: '{text[:100]}': it may hold "
                              + ", ".join(f"{{{{.{name}}}}}" for name in sorted(_TAG_FIELDS)))


def _chosen(options: Mapping[str, str], kind: str, values: Mapping[str, str]) -> dict[str, str]:
    named = {name.strip() for name in options.get(kind, "").split(",")} - {""}
    pattern = options.get(f"{kind}-regex", "")
    return {key: value for key, value in values.items() if key in named or (pattern and patterns.found(pattern, key))}


def _plan(driver: str, settings: LogSettings) -> FilePlan:
    if driver == JSON:
        return FilePlan("json", settings.max_size, settings.max_files, compress=False)
    return FilePlan("local", 20 * MEGABYTE, 5, compress=True)


def _check_mode(driver: str, options: Mapping[str, str]) -> None:
    """Files are written as the output comes, what goes to a log service is spooled first: each in one mode only."""
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: unknown logging mode: {mode[:50]}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        parse_size(options["max-buffer-size"])
        raise Unimplemented("log opt max-buffer-size is not supported yet: no driver keeps output in memory")
    if mode and mode != (only := "non-blocking" if driver in (SYSLOG, JOURNALD) else "blocking"):
        raise Unimplemented(f"log opt mode={mode} is not supported yet for the {driver} log driver: it is {only}")


def _check_regex(options: Mapping[str, str]) -> None:
    for name in ("labels-regex", "env-regex"):
        pattern = options.get(name, "")
        if len(pattern) > _REGEX_LENGTH:
            raise InvalidArgument(f"log opt {name} is longer than {_REGEX_LENGTH} characters")
        if wrong := patterns.wrong_with(pattern):
            raise InvalidArgument(f"error parsing regexp of log opt {name}: {wrong}")


def _check_files(options: Mapping[str, str], prefix: str) -> None:
    size = _size(options.get(f"{prefix}max-size", ""))
    files = options.get(f"{prefix}max-file", "")
    if files and (not files.isascii() or not files.isdigit() or not 0 < int(files[:6]) <= 1000):
        raise InvalidArgument("max-file cannot be less than 1 (and not more than 1000)")
    if files and int(files) > 1 and size == 0:
        raise InvalidArgument("max-size must be set when max-file is greater than one")
    if _flag(options, f"{prefix}compress") and (size == 0 or files == "1"):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")


def _size(text: str) -> int | None:
    """None: nothing was said; 0: no bound."""
    if not text:
        return None
    if text == "-1":
        return 0
    size = parse_size(text)
    if size <= 0:
        raise InvalidArgument("max-size must be a positive number")
    return size


def _flag(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    text = options.get(name, "")
    if not text:
        return default
    if text not in ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"):
        raise InvalidArgument(f"error parsing {name}: '{text[:50]}' is neither true nor false")
    return text in ("1", "t", "T", "TRUE", "true", "True")

