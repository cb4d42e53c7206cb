"""Words: quotes, escapes, every modifier; beside a real shell where the two mean the same."""

import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dockerfile.errors import InvalidInstruction
from node.dockerfile.shell import MAX_WORD, Rules, word, words

ENV = {"A": "1", "EMPTY": "", "PATH": "/usr/local/bin:/usr/bin", "FILE": "archive.tar.gz", "TWO": "x y", "U": "ünï"}


@pytest.mark.parametrize(("text", "wanted"), [
    ("${FILE#*.}", "tar.gz"), ("${FILE##*.}", "gz"), ("${FILE%.*}", "archive.tar"), ("${FILE%%.*}", "archive"),
    ("${FILE#nothing}", "archive.tar.gz"), ("${FILE%?gz}", "archive.tar"), ("${PATH//:/ }", "/usr/local/bin /usr/bin"),
    ("${PATH/usr/opt}", "/opt/local/bin:/usr/bin"), ("${NONE#x}", ""), ("${NONE/x/y}", ""), ("${EMPTY-d}", ""),
    ("${NONE-d}", "d"), ("${EMPTY+y}", "y"), ("${EMPTY:+y}", ""), ("${A?no}", "1"), ("${EMPTY?no}", ""),
    ("${FILE%$EMPTY.gz}", "archive.tar"), (r"${FILE#archive\.}", "tar.gz"), ("${U#ü}", "nï"), ("$1a", "a"),
    ("${FILE/a*e/z}", "z.tar.gz"), ("${TWO/ /}", "xy"), ("$A_", ""), ("${A}_", "1_"), ("\\a\\$A", "a$A"),
])  # fmt: skip
def test_modifiers(text: str, wanted: str) -> None:
    assert word(text, ENV) == wanted


@pytest.mark.parametrize(("text", "reason"), [
    ("${NONE?}", "NONE: is not allowed to be unset"), ("${NONE:?say this}", "NONE: say this"),
    ("${EMPTY:?}", "EMPTY: is not allowed to be empty"), ("${A", "missing '}'"), ("${A:-x", "missing '}'"),
    ("${}", "bad substitution"), ("${:A}", "bad substitution"), ("${A:#x}", "unsupported modifier (:#)"),
    ("${A^^}", "unsupported modifier (^)"), ("'x", "single-quote"), ('"x', "double-quote"),
    ("${A:-" * 40 + "}" * 40, "nested too deeply"),
])  # fmt: skip
def test_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidInstruction) as caught:
        word(text, ENV)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("text", "wanted"), [
    ("a  b", ["a", "b"]), ("$TWO z", ["x", "y", "z"]), ('"$TWO" z', ["x y", "z"]), (r"a\ b", ["a b"]), ("'' a", ["a"]),
    ("a\tb\nc", ["a", "b", "c"]), ("", []), ("a'b c'd", ["ab cd"]),
])  # fmt: skip
def test_words(text: str, wanted: list[str]) -> None:
    assert words(text, ENV) == wanted


def test_other_rules() -> None:
    assert word("`$A c:\\d", ENV, Rules(escape="`")) == "$A c:\\d"
    assert word("$A $NONE ${NONE} ${NONE:-x}", ENV, Rules(keep_unset=True)) == "1 $NONE ${NONE} ${NONE:-x}"
    assert words("'a b' \\c", ENV, Rules(raw_quotes=True, raw_escapes=True)) == ["'a b'", "\\c"]


PIECES = st.sampled_from(["a", "b", ".", "*", "?", "ab", "tar"])


@settings(max_examples=60, deadline=None)
@given(st.text("ab.tr", max_size=8), st.lists(PIECES, min_size=1, max_size=4).map("".join),
       st.sampled_from(["#", "##", "%", "%%"]))
def test_patterns_as_a_shell(value: str, pattern: str, operator: str) -> None:
    text = f"${{V{operator}{pattern}}}"
    wanted = subprocess.run(["sh", "-c", f'printf %s "{text}"'], env={"V": value}, capture_output=True, text=True,
                            check=True).stdout
    assert word(text, {"V": value}) == wanted


def test_hostile_words_cost_little() -> None:
    began = time.monotonic()
    assert word("${V##" + "*a" * 30 + "*b}", {"V": "a" * 5000}) == "a" * 5000
    with pytest.raises(InvalidInstruction, match="grows beyond"):
        word("$V" * 3000, {"V": "x" * 1000})
    assert time.monotonic() - began < 10
    assert MAX_WORD < 10_000_000
