"""The commands on a registry elsewhere: the same verbs, over the administration API."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from registry.cli import main

COMMAND = Path(sys.executable).with_name("seawall-registry")


class Elsewhere:
    """A registry with accounts, and an administrator who has nothing but its URL and a token."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [COMMAND, "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--workers", "1", "--auth", "accounts"],
            stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.token = self.url = ""
        for line in self.process.stdout:
            words = line.split()
            self.token = next((word for word in words if word.startswith("swa_")), self.token)
            if " listens on " in line:
                self.url = words[3]
                break
        assert self.url
        assert self.token

    def run(self, *words: str, stdin: str = "", token: str | None = None) -> Result:
        """In this process: thirty interpreters would take longer than everything they do."""
        environment = {"SEAWALL_REGISTRY_TOKEN": self.token if token is None else token}
        return CliRunner(env=environment).invoke(main, [*words, "--server", self.url], input=stdin)

    def ok(self, *words: str, stdin: str = "") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    made = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.communicate(timeout=30)


def test_users_robots_and_policies(elsewhere: Elsewhere) -> None:
    elsewhere.ok("user", "add", "ann", "--password-stdin", "--group", "dev", stdin="a password of ann\n")
    assert "ann\tdev\t-" in elsewhere.ok("user", "list").splitlines()
    elsewhere.ok("user", "set", "ann", "--group", "ops", "--admin")
    assert "ann\tops\tadmin" in elsewhere.ok("user", "list").splitlines()
    token = elsewhere.ok("token", "create", "ci", "--repository", "team/**=pull,push", "--expires", "30d")
    assert token.startswith("swr_")
    assert "ci\t-\tteam/**=pull,push" in elsewhere.ok("token", "list")
    elsewhere.ok("policy", "set", "team/**", "group:ops", "pull,delete")
    assert elsewhere.ok("policy", "list") == "team/**\tgroup:ops\tdelete,pull"
    assert elsewhere.ok("policy", "check", "team/app", "group:ops") == "delete,pull\tby team/**"
    elsewhere.ok("policy", "remove", "team/**")
    elsewhere.ok("token", "revoke", "ci")
    elsewhere.ok("user", "remove", "ann")
    assert "ann" not in elsewhere.ok("user", "list")


def test_a_file_of_policies_is_loaded(elsewhere: Elsewhere, tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text('[policies."public/**"]\nanonymous = ["pull"]\n')
    assert elsewhere.ok("policy", "load", str(file)) == "1 policies"
    assert elsewhere.ok("policy", "list") == "public/**\tanonymous\tpull"


def test_rules(elsewhere: Elsewhere) -> None:
    elsewhere.ok("retention", "set", "team/**", "--last", "3")
    assert "team/**:**" in elsewhere.ok("retention", "list")
    assert elsewhere.ok("retention", "check") == "0 would go, 0 stay"
    elsewhere.ok("retention", "remove", "team/**")
    elsewhere.ok("immutable", "set", "team/**", "v*")
    assert elsewhere.ok("immutable", "check", "team/app:v1") == "team/app:v1  immutable by team/**:v*"
    elsewhere.ok("immutable", "remove", "team/**", "v*")
    assert elsewhere.run("immutable", "remove", "team/**", "v*").exit_code == 1
    elsewhere.ok("quota", "set", "team", "1G")
    assert elsewhere.ok("quota", "check").startswith("team  0")
    elsewhere.ok("quota", "remove", "team")


@pytest.mark.parametrize(("words", "message"), [
    (("user", "remove", "nobody"), "there is no user 'nobody'"),
    (("user", "add", "a b", "--no-password"), "not a name for a user"),
    (("token", "admin"), "run it where the registry's database is"),
    (("token", "rotate-key"), "run it where the registry's database is"),
    (("policy", "set", "a/**", "user:x", "fly"), "unknown action"),
    (("user", "list", "--data", "."), "--server is instead of --data"),
])
def test_what_is_refused_says_why(elsewhere: Elsewhere, words: tuple[str, ...], message: str) -> None:
    done = elsewhere.run(*words)
    assert done.exit_code == 1
    assert message in done.stderr


def test_without_the_right_token(elsewhere: Elsewhere) -> None:
    for token in ("", "swa_wrong"):
        done = elsewhere.run("user", "list", token=token)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: ")


def test_a_token_is_not_sent_without_tls() -> None:
    done = CliRunner().invoke(main, ["user", "list", "--server", "http://registry.test:5000"])
    assert done.exit_code == 1
    assert "has no TLS" in done.stderr


def test_every_change_is_in_the_log(elsewhere: Elsewhere) -> None:
    elsewhere.ok("user", "add", "eve", "--no-password")
    rows = sqlite3.connect(elsewhere.data / "registry.db").execute(
        "SELECT actor, detail FROM events WHERE action = 'account.create'").fetchall()
    assert ("admin", "eve") in [(actor, json.loads(detail)["user"]) for actor, detail in rows]
