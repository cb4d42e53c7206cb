"""Which runtime a name stands for, today and for containers of before."""

from pathlib import Path

import pytest

from node.containers.errors import CannotStart, InvalidSpec
from node.containers.runtimes import NoSuchRuntime, Runtimes
from node.settings import InvalidSettings, RuntimeSettings, Settings


def test_without_any_all_names_of_docker_are_ours() -> None:
    runtimes = Runtimes.of(RuntimeSettings())
    assert [runtimes.settle(name) for name in ("", "seawall", "runc")] == ["seawall", "seawall", "runc"]
    assert [runtimes.program(name) for name in ("", "seawall", "runc", "io.containerd.runc.v2")] == [None] * 4
    with pytest.raises(InvalidSpec, match="unknown or invalid runtime name: kata"):
        runtimes.settle("kata")


def test_a_name_that_was_given_is_that_program(tmp_path: Path) -> None:
    program = tmp_path / "runc"
    program.touch(0o755)
    runtimes = Runtimes.of(RuntimeSettings("", {"runc": str(program)}))
    found = runtimes.program("runc")
    assert found is not None
    assert (found.path, runtimes.settle("")) == (str(program), "seawall")
    assert [runtimes.foreign(name) for name in ("runc", "seawall", "")] == ["runc", "", ""]
    assert runtimes.described() == {"seawall": "seawall-runtime", "runc": str(program)}


def test_the_default_by_its_path_and_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "other"
    program.touch(0o755)
    assert Runtimes.of(RuntimeSettings(str(program))).settle("") == "other"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Runtimes.of(RuntimeSettings("other")).programs == {"other": str(program)}
    with pytest.raises(NoSuchRuntime, match="--runtime absent: not found"):
        Runtimes.of(RuntimeSettings("absent"))
    with pytest.raises(NoSuchRuntime, match="is no program"):
        Runtimes.of(RuntimeSettings(str(tmp_path / "absent")))


def test_one_that_is_gone_is_named_when_it_is_needed(tmp_path: Path) -> None:
    runtimes = Runtimes.of(RuntimeSettings("", {"gone": str(tmp_path / "gone")}))
    with pytest.raises(CannotStart, match="the runtime gone cannot be used"):
        runtimes.program("gone")
    with pytest.raises(CannotStart, match="--add-runtime kata=PATH"):
        runtimes.program("kata")


@pytest.mark.parametrize("word", ["crun", "=/usr/bin/crun", "crun=crun", "a b=/x", "seawall=/x", "-x=/x"])
def test_what_is_no_runtime(word: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--add-runtime"):
        Settings.from_environment({"SEAWALL_NODE_RUNTIMES": word, "SEAWALL_NODE_HOME": str(tmp_path)})


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment({"SEAWALL_NODE_RUNTIMES": "a=/x/a,b=/x/b", "SEAWALL_NODE_RUNTIME": "a",
                                          "SEAWALL_NODE_HOME": str(tmp_path)})  # fmt: skip
    assert settings.runtimes == RuntimeSettings("a", {"a": "/x/a", "b": "/x/b"})
