"""What systemd is told: names of slices and scopes, limits as its properties, and the wire they go by."""

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.linux.cgroups import CgroupError, units
from node.linux.cgroups.hierarchies import is_place
from node.linux.dbus import Variant, kinds, marshal, unmarshal


@pytest.mark.parametrize(("given", "unit", "path"), [
    ("machine.slice:seawall:abc", "seawall-abc.scope", "machine.slice/seawall-abc.scope"),
    (":runc:1", "runc-1.scope", "system.slice/runc-1.scope"),
    ("a-b-c.slice::x", "x.scope", "a.slice/a-b.slice/a-b-c.slice/x.scope"),
    ("-.slice:p:x", "p-x.scope", "p-x.scope"),
])
def test_places(given: str, unit: str, path: str) -> None:
    place = units.Place(given)
    assert (place.unit, place.path) == (unit, path)
    assert is_place(given)


@pytest.mark.parametrize("text", [
    "", "a/b", "a.slice:b", "a.slice:b:", "a:b:c", "a--b.slice:p:x", "-a.slice:p:x", "a-.slice:p:x", ".slice:p:x",
    "a.slice:p:x.slice", "a.slice:p:x/y", "a/b.slice:p:x", "a.slice:p:x y", "a.slice:p:x\n", "a.slice:p:" + "x" * 300,
])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(CgroupError):
        units.Place(text)


def told(*settings: tuple[str, object], version: int = 252) -> dict[str, Any]:
    return {name: variant.value for name, variant in units.of_settings([(*pair, "") for pair in settings], version)}


def test_limits_as_properties() -> None:
    infinity = (1 << 64) - 1
    assert told(("memory.max", "max"), ("pids.max", 7), ("memory.swap.max", 0)) == {
        "MemoryMax": infinity, "TasksMax": 7, "MemorySwapMax": 0}
    assert told(("memory.high", "7M")) == {"MemoryHigh": 7 << 20}
    assert told(("cpu.max", "150000 100000")) == {"CPUQuotaPerSecUSec": 1_500_000, "CPUQuotaPeriodUSec": 100_000}
    assert told(("cpu.max", "max 50000"))["CPUQuotaPerSecUSec"] == infinity
    assert told(("cpu.max", "33333 100000"))["CPUQuotaPerSecUSec"] == 340_000  # the next whole percent
    assert told(("cpuset.cpus", "0-2,9"))["AllowedCPUs"] == bytes([0b111, 0b10])
    assert told(("io.weight", 50), ("io.weight", "8:0 900")) == {
        "IOWeight": 50, "IODeviceWeight": [("/dev/block/8:0", 900)]}
    assert told(("io.bfq.weight", 1000), ("io.bfq.weight", "8:0 50")) == {
        "IOWeight": 10_000, "IODeviceWeight": [("/dev/block/8:0", 50)]}
    assert told(("io.max", "8:0 rbps=max"), ("io.max", "8:16 rbps=5"), ("io.max", "8:0 wiops=6")) == {
        "IOReadBandwidthMax": [("/dev/block/8:0", infinity), ("/dev/block/8:16", 5)],
        "IOWriteIOPSMax": [("/dev/block/8:0", 6)]}
    assert told(("cpu.idle", 1)) == {"CPUWeight": 0}
    assert told(("cpu.idle", 1), version=249) == {}
    assert told(("hugetlb.2MB.max", 1), ("misc.max", "x 1"), ("cpu.max.burst", 5)) == {}


@pytest.mark.parametrize("pair", [("cpuset.cpus", "2-1"), ("cpuset.cpus", "99999999"), ("cpuset.cpus", "x"),
                                  ("memory.high", "7X"), ("cpu.max", "a b")])
def test_what_systemd_cannot_be_told(pair: tuple[str, object]) -> None:
    with pytest.raises(ValueError):
        told(pair)


# --- the wire --------------------------------------------------------------------------------------------------------

PLAIN = {"y": st.integers(0, 255), "b": st.integers(0, 1), "u": st.integers(0, (1 << 32) - 1),
         "t": st.integers(0, (1 << 64) - 1), "i": st.integers(-(1 << 31), (1 << 31) - 1), "s": st.text(max_size=9),
         "d": st.floats(allow_nan=False)}


KINDS = st.recursive(
    st.sampled_from(sorted(PLAIN)),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda kinds: f"({''.join(kinds)})") | inner.map("a{}".format),
    max_leaves=4)


def value(draw: Callable[[st.SearchStrategy[Any]], Any], kind: str) -> Any:
    if kind in PLAIN:
        return draw(PLAIN[kind])
    if kind[0] == "a":
        return [value(draw, kind[1:]) for _ in range(draw(st.integers(0, 2)))]
    return tuple(value(draw, inner) for inner in kinds(kind[1:-1]))


@given(st.lists(KINDS, max_size=4), st.data())
def test_what_is_written_is_read(signatures: list[str], data: st.DataObject) -> None:
    values = tuple(value(data.draw, kind) for kind in signatures)
    signature = "".join(signatures)
    assert unmarshal(signature, marshal(signature, values)) == values


def test_the_bytes_of_a_call() -> None:
    """As dbus-daemon's own library writes them: each value on a multiple of its size, an array's length without padding."""
    assert marshal("ya(st)v", (7, [("ab", 1)], Variant("s", "c"))) == (
        b"\x07\0\0\0\x10\0\0\0\x02\0\0\0ab\0\0\x01\0\0\0\0\0\0\0\x01s\0\0\x01\0\0\0c\0")
    assert unmarshal("v", marshal("v", (Variant("au", [1, 2]),))) == ([1, 2],)


@given(st.binary(max_size=60), st.sampled_from(["a(yv)", "sa(sv)", "v", "aaas", "(uoss)"]))
def test_nonsense_is_an_error_and_no_loop(data: bytes, signature: str) -> None:
    with contextlib.suppress(ValueError, IndexError, KeyError, struct.error):
        unmarshal(signature, data)
