"""`docker top` of processes that everybody has: this one."""

import os

import pytest

from node.containers.top import processes
from ocispec.errors import InvalidArgument, Unimplemented


def test_full_format():
    shown = processes([os.getpid()], "")
    assert shown.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    row = dict(zip(shown.titles, shown.rows[0], strict=True))
    assert row["PID"] == str(os.getpid())
    assert row["PPID"] == str(os.getppid())
    assert "python" in row["CMD"]


def test_bsd_format_and_chosen_columns():
    assert processes([os.getpid()], "aux").titles[:4] == ("USER", "PID", "%CPU", "%MEM")
    shown = processes([os.getpid()], "-o pid,comm,rss,etime")
    assert shown.titles == ("PID", "COMMAND", "RSS", "ELAPSED")
    assert int(shown.rows[0][2]) > 1000


def test_who_has_ended_is_left_out():
    assert processes([2**22 + 5], "").rows == ()


@pytest.mark.parametrize("args", ["-o nope,pid", "-o comm"])
def test_refused(args):
    with pytest.raises(InvalidArgument):
        processes([], args)


def test_what_is_not_done_says_so():
    with pytest.raises(Unimplemented, match="ps options '--forest'"):
        processes([], "--forest")
