"""What .dockerignore leaves out, by Docker's rules."""

import time

import pytest

from node.dockerfile.errors import InvalidDockerfile
from node.dockerfile.ignore import Ignore


@pytest.mark.parametrize(("lines", "out", "kept"), [
    (["a"], ["a", "a/b"], ["ab", "b/a", "A"]),
    (["/a/"], ["a", "a/b"], ["b/a"]),
    (["*.o"], ["x.o"], ["x.o2", "d/x.o"]),
    (["**/*.o"], ["x.o", "d/x.o", "d/e/x.o"], ["x.oo"]),
    (["*/temp*"], ["d/temp", "d/temps/x"], ["temp", "d/e/temp"]),
    (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z/y"], ["a/bz", "z"]),
    (["a/**"], ["a/b", "a/b/c"], ["a", "ab"]),
    (["**"], ["a", "a/b"], []),
    (["*", "!README.md"], ["a", "a/README.md", "b/c"], ["README.md"]),
    (["docs", "!docs/keep/*.md"], ["docs", "docs/keep", "docs/x.md"], ["docs/keep/a.md", "docs/keep/b.md/c"]),
    (["*.md", "!README*.md", "README-secret.md"], ["a.md", "README-secret.md"], ["README.md"]),
    (["a?c"], ["abc", "aéc"], ["ac", "a/c"]),
    (["[a-c]x"], ["ax", "cx/d"], ["dx"]),
    (["[^a-c]x"], ["dx"], ["ax", "/x"]),
    ([r"\*"], ["*"], ["a"]),
    (["a+b (c).txt"], ["a+b (c).txt"], ["aab c.txt"]),
    (["./a/../b"], ["b"], ["a"]),
    (["", "  ", ".", "/"], [], ["a"]),
    (["\udcff*"], ["\udcffx"], ["x"]),
])  # fmt: skip
def test_patterns(lines: list[str], out: list[str], kept: list[str]) -> None:
    ignore = Ignore(lines)
    assert [path for path in out if not ignore.leaves_out(path)] == []
    assert [path for path in kept if ignore.leaves_out(path)] == []


def test_the_file() -> None:
    ignore = Ignore.parse(b"\xef\xbb\xbf# comment\r\na\r\n #b\n\n!a/keep\n")
    assert ignore.leaves_out("a/x")
    assert ignore.leaves_out("#b")
    assert not ignore.leaves_out("a/keep")
    assert ignore.takes_back


@pytest.mark.parametrize("line", ["!", "[a", "[", "a[^"])
def test_patterns_that_are_none(line: str) -> None:
    with pytest.raises(InvalidDockerfile):
        Ignore([line])


def test_a_hostile_pattern_costs_little() -> None:
    ignore = Ignore(["**/a" * 40 + "/b", "*a" * 40 + "b"])
    began = time.monotonic()
    assert not ignore.leaves_out("/".join(["a"] * 2000))
    assert not ignore.leaves_out("a" * 4000)
    assert time.monotonic() - began < 5
