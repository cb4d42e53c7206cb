"""The json-file log: Docker's lines, partial lines, rotation."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.logs import MAX_LINE, JsonLog, timestamp


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def text(path: Path, stream: str = "stdout") -> str:
    return "".join(entry["log"] for entry in read(path) if entry["stream"] == stream)


def test_a_line_is_dockers(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write("stdout", b'say "hi"\tthere\\\n')
    log.write("stderr", b"oh\n")
    log.close()
    first, second = read(tmp_path / "log")
    assert list(first) == ["log", "stream", "time"]
    assert (first["log"], first["stream"]) == ('say "hi"\tthere\\\n', "stdout")
    assert (second["log"], second["stream"]) == ("oh\n", "stderr")
    assert len(first["time"]) == len("2026-01-01T00:00:00.123456789Z")


def test_what_has_no_newline_waits_for_it_and_comes_at_the_end(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write("stdout", b"half ")
    assert read(tmp_path / "log") == []
    log.write("stderr", b"other\n")
    log.write("stdout", b"line\nrest")
    log.close()
    assert [entry["log"] for entry in read(tmp_path / "log")] == ["other\n", "half line\n", "rest"]


def test_long_lines_come_in_pieces(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    line = b"x" * (2 * MAX_LINE + 100)
    for start in range(0, len(line), 1000):
        log.write("stdout", line[start:start + 1000])
    log.write("stdout", b"\n")
    log.close()
    assert [len(entry["log"]) for entry in read(tmp_path / "log")] == [MAX_LINE, MAX_LINE, 101]


def test_a_piece_does_not_end_inside_a_character(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    line = ("a" + "€" * MAX_LINE + "\n").encode()
    log.write("stdout", line[:MAX_LINE + 7])
    log.write("stdout", line[MAX_LINE + 7:])
    log.close()
    assert text(tmp_path / "log") == line.decode()
    assert all(len(entry["log"].encode()) <= MAX_LINE for entry in read(tmp_path / "log"))


def test_what_is_no_utf8_is_replaced(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write("stdout", b"a\xff\xfeb\x00\x1b[0m\n")
    log.close()
    assert text(tmp_path / "log") == "a\ufffd\ufffdb\x00\x1b[0m\n"


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=60)), max_size=20))
def test_every_text_comes_back(tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = JsonLog(str(path), 0, 1)
    for stream, part in writes:
        log.write(stream, part.encode("utf-8", "replace"))
    log.close()
    for stream in ("stdout", "stderr"):
        expected = "".join(part for name, part in writes if name == stream).encode("utf-8", "replace").decode()
        assert text(path, stream) == expected


def test_rotation_keeps_so_many_files_of_at_most_that_size(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 2000, 3)
    for number in range(200):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    files = [tmp_path / "log.2", tmp_path / "log.1", tmp_path / "log"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(0 < path.stat().st_size <= 2000 for path in files)
    numbers = [int(entry["log"].split()[1]) for path in files for entry in read(path)]
    assert numbers == list(range(numbers[0], 200))


def test_one_file_starts_anew(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 500, 1)
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()
    assert (tmp_path / "log").stat().st_size <= 500
    assert read(tmp_path / "log")[-1]["log"] == "line 99\n"


def test_an_entry_larger_than_the_limit_is_still_written(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 50, 2)
    log.write("stdout", b"y" * 100 + b"\n" + b"z" * 100 + b"\n")
    log.close()
    assert (text(tmp_path / "log.1"), text(tmp_path / "log")) == ("y" * 100 + "\n", "z" * 100 + "\n")


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(2):
        log = JsonLog(str(tmp_path / "log"), 1000, 2)
        log.write("stdout", b"again\n")
        log.close()
    assert text(tmp_path / "log") == "again\nagain\n"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        JsonLog(str(tmp_path / "log"), 0, 1)
    assert not (tmp_path / "other").exists()


def test_a_full_disk_does_not_stop_it() -> None:
    log = JsonLog("/dev/full", 0, 1)
    log.write("stdout", b"lost\n" * random.randint(1, 5))
    log.close()
    assert log.lost


def test_timestamps_sort() -> None:
    stamps = [timestamp() for _ in range(100)]
    assert stamps == sorted(stamps)
