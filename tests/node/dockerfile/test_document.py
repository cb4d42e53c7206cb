"""The parser beside BuildKit's: 238 files of other projects by what the official parser made of them, and its own cases."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dockerfile.document import Instruction, parse
from node.dockerfile.errors import InvalidDockerfile

ORACLE_DROPS_NUL = "moby-buildkit/parser-testfiles/json/Dockerfile"
"""The program that wrote the oracle ends a string at its NUL; the parser's own result, compared with below, does not."""


@pytest.fixture(scope="session")
def dockerfiles(shared: Path) -> Path:
    return shared / "dockerfiles"


def told(instruction: Instruction) -> dict[str, Any]:
    """As the oracle writes it."""
    held = instruction.trigger or instruction
    return {
        "cmd": instruction.name, "sub_cmd": instruction.trigger.name if instruction.trigger else None,
        "json": held.exec_form, "start": instruction.first, "end": instruction.last,
        "flags": list(instruction.flags), "value": list(held.values), "original": instruction.original,
        "heredocs": [{"name": doc.name, "fd": doc.descriptor, "content": doc.content} for doc in instruction.heredocs],
    }  # fmt: skip


def test_every_file_of_the_oracle(dockerfiles: Path) -> None:
    seen = 0
    for line in (dockerfiles / "oracle.jsonl").read_text().splitlines():
        wanted = json.loads(line)
        data = (dockerfiles / wanted["file"]).read_bytes()
        seen += 1
        if "error" in wanted:
            with pytest.raises(InvalidDockerfile) as caught:
                parse(data)
            assert caught.value.reason == wanted["error"]
            continue
        ours = [told(instruction) for instruction in parse(data).instructions]
        if wanted["file"] == ORACLE_DROPS_NUL:
            for one in ours:
                one["value"] = [value.replace("\0", "") for value in one["value"]]
        assert ours == wanted["commands"], wanted["file"]
    assert seen >= 238


def quoted(text: str) -> str:
    """A Go string literal."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\0": "\\x00"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'


def drawn(instruction: Instruction) -> str:
    """The tree as BuildKit's tests write it."""
    parts = [instruction.name.lower()]
    if instruction.flags:
        parts.append("[" + " ".join(quoted(flag) for flag in instruction.flags) + "]")
    if instruction.trigger:
        parts.append(drawn(instruction.trigger))
    elif instruction.name in ("ENV", "LABEL"):
        mark = '""' if instruction.old_form else '"="'
        pairs = zip(instruction.values[::2], instruction.values[1::2], strict=True)
        parts += [f"{quoted(name)} {quoted(value)} {mark}" for name, value in pairs]
    else:
        parts += [quoted(value) for value in instruction.values]
    return "(" + " ".join(parts) + ")"


def test_the_parsers_own_cases(dockerfiles: Path) -> None:
    cases = sorted((dockerfiles / "moby-buildkit/parser-testfiles").glob("*/result"))
    assert len(cases) >= 33
    for case in cases:
        document = parse(case.with_name("Dockerfile").read_bytes())
        ours = [drawn(instruction) for instruction in document.instructions]
        assert ours == case.read_text().strip("\n").split("\n"), case.parent.name


def test_directives() -> None:
    document = parse(b"# syntax=docker/dockerfile:1\n#ESCAPE = `\nFROM a\nRUN dir c:\\ `\n  && b\n")
    assert document.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert document.instructions[1].values == ("dir c:\\   && b",)


@pytest.mark.parametrize("before", [b"# a comment\n", b"\n", b"# other=1\n"])
def test_a_directive_stands_before_everything(before: bytes) -> None:
    assert parse(before + b"# escape=`\nFROM a\n").escape == "\\"


@pytest.mark.parametrize(("text", "line", "reason"), [
    (b"# escape=x\nFROM a", 1, "invalid escape token 'x' does not match ` or \\"),
    (b"# syntax=a\n# syntax=b\nFROM a", 2, "only one syntax parser directive can be used"),
    (b"FROM a\nRUN <<EOF\necho\n", 2, "unterminated heredoc"),
    (b"FROM a\n\nENV a=1 b\n", 3, 'Syntax error - can\'t find = in "b". Must be of the form: name=value'),
    (b"FROM a\nRUN a\0b\n", 2, "the Dockerfile holds a NUL byte"),
    (b"", 0, "file with no instructions"),
])
def test_what_is_wrong_and_where(text: bytes, line: int, reason: str) -> None:
    with pytest.raises(InvalidDockerfile) as caught:
        parse(text)
    assert (caught.value.line, caught.value.reason) == (line, reason)


def test_heredocs() -> None:
    text = b"FROM a\nRUN <<A 3<<-'B' cat\n$x \\\nA\n\tone\n\tB\nCOPY <<\"C\" <<D /to/\nc\nC\nd\nD\nONBUILD RUN <<E\ne\nE\nCMD x\n"
    _, run, copy, later, cmd = parse(text).instructions
    assert [(doc.name, doc.descriptor, doc.content, doc.expand, doc.chomp) for doc in run.heredocs] == [
        ("A", 0, "$x \\\n", True, False), ("B", 3, "\tone\n", False, True)]
    assert [(doc.name, doc.content, doc.expand) for doc in copy.heredocs] == [("C", "c\n", False), ("D", "d\n", True)]
    assert later.trigger is not None
    assert [doc.content for doc in later.trigger.heredocs] == ["e\n"]
    assert (cmd.first, cmd.last) == (15, 15)


def test_no_heredoc() -> None:
    """Shell syntax that only looks like it, quoted, or in the exec form."""
    document = parse(b'FROM a\nRUN cat <<<word\nRUN ["cat", "<<EOF"]\nRUN echo "<<EOF" \'<<EOF\' 1<< EOF\nCMD <<EOF\n')
    assert not any(instruction.heredocs for instruction in document.instructions)


def test_an_empty_line_that_continues_is_told() -> None:
    document = parse(b"FROM a\nRUN b \\\n\n# no\n  c\n")
    assert document.instructions[1].values == ("b   c",)
    assert [line for line, _ in document.warnings] == [2]


def test_comments_before_an_instruction() -> None:
    assert parse(b"# the base\nFROM a\n\n# lost\n\n# kept\nRUN b\n").instructions[1].comments == ("kept",)


@given(st.binary(max_size=400) | st.text("FROMRUN<-EOF\\`\"'$ \n\t#={}[],a", max_size=200).map(str.encode))
def test_whatever_it_is_it_is_read_or_refused(data: bytes) -> None:
    try:
        document = parse(data)
    except InvalidDockerfile:
        return
    assert all(1 <= one.first <= one.last for one in document.instructions)
