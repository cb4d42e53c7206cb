"""The rules file and who it means."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node.access.callers import Caller, by_certificate, local
from node.access.rules import FULL, Access, InvalidRules, Level, NotAllowed, load

RULES = """
[[rule]]
user = 4711
rights = "full"

[[rule]]
group = 900
rights = "read"

[[rule]]
certificate = "ci-*"
project = "shop"
binds = ["/srv/shop/"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "access.toml"
    made.write_text(RULES)
    return made


def test_the_first_rule_that_matches_decides(file: Path) -> None:
    access = Access(file)
    assert access.rights_of(Caller(4711, frozenset({900}))).level is Level.FULL
    assert access.rights_of(Caller(1, frozenset({5, 900}))).level is Level.READ
    rights = access.rights_of(Caller(certificate="ci-7"))
    assert (rights.level, rights.project, rights.binds) == (Level.PROJECT, "shop", frozenset({"/srv/shop"}))


@pytest.mark.parametrize("caller", [Caller(1), Caller(certificate="ada"), Caller(certificate=""), Caller(900)])
def test_whom_no_rule_names_has_no_rights(file: Path, caller: Caller) -> None:
    with pytest.raises(NotAllowed, match="no rule names it"):
        Access(file).rights_of(caller)


def test_root_and_a_node_without_rules(file: Path) -> None:
    assert Access(file).rights_of(Caller(0)) == FULL
    assert Access(None).rights_of(Caller(12345)) == FULL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]]\nuser = 1", "rule 1: rights is missing"),
        ("[[rule]]\nuser = 1\nrights = \"most\"", "rights 'most'"),
        ("[[rule]]\nrights = \"full\"", "exactly one of user, group and certificate"),
        ("[[rule]]\nuser = 1\ngroup = 1\nrights = \"full\"", "exactly one"),
        ("[[rule]]\nuser = \"no-such-user-here\"\nrights = \"full\"", "this host has no user 'no-such-user-here'"),
        ("[[rule]]\nuser = 1\nproject = \"../x\"", "project '../x'"),
        ("[[rule]]\nuser = 1\nproject = \"a\"\nrights = \"full\"", "not both"),
        ("[[rule]]\nuser = 1\nproject = \"a\"\nbinds = [\"srv\"]", "absolute paths"),
        ("[[rule]]\nuser = 1\nrights = \"read\"\nbinds = []", "belong to a rule with a project"),
        ("[[rule]]\nuser = 1\nright = \"full\"", "unknown key 'right'"),
        ("[rule]\nuser = 1", "write [[rule]]"),
        ("[[rules]]\nuser = 1", "unknown entry 'rules'"),
        ("[[rule", "access.toml: "),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "access.toml"
    file.write_text(text)
    with pytest.raises(InvalidRules) as raised:
        load(file)
    assert message in raised.value.message


def test_a_reload_that_fails_leaves_the_rules_of_before(file: Path) -> None:
    access = Access(file)
    file.write_text("nonsense")
    with pytest.raises(InvalidRules):
        access.reload()
    assert access.rights_of(Caller(4711)).level is Level.FULL
    file.write_text("")
    access.reload()
    with pytest.raises(NotAllowed):
        access.rights_of(Caller(4711))


@pytest.mark.root
def test_the_kernel_says_who_connects(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        code = f"import os,socket;os.setgroups([7,901]);os.setgid(900);os.setuid(4711);s.connect({str(path)!r})"
        code = code.replace("os.setgroups", "s=socket.socket(socket.AF_UNIX);os.setgroups", 1)
        for folder in (tmp_path, *tmp_path.parents[:3]):
            if os.stat(folder).st_uid == os.getuid() and str(folder) != "/tmp":
                folder.chmod(0o755)
        path.chmod(0o666)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
        connection, _ = listener.accept()
        with connection:
            assert local(connection) == Caller(4711, frozenset({7, 900, 901}))


def test_a_certificate_with_two_names_is_nobody() -> None:
    one = {"subject": ((("organizationName", "x"),), (("commonName", "ci-1"),))}
    assert by_certificate(one).certificate == "ci-1"
    two = {"subject": ((("commonName", "ci-1"),), (("commonName", "root"),))}
    assert by_certificate(two).certificate == ""
