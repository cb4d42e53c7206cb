"""Mounts of a create body: what is taken, what is refused in Docker's words, and what inspect shows again."""

from typing import Any

import pytest

from node.api.types.fields import Fields
from node.api.types.mounts import mount_view, parse_mounts
from node.api.version import NEWEST, ApiVersion
from node.containers.idmap import InvalidIdMap, exchange, parse_idmap
from node.containers.mountspec import MountSpec
from ocispec.errors import InvalidArgument


def parsed(*mounts: dict[str, Any], version: ApiVersion = NEWEST, **labels: str) -> tuple[MountSpec, ...]:
    return parse_mounts(Fields({"Mounts": list(mounts)}), version, {f"seawall.{k}": v for k, v in labels.items()})


FULL = (
    {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True,
     "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": True, "CreateMountpoint": True}},
    {"Type": "bind", "Source": "/a", "Target": "/c", "ReadOnly": True,
     "BindOptions": {"NonRecursive": True, "ReadOnlyNonRecursive": True, "IdMap": "uids=0-1000-1;gids=0-1000-1"}},
    {"Type": "volume", "Source": "data", "Target": "/d",
     "VolumeOptions": {"NoCopy": True, "Labels": {"k": "v"}, "Subpath": "in/side",
                       "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}},
    {"Type": "tmpfs", "Target": "/e",
     "TmpfsOptions": {"SizeBytes": 1000, "Mode": 0o700, "Options": [["exec"], ["uid", "1000"]]}},
    {"Type": "image", "Source": "busybox", "Target": "/f", "ReadOnly": True, "ImageOptions": {"Subpath": "bin"}},
    {"Type": "secret", "Source": "key", "Target": "/g", "SecretOptions": {"UID": "33", "GID": "34", "Mode": 0o400}},
)  # fmt: skip


def test_inspect_shows_what_was_asked() -> None:
    assert [mount_view(mount) for mount in parsed(*FULL)] == list(FULL)


def test_a_mount_in_words_of_its_own() -> None:
    bind, other, volume, tmpfs, image, secret = parsed(*FULL)
    assert (bind.read_only_below, other.read_only_below, other.recursive) == ("force", "no", False)
    assert (volume.subpath, volume.driver_options["type"]) == ("in/side", "tmpfs")
    assert tmpfs.tmpfs_options == ("exec", "uid=1000")
    assert (image.source, image.subpath) == ("busybox", "bin")
    assert (secret.owner, secret.file_mode, secret.read_only) == ((33, 34), 0o400, True)


def test_binds_say_their_options_in_one_word() -> None:
    host = Fields({"Binds": ["/a:/b:ro,rslave,z", "/a:/c:idmap", "v:/d:nocopy,idmap=uids=0-5-1;gids=0-6-1"]})
    first, second, third = parse_mounts(host)
    assert (first.read_only, first.propagation, second.idmap) == (True, "rslave", "auto")
    assert (third.no_copy, third.idmap) == (True, "uids=0-5-1;gids=0-6-1")
    for wrong in ("/a:/b:ro,rw", "/a:/b:shared,slave", "/a:/b:idmap=x", "/a:/b:nocopy", "/a:/b:what", "/a:b", "/a:/",
                  "/a:/b:c:d", "", ":/b", "/a:", "v$:/b", "/a:/b\0"):
        with pytest.raises(InvalidArgument):
            parse_mounts(Fields({"Binds": [wrong]}))


def test_labels_ask_for_secrets_where_a_client_cannot() -> None:
    mounts = parsed(secrets="password, key:/etc/tls/key:0400:33:34", configs="motd")
    assert [(m.kind, m.source, m.target) for m in mounts] == [
        ("secret", "password", "/run/secrets/password"), ("secret", "key", "/etc/tls/key"), ("config", "motd", "/motd"),
    ]  # fmt: skip
    assert (mounts[1].owner, mounts[1].file_mode) == ((33, 34), 0o400)
    again = parsed(*(mount_view(mount) for mount in mounts), secrets="password")
    assert len(again) == 3, "a container made again from what inspect shows has them once"
    for wrong in (":x", "a:b:9", "a:b:4:x", "a:b:4:0:0:0", "a:b:77777"):
        with pytest.raises(InvalidArgument):
            parsed(secrets=wrong)


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"Type": "bind", "Source": "/a"}, "field Target must not be empty"),
        ({"Type": "bind", "Target": "/a"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "a", "Target": "/a"}, "mount path must be absolute"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "VolumeOptions": {}}, "VolumeOptions must not be specified"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"Propagation": "x"}}, "propagation mode: x"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"ReadOnlyForceRecursive": True}},
         "ReadOnly must be true"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": True,
          "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rslave"}}, "must be rprivate"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": True,
          "BindOptions": {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True}}, "mutually exclusive"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"IdMap": "uids"}}, "invalid idmap"),
        ({"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "../x"}}, "subpath must be a relative path"),
        ({"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "/x"}}, "subpath must be a relative path"),
        ({"Type": "tmpfs", "Target": "/a", "Source": "x"}, "field Source must not be specified"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": -1}}, "invalid tmpfs size"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Mode": 0o17777}}, "invalid tmpfs mode"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["a", "b", "c"]]}}, "invalid option array"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["size", "1,exec"]]}}, "a comma in it"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": "exec"}}, "must be a list of lists"),
        ({"Type": "image", "Target": "/a"}, "field Source must not be empty"),
        ({"Type": "secret", "Source": "a", "SecretOptions": {"UID": "root"}}, "UID must be a number"),
        ({"Type": "secret", "Source": "a", "SecretOptions": {"Mode": -1}}, "must be a file mode"),
        ({"Type": "floppy", "Target": "/a"}, 'mount type unknown: "floppy"'),
    ],
)  # fmt: skip
def test_mounts_that_cannot_be(mount: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        parsed(mount)


def test_older_versions() -> None:
    ro = {"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": True}
    assert parsed(ro, version=ApiVersion(1, 43))[0].read_only_below == "no"
    assert parsed(ro, version=ApiVersion(1, 44))[0].read_only_below == ""
    for mount, minor, text in (
        ({"Type": "image", "Source": "x", "Target": "/a"}, 47, 'Mount type "Image" needs API v1.48 or newer'),
        ({"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "x"}}, 44,
         "VolumeOptions.Subpath needs API v1.45 or newer"),
        ({"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"CreateMountpoint": True}}, 41,
         "BindOptions.CreateMountpoint needs API v1.42 or newer"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            parsed(mount, version=ApiVersion(1, minor))


def test_id_maps() -> None:
    found = parse_idmap("uids=0-1000-1#1-2000-10")
    assert found is not None
    assert found.uids == found.gids == ((0, 1000, 1), (1, 2000, 10))
    assert exchange((1000, 100), (1000, 100)) is None
    swapped = exchange((1000, 100), (0, 100))
    assert swapped is not None
    assert swapped.uids == ((0, 1000, 1), (1, 1, 999), (1000, 0, 1), (1001, 1001, 0xFFFF_FFFF - 1001))
    assert swapped.gids == ((0, 0, 0xFFFF_FFFF),)
    for wrong in ("uids=0-0-0", "uids=0-1", "uids=0-0-4294967296", "uids=0-0-2#1-5-1", "uids=0-5-1#9-5-1", "x=0-0-1",
                  "uids=0-0-1;uids=0-0-1", "uids=" + "#".join(f"{n}-{n}-1" for n in range(400))):
        with pytest.raises(InvalidIdMap):
            parse_idmap(wrong)
