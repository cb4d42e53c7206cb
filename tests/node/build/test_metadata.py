"""Instructions that only say something."""

from typing import Any

import pytest

from node.build import metadata
from node.dockerfile import shell, typed
from node.dockerfile.document import parse
from node.dockerfile.errors import InvalidInstruction

CONFIG = {"Env": ["A=1", "PATH=/bin"], "Cmd": ["old"], "Labels": {"x": "y"}, "WorkingDir": "/w"}


def told(text: str, *, cmd_set: bool = False) -> tuple[dict[str, Any], str]:
    says = typed.of(parse(text.encode()).instructions[0])
    return metadata.carried_out(CONFIG, says, lambda word: shell.word(word, {"A": "1", "N": "8"}), cmd_set=cmd_set)


@pytest.mark.parametrize(("text", "field", "value", "line"), [
    ("ENV B=$A C='x y'", "Env", ["A=1", "PATH=/bin", "B=1", "C=x y"], "ENV B=1 C=x y"),
    ("ENV A=2 B=$A", "Env", ["A=2", "PATH=/bin", "B=1"], "ENV A=2 B=1"),
    ("LABEL k=v$A", "Labels", {"x": "y", "k": "v1"}, "LABEL k=v1"),
    ("CMD echo $A", "Cmd", ["/bin/sh", "-c", "echo $A"], 'CMD ["/bin/sh" "-c" "echo $A"]'),
    ('ENTRYPOINT ["a"]', "Cmd", None, 'ENTRYPOINT ["a"]'),
    ("USER u$A", "User", "u1", "USER u1"),
    ("EXPOSE ${N}0 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}, "EXPOSE [80/tcp 53/udp]"),
    ("VOLUME /a$A /b", "Volumes", {"/a1": {}, "/b": {}}, "VOLUME [/a1 /b]"),
    ("STOPSIGNAL SIG$A", "StopSignal", "SIG1", "STOPSIGNAL SIG1"),
    ("HEALTHCHECK --interval=2s CMD x", "Healthcheck", {"Test": ["CMD-SHELL", "x"], "Interval": 2 * 10**9},
     "HEALTHCHECK &{Test:[CMD-SHELL x] Interval:2s}"),
    ("ONBUILD RUN x", "OnBuild", ["RUN x"], "ONBUILD RUN x"),
    ('SHELL ["bash", "-c"]', "Shell", ["bash", "-c"], 'SHELL ["bash" "-c"]'),
])  # fmt: skip
def test_what_they_change(text: str, field: str, value: object, line: str) -> None:
    config, said = told(text)
    assert (config.get(field), said) == (value, line)


def test_an_entrypoint_leaves_a_command_of_its_own_stage() -> None:
    assert told('ENTRYPOINT ["a"]', cmd_set=True)[0]["Cmd"] == ["old"]


@pytest.mark.parametrize("text", ["USER $NONE", "EXPOSE $NONE", "EXPOSE x", "VOLUME $NONE", "STOPSIGNAL a/b"])
def test_what_is_empty_or_wrong(text: str) -> None:
    with pytest.raises(InvalidInstruction):
        told(text)


def test_where_workdir_leads() -> None:
    assert metadata.workdir(CONFIG, "a/../b") == "/w/b"
    assert metadata.workdir({}, "../..") == "/"
    assert metadata.workdir(CONFIG, "/c/") == "/c"


def test_every_image_has_a_path() -> None:
    assert metadata.with_path({})["Env"] == [f"PATH={metadata.PATH}"]
    assert metadata.with_path(CONFIG) is CONFIG
