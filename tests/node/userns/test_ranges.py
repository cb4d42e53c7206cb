"""Ranges of ids: found, held by locks that outlive their taker, never given twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.userns.ranges import DEFAULT, SIZE, IdRange, InvalidRanges, NoFreeIds, Ranges, pools
from node.userns.tenants import Tenants, range_of


@pytest.fixture
def register(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ids"


def test_no_two_nodes_have_one_range(register: Path) -> None:
    one, other = Ranges(register, [(100_000, 3 * SIZE)]), Ranges(register, [(100_000, 3 * SIZE)])
    held = [one.take(), other.take(), one.take()]
    assert sorted(each.ids.first for each in held) == [100_000, 100_000 + SIZE, 100_000 + 2 * SIZE]
    with pytest.raises(NoFreeIds, match="65536 ids"):
        other.take()
    held[1].close()
    assert other.take().ids == held[1].ids


def test_pools_that_overlap_by_a_part_are_seen(register: Path) -> None:
    one = Ranges(register, [(1000, SIZE)])
    other = Ranges(register, [(1000 + SIZE - 1, SIZE)])
    held = one.take()
    with pytest.raises(NoFreeIds):
        other.take()
    held.close()
    other.take().close()


def test_a_range_is_held_as_long_as_somebody_has_its_lock(register: Path) -> None:
    """As a monitor has it, when the daemon was killed."""
    ranges = Ranges(register, [(100_000, SIZE)])
    held = ranges.take()
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.lock])
    held.close()
    with pytest.raises(NoFreeIds):
        ranges.take()
    holder.communicate(b"\n", timeout=10)
    ranges.take().close()


def test_who_joins_holds_it_too(register: Path) -> None:
    ranges = Ranges(register, [(100_000, SIZE)])
    held = ranges.take()
    joined = ranges.share(held.ids)
    held.close()
    with pytest.raises(NoFreeIds):
        ranges.take()
    joined.close()
    ranges.take().close()


def test_larger_ranges(register: Path) -> None:
    ranges = Ranges(register, [(100_000, 4 * SIZE)])
    assert ranges.largest == 4 * SIZE
    held = ranges.take(3 * SIZE)
    assert held.ids.size == 3 * SIZE
    with pytest.raises(NoFreeIds):
        ranges.take(2 * SIZE)
    held.close()


def test_the_register_is_no_link_of_somebody_elses(register: Path) -> None:
    register.parent.mkdir()
    register.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        Ranges(register, [(1000, SIZE)]).take()


def test_ids_inside_and_outside() -> None:
    ids = IdRange(100_000, 1000)
    assert (ids.inside(100_000), ids.inside(100_999), ids.inside(101_000), ids.inside(0)) == (0, 999, None, None)
    assert ids.outside(33) == 100_033
    with pytest.raises(ValueError, match="1000"):
        ids.outside(1000)


def test_the_defaults_leave_out_what_others_were_given(tmp_path: Path) -> None:
    users, groups = tmp_path / "subuid", tmp_path / "subgid"
    assert pools("", (users, groups)) == list(DEFAULT)
    first, count = DEFAULT[0]
    users.write_text(f"# of others\nalice:100000:65536\nbob:{first + SIZE}:{SIZE}\nnonsense\n")
    assert pools("", (users, groups)) == [(first, SIZE), (first + 2 * SIZE, count - 2 * SIZE)]
    groups.write_text(f"containers:{first}:{count}\n")
    assert pools("", (users, groups)) == []


def test_lines_of_seawall_are_the_nodes(tmp_path: Path) -> None:
    users, groups = tmp_path / "subuid", tmp_path / "subgid"
    users.write_text("seawall:200000:655360\n")
    assert pools("", (users, groups)) == list(DEFAULT)
    groups.write_text("seawall:300000:655360\n")
    assert pools("", (users, groups)) == [(300_000, 555_360)]


def test_ranges_that_are_asked_for() -> None:
    assert pools("100000:131072, 400000:65536") == [(100_000, 131_072), (400_000, 65_536)]


@pytest.mark.parametrize("text", ["100000", "a:b", "0:65536", "100000:65535", "4294930000:65536", "-1:65536", ","])
def test_ranges_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidRanges):
        pools(text)


def test_tenants() -> None:
    tenants = Tenants()
    tenants.move_in("one", IdRange(100_000))
    tenants.move_in("two", IdRange(200_000, 10))
    assert [tenants.inside(uid) for uid in (0, 100_033, 200_009, 200_010)] == [0, 33, 9, 200_010]
    tenants.move_out("one")
    assert tenants.inside(100_033) == 100_033
    assert tenants.of("two") == IdRange(200_000, 10)


def test_the_hosts_ids_are_no_range() -> None:
    assert range_of(os.getpid()) is None
