import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.detach import DetachKeys, InvalidKeys


def feed_all(keys: DetachKeys, chunks: list[bytes]) -> tuple[bytes, bool]:
    passed = b""
    for chunk in chunks:
        part, detached = keys.feed(chunk)
        passed += part
        if detached:
            return passed, True
    return passed, False


@pytest.mark.parametrize(
    ("text", "codes"),
    [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-[,x", b"\x00\x1bx")],
)
def test_sequences(text: str, codes: bytes) -> None:
    assert DetachKeys.parse(text).feed(b"hello" + codes + b"rest") == (b"hello", True)


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", ",", "é", "ctrl-P"])
def test_no_sequence(text: str) -> None:
    with pytest.raises(InvalidKeys, match="Invalid detach keys"):
        DetachKeys.parse(text)


def test_what_began_the_sequence_is_passed_on_when_it_does_not_go_on() -> None:
    keys = DetachKeys.parse("")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"x") == (b"\x10x", False)


@given(st.text("ab", min_size=1, max_size=4), st.lists(st.text("ab", max_size=6).map(str.encode)))
def test_it_finds_the_first_occurrence_however_the_input_is_cut(sequence: str, chunks: list[bytes]) -> None:
    wanted, data = sequence.encode(), b"".join(chunks)
    passed, detached = feed_all(DetachKeys.parse(",".join(sequence)), chunks)
    at = data.find(wanted)
    assert detached == (at >= 0)
    if detached:
        assert passed == data[:at]
    else:
        held = data[len(passed) :]
        assert data.startswith(passed)
        assert wanted.startswith(held)
        assert len(held) < len(wanted)
