"""`seawalld` before it serves: settings, privileges, one daemon a home. (Serving is tests/e2e.)"""

import os
import stat

import pytest
from click.testing import CliRunner

from node import daemon
from node.daemon import check_privileges, held, main
from node.errors import HomeBusy, MissingPrivilege
from node.linux import capabilities
from node.rootless import link
from node.rootless.link import HolderGone
from node.settings import InvalidSettings, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings.make(tmp_path / "home")


def test_a_second_daemon_on_a_home_is_refused_and_told_who_has_it(settings):
    refused = pytest.raises(HomeBusy, match=rf"process {os.getpid()}\) uses .*another --home")
    with held(settings), refused, held(settings):
        pass
    with held(settings):
        assert (settings.home / "lock").read_text() == f"{os.getpid()}\n"


def test_the_home_is_nobody_elses(settings):
    before = os.umask(0)
    try:
        with held(settings):
            for folder in (settings.home, settings.containers, settings.volumes, settings.content, settings.snapshots):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_user_who_may_make_no_namespaces_is_told_and_it_ends_with_1(monkeypatch, tmp_path):
    def refuse(*_):
        raise HolderGone("user namespaces are not permitted here")

    monkeypatch.setattr(daemon.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(link, "find_or_start", refuse)
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "home")])
    assert result.exit_code == 1
    assert result.stderr == "seawalld: seawalld as an ordinary user: user namespaces are not permitted here\n"


def test_a_missing_capability_is_named(monkeypatch):
    monkeypatch.setattr(daemon.os, "geteuid", lambda: 0)
    monkeypatch.setattr(capabilities, "current", lambda: {"effective": tuple(c for c in capabilities.ALL if "NET" not in c)})
    with pytest.raises(MissingPrivilege, match="lacks the capabilities CAP_NET_ADMIN:"):
        check_privileges()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bridge", "a-name-that-is-too-long"], "not an interface name"),
        (["--bridge", "../x"], "not an interface name"),
        (["--socket", "/tmp/" + "x" * 200], "longer than 107 bytes"),
    ],
)
def test_flags_that_cannot_be(flags, message, tmp_path):
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "home"), *flags])
    assert result.exit_code == 1
    assert message in result.stderr


def test_flags_win_over_the_environment_which_wins_over_defaults():
    env = {"SEAWALL_HOME": "/h", "SEAWALL_NODE_BRIDGE": "envbr", "SEAWALL_NODE_INSECURE_REGISTRIES": "a:1,b:2",
           "SEAWALL_NODE_SNAPSHOTTER": "vfs"}  # fmt: skip
    settings = Settings.from_environment(env, bridge="flagbr")
    assert (str(settings.home), str(settings.socket)) == ("/h/node", "/h/node.sock")
    assert settings.bridge_name == "flagbr"
    assert settings.insecure_registries == ("a:1", "b:2")
    assert settings.snapshotter == "vfs"
    assert str(Settings.from_environment(env, home="/x").socket) == "/x/node.sock"
    with pytest.raises(InvalidSettings, match="unknown snapshotter"):
        Settings.from_environment({"SEAWALL_NODE_SNAPSHOTTER": "zfs"})


def test_two_homes_share_no_name_of_the_kernel():
    one, two = Settings.make("/a"), Settings.make("/b")
    assert one.cgroup_parent != two.cgroup_parent
    assert one.nft_table != two.nft_table
    assert one.bridge_name != two.bridge_name
    assert len(one.bridge_name) <= 15
    assert Settings.make("/a").tag == one.tag
