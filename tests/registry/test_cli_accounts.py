"""`user`, `token` and `policy` on the database itself."""

import pytest
from click.testing import CliRunner

from registry.cli import main


@pytest.fixture
def run(settings):
    def command(*arguments: str, given: str | None = None, status: int = 0) -> str:
        words = [*arguments[:2], "--data", str(settings.data), *arguments[2:]]
        result = CliRunner().invoke(main, words, input=given, catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result.output

    return command


def test_users(run) -> None:
    assert run("user", "add", "ann", "--password-stdin", "--group", "dev", "--group", "ops", given="correct horse\n") == "made user ann\n"
    assert "already" in run("user", "add", "ann", "--no-password", status=1)
    assert "8 characters" in run("user", "add", "bob", "--password-stdin", given="short\n", status=1)
    assert "not a name" in run("user", "add", "a b", "--no-password", status=1)
    run("user", "add", "root", "--no-password", "--admin")
    assert run("user", "list") == "ann\tdev,ops\t-\nroot\t-\tadmin, no password\n"
    run("user", "set", "ann", "--no-groups", "--disable")
    assert run("user", "list").splitlines()[0] == "ann\t-\tdisabled"
    assert "exclude" in run("user", "set", "ann", "--no-groups", "--group", "x", status=1)
    run("user", "password", "ann", given="another horse\nanother horse\n")
    assert "no user 'eve'" in run("user", "password", "eve", "--password-stdin", given="another horse\n", status=1)
    assert "last administrator" in run("user", "remove", "root", status=1)
    run("user", "remove", "root", "--force")
    run("user", "remove", "ann")
    assert run("user", "list") == ""


def test_tokens(run) -> None:
    run("user", "add", "ann", "--no-password")
    text = run("token", "create", "ci", "--owner", "user:ann", "--repository", "team/*=pull,push", "--repository", "base", "--expires", "30d")
    assert "swr_" in text
    assert run("token", "list").startswith("ci\tuser:ann\tteam/*=pull,push base=pull\t20")
    assert "already" in run("token", "create", "ci", status=1)
    assert "no user 'eve'" in run("token", "create", "x", "--owner", "user:eve", status=1)
    assert "not a time" in run("token", "create", "x", "--expires", "soon", status=1)
    assert "unknown action" in run("token", "create", "x", "--repository", "a=write", status=1)
    assert "user:NAME or group:NAME" in run("token", "create", "x", "--owner", "anonymous", status=1)
    assert "swa_" in run("token", "admin")
    assert "swa_" in run("token", "admin")
    run("token", "revoke", "ci")
    assert "no robot 'ci'" in run("token", "revoke", "ci", status=1)
    assert [line.split("\t")[0] for line in run("token", "list").splitlines()] == ["admin", "admin-2"]
    assert run("token", "rotate-key").startswith("new key ")


def test_policies(run, tmp_path) -> None:
    run("user", "add", "ann", "--no-password", "--group", "dev")
    run("policy", "set", "team/**", "group:dev", "pull,push")
    run("policy", "set", "team/secret", "anonymous", "none")
    assert run("policy", "list") == "team/**\tgroup:dev\tpull,push\nteam/secret\tanonymous\tnone\n"
    assert run("policy", "check", "team/app", "user:ann") == "overwrite,pull,push\tby team/**\n"
    assert run("policy", "check", "team/secret", "user:ann") == "nothing\tby team/secret\n"
    assert run("policy", "check", "other", "anonymous") == "nothing\tby no pattern\n"
    assert run("policy", "check", "team/app", "group:dev") == "overwrite,pull,push\tby team/**\n"
    assert "no user 'eve'" in run("policy", "check", "team/app", "user:eve", status=1)
    assert "unknown action" in run("policy", "set", "a", "anonymous", "write", status=1)
    assert "not a subject" in run("policy", "set", "a", "ann", "pull", status=1)
    assert "not a pattern" in run("policy", "set", "A", "anonymous", "pull", status=1)
    assert run("policy", "remove", "team/secret") == "removed 1\n"
    assert "no policy" in run("policy", "remove", "team/secret", "anonymous", status=1)
    file = tmp_path / "policies.toml"
    file.write_text('[policies."public/**"]\nanonymous = ["pull"]\n"user:ann" = ["pull", "create"]\n')
    assert run("policy", "load", str(file)) == "2 policies\n"
    assert run("policy", "list").splitlines() == ["public/**\tanonymous\tpull", "public/**\tuser:ann\tcreate,pull"]


@pytest.mark.parametrize(("text", "fault"), [
    ("[policies", "not TOML"), ("[rules]", "'rules'"), ("policies = 1", "not a table"), ('[policies]\n"a" = 1', "'a'"),
    ('[policies."a"]\nanonymous = "pull"', "list of actions"), ('[policies."a"]\nanonymous = ["write"]', "unknown action"),
    ('[policies."A"]\nanonymous = ["pull"]', "not a pattern"), ('[policies."a"]\nann = ["pull"]', "not a subject"),
])
def test_a_file_with_a_fault_changes_nothing(run, tmp_path, text, fault) -> None:
    run("policy", "set", "team/**", "anonymous", "pull")
    file = tmp_path / "policies.toml"
    file.write_text(text)
    assert fault in run("policy", "load", str(file), status=1)
    assert run("policy", "list") == "team/**\tanonymous\tpull\n"
