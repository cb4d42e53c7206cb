"""Log lines: one each, without secrets, with the request they belong to."""

import io
import json
import logging

import pytest

from registry.settings import LogSettings
from registry.telemetry import logs
from registry.telemetry.logs import Context, JsonLines, TextLines, current, one_line, redacted


@pytest.fixture(params=["text", "json"])
def written(request):
    """`written(level, message, *values)`: the lines that come of it."""
    formatter = {"text": TextLines, "json": JsonLines}[request.param]()

    def write(message: str, *values: object, exc_info=None) -> str:
        return formatter.format(logging.LogRecord("registry.x", logging.WARNING, "f", 1, message, values, exc_info))

    write.kind = request.param
    return write


@pytest.mark.parametrize("hostile", ["a\nERROR forged", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "\x00", "\udcff"])
def test_nobody_forges_a_line(written, hostile) -> None:
    line = written("path %s", hostile)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.encode()


@pytest.mark.parametrize("secret", [
    "Authorization: Bearer eyJhbGciOi.abc.def", "basic dXNlcjpodW50ZXIyaHVudGVyMg==",
    "postgresql://seawall:hunter2hunter2@db/x", 'password="hunter2hunter2"', "token=hunter2hunter2&x=1",
    "https://bucket/x?X-Amz-Signature=hunter2hunter2", '{"secret": "hunter2hunter2"}'])
def test_secrets_are_left_out(written, secret) -> None:
    line = written("failed: %s", secret)
    assert "hunter2" not in line
    assert "eyJ" not in line
    assert "dXNl" not in line
    assert "***" in line


def test_ordinary_text_is_left_alone() -> None:
    for text in ("manifest sha256:" + "a" * 64, "GET /v2/basic/app/tags/list", "no token for you", "https://host:5000/v2/"):
        assert redacted(text) == text
        assert one_line(text) == text


def test_a_line_names_its_request_and_trace(written) -> None:
    token = current.set(Context("req-1", "a" * 32))
    try:
        line = written("well")
    finally:
        current.reset(token)
    if written.kind == "json":
        assert {"request": "req-1", "trace": "a" * 32, "message": "well", "level": "WARNING"}.items() <= json.loads(line).items()
    assert "req-1" in line


def test_a_traceback_stays_with_its_line(written) -> None:
    try:
        raise ValueError("password=hunter2hunter2\nforged")
    except ValueError as error:
        line = written("broke", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError" in line
    assert "hunter2" not in line
    assert all(part.startswith("    ") for part in line.splitlines()[1:])
    if written.kind == "json":
        assert "ValueError" in json.loads(line)["exception"]


def test_libraries_do_not_tell_what_they_send() -> None:
    root = logging.getLogger()
    before = root.handlers, root.level
    stream = io.StringIO()
    try:
        logs.configure(LogSettings(level="DEBUG", format="json"), stream)
        logging.getLogger("botocore.auth").debug("signing key")
        logging.getLogger("registry").debug("ours")
    finally:
        root.handlers, root.level = before[0], before[1]
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours"]
