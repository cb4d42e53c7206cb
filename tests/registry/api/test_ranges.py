import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api.ranges import ByteRange, chunk, wanted
from registry.errors import InvalidContentRange, RangeUnsatisfiable

SIZE = 1000


@pytest.mark.parametrize(("header", "start", "end"), [
    ("bytes=0-0", 0, 0), ("bytes=500-1499", 500, 999), ("bytes=500-", 500, 999), ("bytes=-500", 500, 999),
    ("bytes=-5000", 0, 999), ("bytes=999-", 999, 999), ("bytes=0-99999999999999999999999", 0, 999),
    ("BYTES=1-2", 1, 2), ("bytes= 1-2 ", 1, 2),
])
def test_a_part_of_a_blob(header: str, start: int, end: int) -> None:
    part = wanted(header, SIZE)
    assert part is not None
    assert (part.start, part.end) == (start, end)


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=", "bytes=a-b", "bytes=0-1,5-6", "items=0-1",
                                    "bytes=0-" + "9" * 4000, "bytes=+1-2", "bytes=٣-٤", "0-1"])
def test_what_is_no_range_is_ignored(header: str | None) -> None:
    assert wanted(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=500-0", "bytes=1000-", "bytes=1000-2000", "bytes=-0"])
def test_no_byte_of_it_exists(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable) as caught:
        wanted(header, SIZE)
    assert caught.value.size == SIZE


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_blob_has_no_parts(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        wanted(header, 0)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 40))
def test_parts_are_python_slices(first: int, last: int, size: int) -> None:
    data = bytes(range(size))
    try:
        part = wanted(f"bytes={first}-{last}", size)
    except RangeUnsatisfiable:
        assert data[first:last + 1] == b""
    else:
        assert part is not None
        assert data[part.start:part.start + part.length] == data[first:last + 1] != b""


@pytest.mark.parametrize("header", ["0-99", "bytes 0-99", "bytes=0-99", "bytes 0-99/100", "bytes 0-99/*"])
def test_where_a_chunk_lies(header: str) -> None:
    assert chunk(header) == ByteRange(0, 100)


def test_a_chunk_without_a_place() -> None:
    assert chunk(None) is None


@pytest.mark.parametrize("header", ["", "0", "-", "5-4", "a-b", "-5", "5-", "0-99/", "0-1,2-3",
                                    "9" * 30 + "-" + "9" * 31])
def test_malformed_places(header: str) -> None:
    with pytest.raises(InvalidContentRange):
        chunk(header)
