"""Users and groups as the image's own files say, whatever is in them."""

import pytest

from node.containers.bundle.users import ProcessUser, UnknownUser, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment:x:5:5:::
broken line
web:x:101:102:Web:/srv/web:/bin/false
1000:x:7:7:named like a number:/trap:/bin/sh
huge:x:99999999999:1:::/
nohome:x:8:8::
"""
GROUP = b"""root:x:0:root
wheel:x:10:root,web
audio:x:18:web
broken
big:x:4294967296:web
docker:x:999:
"""


def read(path):
    return {"/etc/passwd": PASSWD, "/etc/group": GROUP}.get(path)


def nothing(_path):
    return None


@pytest.mark.parametrize(
    ("text", "extra", "expected"),
    [
        ("", (), ProcessUser(0, 0, (10,), "/root")),
        ("root", (), ProcessUser(0, 0, (10,), "/root")),
        ("web", (), ProcessUser(101, 102, (10, 18), "/srv/web")),
        ("101", (), ProcessUser(101, 102, (10, 18), "/srv/web")),
        ("web:audio", (), ProcessUser(101, 18, (), "/srv/web")),
        ("web:7", (), ProcessUser(101, 7, (), "/srv/web")),
        ("1000", (), ProcessUser(1000, 0, (), "/")),
        ("1000:1000", (), ProcessUser(1000, 1000, (), "/")),
        ("nohome", (), ProcessUser(8, 8, (), "/")),
        ("web", ("docker", "5"), ProcessUser(101, 102, (10, 18, 999, 5), "/srv/web")),
    ],
)
def test_resolves(text, extra, expected):
    assert resolve_user(text, extra, read) == expected


def test_a_number_is_never_a_name():
    assert resolve_user("1000", (), read).uid == 1000


def test_an_image_without_files_has_root_and_numbers():
    assert resolve_user("", (), nothing) == ProcessUser(0, 0, (), "/")
    assert resolve_user("5:6", (), nothing) == ProcessUser(5, 6, (), "/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("web:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("99999999999", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("0:4294967296", "uids and gids must be in range 0-2147483647"),
        ("huge", "unable to find user huge: no matching entries in passwd file"),
        ("-1", "unable to find user -1: no matching entries in passwd file"),
        ("١", "unable to find user ١: no matching entries in passwd file"),
    ],
)
def test_refuses_in_dockers_words(text, message):
    with pytest.raises(UnknownUser, match=f"^{message}$"):
        resolve_user(text, (), read)


def test_unknown_extra_group_is_refused():
    with pytest.raises(UnknownUser, match="unable to find group nogroup"):
        resolve_user("", ("nogroup",), read)
