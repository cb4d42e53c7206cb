"""Compiled filters are found again by their profile, in memory and in a folder that is ours alone."""

import os
from pathlib import Path

import pytest

from node.linux import capabilities, seccomp, seccomp_cache
from node.linux.seccomp_cache import Programs

DEFAULT = seccomp.default_profile(capabilities.DEFAULT)
LOGGED = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each profile that the compiler was asked for."""
    seen: list[object] = []
    compiler = seccomp_cache._compile

    def counting(profile: dict[str, object]) -> bytes:
        seen.append(profile)
        return compiler(profile)

    monkeypatch.setattr(seccomp_cache, "_compile", counting)
    return seen


def test_memory_alone(compiled: list[object]) -> None:
    programs = Programs()
    for _ in range(3):
        assert programs.of(DEFAULT) == (seccomp.compile_profile(DEFAULT), 0)
        assert programs.of(LOGGED)[1] == 2
    assert len(compiled) == 2
    for number in range(200):
        programs.of({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": number})
    assert len(programs._known) <= 64


def test_another_process_finds_it_in_the_folder(tmp_path: Path, compiled: list[object]) -> None:
    folder = tmp_path / "filters"
    for _ in range(3):
        assert Programs(str(folder)).of(DEFAULT)[0] == seccomp.compile_profile(DEFAULT)
        assert Programs(str(folder)).of(LOGGED)[1] == 2
    assert len(compiled) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_damaged_file_and_one_with_the_same_name_are_made_again(
    tmp_path: Path, compiled: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Programs(str(tmp_path)).of(DEFAULT)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-5], b"", whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]):
        file.write_bytes(damaged)
        assert Programs(str(tmp_path)).of(DEFAULT) == wanted
    assert file.read_bytes() == whole
    file.unlink()
    # All profiles under one name: none is taken for another.
    monkeypatch.setattr(seccomp_cache.zlib, "crc32", lambda _data: 7)
    for _ in range(2):
        assert Programs(str(tmp_path)).of(DEFAULT) == wanted
        assert Programs(str(tmp_path)).of(LOGGED) == (seccomp.compile_profile(LOGGED), 2)


def test_the_compilers_next_version_uses_nothing_old(
    tmp_path: Path, compiled: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    Programs(str(tmp_path)).of(DEFAULT)
    monkeypatch.setattr(seccomp_cache, "_compiler", lambda: b"another")
    Programs(str(tmp_path)).of(DEFAULT)
    assert len(compiled) == 2


def test_a_folder_that_others_write_in_or_a_link_is_not_used(tmp_path: Path) -> None:
    shared, link, file = tmp_path / "shared", tmp_path / "link", tmp_path / "file"
    shared.mkdir()
    shared.chmod(0o777)
    link.symlink_to(tmp_path)
    file.touch()
    for folder in (shared, link, file, tmp_path / "no" / "such"):
        assert Programs(str(folder)).of(DEFAULT)[0]
    assert list(shared.iterdir()) == []
    if os.geteuid() == 0:
        own = tmp_path / "theirs"
        own.mkdir(mode=0o700)
        os.chown(own, 1234, 1234)
        Programs(str(own)).of(DEFAULT)
        assert list(own.iterdir()) == []


def test_the_folder_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp_cache, "_FILES", 5)
    for number in range(20):
        Programs(str(tmp_path)).of({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": number})
    assert 0 < len(list(tmp_path.iterdir())) <= 5


def test_a_profile_that_is_wrong_is_said_to_be(tmp_path: Path) -> None:
    for programs in (Programs(), Programs(str(tmp_path))):
        with pytest.raises(seccomp.InvalidProfile, match="unknown seccomp action"):
            programs.of({"defaultAction": "SCMP_ACT_PERHAPS"})
    assert list(tmp_path.iterdir()) == []
