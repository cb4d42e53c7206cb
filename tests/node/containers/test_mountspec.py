"""`-v` in all its forms, and what it must refuse."""

import pytest

from node.containers.mountspec import InvalidMount, MountSpec, check_target


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "read_only"),
    [
        ("/a:/b", "bind", "/a", "/b", False),
        ("/a/../c//d:/b/./e/", "bind", "/c/d", "/b/e", False),
        ("/a:/b:ro", "bind", "/a", "/b", True),
        ("/a:/b:rw,rslave,z", "bind", "/a", "/b", False),
        ("data:/b", "volume", "data", "/b", False),
        ("data:/b:ro,nocopy", "volume", "data", "/b", True),
        ("//a://b", "bind", "/a", "/b", False),
    ],
)
def test_parses(text, kind, source, target, read_only):
    mount = MountSpec.parse_bind(text)
    assert (mount.kind, mount.source, mount.target, mount.read_only) == (kind, source, target, read_only)
    assert mount.from_bind


def test_gives_back_what_inspect_shows():
    assert MountSpec.parse_bind("/a:/b:ro,rslave").bind_text() == "/a:/b:ro,rslave"
    assert MountSpec.parse_bind("data:/b").bind_text() == "data:/b"


@pytest.mark.parametrize(
    "text",
    ["", ":", "/a", "/a:", ":/b", "/a:b", "/a:/", "/a:/..", "/a:/b:what", "/a:/b:ro:rw", "../up:/b", "a b:/b",
     "/a:/b:nocopy", "/a:/b\0"],
)  # fmt: skip
def test_refuses(text):
    with pytest.raises(InvalidMount):
        MountSpec.parse_bind(text)


def test_a_target_is_absolute_and_not_the_root():
    assert check_target("/data/") == "/data"
    for bad in ("data", "/", "//", "/x/.."):
        with pytest.raises(InvalidMount):
            check_target(bad)
