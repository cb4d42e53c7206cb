"""Log lines: of text or JSON, with the request that they belong to, without secrets, and one line each whatever a
client sent."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from registry.settings import LogSettings


@dataclass(frozen=True, slots=True)
class Context:
    """What this task works for."""

    request: str = ""
    trace: str = ""


NOWHERE = Context()
current: ContextVar[Context] = ContextVar("current", default=NOWHERE)

_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), r"\1***@"),
    (re.compile(r"(?i)\b(password|passwd|secret|token|api_?key|signature|x-amz-[a-z-]+)(['\"]?\s*[=:]\s*['\"]?)"
                r"[^\s,;&'\"}]{3,}"), r"\1\2***"),
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING registry.api.edge [request]: message`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        request = current.get().request
        line = f"{moment(record)} {record.levelname} {record.name}{f' [{request}]' if request else ''}: "
        line += one_line(redacted(record.getMessage()))
        trace = _traceback(self, record)
        return line + "".join(f"\n    {one_line(part)}" for part in trace.splitlines()) if trace else line


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = current.get()
        line = {"time": moment(record), "level": record.levelname, "logger": record.name,
                "message": redacted(record.getMessage()), "pid": record.process}
        if context.request:
            line["request"] = context.request
        if context.trace:
            line["trace"] = context.trace
        trace = _traceback(self, record)
        if trace:
            line["exception"] = trace
        return json.dumps(line, default=str)  # ASCII alone, so nothing in it is a line break to anybody


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """The process's logging; once, by the composition root."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if settings.format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for chatty in ("alembic", "botocore", "urllib3", "aiosqlite", "asyncio", "opentelemetry", "s3transfer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # at DEBUG they tell bodies, headers and keys
    if settings.access:
        _access_lines()


def _access_lines() -> None:
    """Request lines are JSON on standard output, apart from the log."""
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("registry.access")
    access.handlers = [lines]
    access.propagate = False
    access.setLevel(logging.INFO)


def moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def redacted(text: str) -> str:
    """Without what looks like a credential. The second line of defence: whoever logs leaves them out."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def one_line(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return redacted(formatter.formatException(record.exc_info))
