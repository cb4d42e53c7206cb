"""Numbers that several processes count in and one shows."""

import os

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from registry.telemetry import families
from registry.telemetry.board import Board
from registry.telemetry.exposition import Reading, exposition
from registry.telemetry.families import Family, Kind, Label

FAMILIES = (
    Family("things_total", Kind.COUNTER, "things", (Label("kind", ("a", "b", "other")), Label("size", ("s", "other")))),
    Family("open_things", Kind.GAUGE, "open things"),
    Family("thing_seconds", Kind.HISTOGRAM, "seconds", (Label("kind", ("a", "other")),), (0.1, 1.0)),
)


def samples(board: Board, *readings: Reading) -> dict[tuple[str, ...], float]:
    document, content_type = exposition(board, FAMILIES, readings, "")
    assert content_type.startswith("text/plain")
    return {(sample.name, *sample.labels.values()): sample.value
            for family in parse(document.decode()) for sample in family.samples}


def test_processes_count_side_by_side_and_are_summed() -> None:
    board = Board(FAMILIES, 3)
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            part = board.part(worker)
            part.begin(os.getpid())
            for _ in range(1000):
                part.counter("things_total", "b", "s").add()
            part.counter("open_things").add(2)
            part.histogram("thing_seconds", "a").observe(0.5 * (worker + 1))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    found = samples(board)
    assert found["things_total", "b", "s"] == 3000
    assert found["open_things",] == 6
    assert [found["thing_seconds_bucket", "a", bound] for bound in ("0.1", "1.0", "+Inf")] == [0, 2, 3]
    assert (found["thing_seconds_count", "a"], found["thing_seconds_sum", "a"]) == (3, 3.0)
    assert ("things_total", "a", "s") not in found


def test_a_worker_that_starts_again_goes_on_counting_and_has_nothing_open() -> None:
    board = Board(FAMILIES, 1)
    board.part(0).counter("things_total", "a", "s").add(5)
    board.part(0).counter("open_things").add(7)
    board.part(0).begin(os.getpid())
    board.part(0).counter("things_total", "a", "s").add()
    found = samples(board)
    assert (found["things_total", "a", "s"], found["open_things",]) == (6, 0)
    assert found["seawall_worker_resident_bytes", "0"] > 1e6
    assert found["seawall_worker_open_files", "0"] > 2


def test_values_that_nobody_foresaw_count_as_other() -> None:
    board = Board(FAMILIES, 1)
    for invented in ("c", "x" * 1000, ""):
        board.part(0).counter("things_total", invented, "s").add()
    assert samples(board)["things_total", "other", "s"] == 3


def test_every_cell_has_one_owner() -> None:
    made = families.families(["blob", "manifest"])
    board = Board(made, 1)
    part = board.part(0)
    for family in made:
        first = tuple(label.values[0] for label in family.labels)
        last = tuple(label.values[-1] for label in family.labels)
        for values in {first, last}:
            if family.kind is Kind.HISTOGRAM:
                part.histogram(family.name, *values).observe(1e9)
            else:
                part.counter(family.name, *values).add()
    for family in made:
        used = list(board.used(family.name))
        assert len(used) == (2 if family.labels else 1), family.name
        assert all(sum(cells) == (1 + 1e9 if family.kind is Kind.HISTOGRAM else 1) for _, cells in used), family.name


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0", "text/plain;version=0.0.4"])
def test_the_document_is_what_was_asked_for(accept) -> None:
    made = families.families(["blob"])
    board = Board(made, 2)
    board.part(1).counter(families.REQUESTS, "blob", "GET", "200").add()
    document, content_type = exposition(board, made, [Reading("seawall_uploads_open", 3)], accept)
    parser = parse_open if "openmetrics" in content_type else parse
    found = {sample.name: sample.value for family in parser(document.decode()) for sample in family.samples}
    assert found["seawall_http_requests_total"] == 1
    assert found["seawall_uploads_open"] == 3
    assert ("openmetrics" in accept) == ("openmetrics" in content_type)
