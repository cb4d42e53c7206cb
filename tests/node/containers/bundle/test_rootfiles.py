"""A path is looked up in layers as overlayfs would, and no link leads out."""

import os

import pytest

from node.containers.bundle.rootfiles import MAX_BYTES, LayeredRoot


@pytest.fixture
def layers(tmp_path):
    for name in ("upper", "middle", "lower"):
        (tmp_path / name / "etc").mkdir(parents=True)
    return tmp_path


def root(layers):
    options = ("lowerdir=middle:lower", "upperdir=upper", "workdir=w")
    return LayeredRoot.of_mount("overlay", "overlay", options, str(layers))


def test_the_topmost_file_wins(layers):
    (layers / "lower/etc/passwd").write_text("lower")
    assert root(layers).read("/etc/passwd") == b"lower"
    (layers / "upper/etc/passwd").write_text("upper")
    assert root(layers).read("/etc/passwd") == b"upper"
    assert root(layers).read("/etc/nothing") is None


def test_a_single_layer_of_a_copying_snapshotter(layers):
    (layers / "lower/etc/passwd").write_text("copied")
    assert LayeredRoot.of_mount("bind", str(layers / "lower"), ("rw",), "").read("etc/passwd") == b"copied"


@pytest.mark.root
def test_whiteouts_hide_and_opaque_folders_cut(layers):
    (layers / "lower/etc/passwd").write_text("lower")
    (layers / "lower/etc/group").write_text("lower")
    os.mknod(layers / "upper/etc/passwd", 0o020000, os.makedev(0, 0))
    assert root(layers).read("/etc/passwd") is None
    os.setxattr(layers / "middle/etc", "trusted.overlay.opaque", b"y")
    assert root(layers).read("/etc/group") is None


def test_a_file_where_lower_layers_have_a_folder_hides_them(layers):
    (layers / "lower/etc/passwd").write_text("lower")
    (layers / "upper/etc").rmdir()
    (layers / "upper/etc").write_text("no folder")
    assert root(layers).read("/etc/passwd") is None


def test_links_stay_inside(layers):
    (layers / "lower/etc/real").write_text("inside")
    (layers / "secret").write_text("outside")
    for name, target in {
        "absolute": "/etc/real",
        "relative": "../etc/real",
        "climbing": "../../../../etc/real",
        "out": "../../secret",
        "host": str(layers / "secret"),
        "loop": "loop",
    }.items():
        (layers / "upper/etc" / name).symlink_to(target)
    (layers / "upper/link").symlink_to("/etc")
    assert root(layers).read("/etc/absolute") == b"inside"
    assert root(layers).read("/etc/relative") == b"inside"
    assert root(layers).read("/etc/climbing") == b"inside"
    assert root(layers).read("/link/real") == b"inside"
    for name in ("out", "host", "loop"):
        assert root(layers).read(f"/etc/{name}") is None
    assert root(layers).is_folder("/link")
    assert not root(layers).is_folder("/link/real")


def test_neither_fifos_nor_endless_files_hold_the_daemon(layers):
    os.mkfifo(layers / "upper/etc/passwd")
    assert root(layers).read("/etc/passwd") is None
    with (layers / "upper/etc/group").open("wb") as file:
        file.truncate(MAX_BYTES * 3)
    assert len(root(layers).read("/etc/group")) == MAX_BYTES


def test_no_descriptor_is_left_open(layers):
    (layers / "lower/etc/passwd").write_text("lower")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/etc/passwd", "/etc/nothing", "/a/b/c", "/etc/passwd/x"):
        root(layers).read(path)
    assert len(os.listdir("/proc/self/fd")) == before
