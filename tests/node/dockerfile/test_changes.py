"""Instructions on a configuration."""

import pytest

from node.dockerfile.changes import apply
from node.dockerfile.errors import InvalidInstruction
from node.dockerfile.shell import word as expand
from node.dockerfile.words import words

ENV = {"A": "1", "EMPTY": "", "B": "x y"}


@pytest.mark.parametrize(("text", "wanted"), [
    ("$A", "1"), ("${A}b", "1b"), ("$NONE", ""), ("${NONE:-d}", "d"), ("${EMPTY:-d$A}", "d1"), ("${A:+y}", "y"),
    ("${NONE:+y}", ""), (r"\$A", "$A"), ("'$A'", "$A"), ('"$B"', "x y"), ('"a\'b"', "a'b"), ("a$", "a$"),
    (r'"\"q\""', '"q"'), (r'"\n"', r"\n"), ("${NONE:-${A:-z}}", "1"), ("$A$A", "11"),
])  # fmt: skip
def test_variables(text: str, wanted: str) -> None:
    assert expand(text, ENV) == wanted


@pytest.mark.parametrize("text", ["'a", '"a', "${A", "${}", "${NONE:?x}", "${A!}", "${" * 40])
def test_broken_text(text: str) -> None:
    with pytest.raises(InvalidInstruction):
        words(text, ENV)


@pytest.mark.parametrize(("lines", "wanted"), [
    (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
    (["CMD a b"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
    (['SHELL ["bash", "-c"]', "ENTRYPOINT x"], {"Shell": ["bash", "-c"], "Entrypoint": ["bash", "-c", "x"]}),
    (["env A=1 B='2 3'", "ENV C=$A$B"], {"Env": ["A=1", "B=2 3", "C=12 3"]}),
    (["ENV A one two"], {"Env": ["A=one two"]}),
    (["LABEL a.b=c d=\"e f\""], {"Labels": {"a.b": "c", "d": "e f"}}),
    (["EXPOSE 80 53/udp 90-91"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}}),
    (['VOLUME ["/a b"]', "VOLUME /c /d"], {"Volumes": {"/a b": {}, "/c": {}, "/d": {}}}),
    (["USER app:app", "WORKDIR /x", "WORKDIR y/../z"], {"User": "app:app", "WorkingDir": "/x/z"}),
    (["STOPSIGNAL SIGINT", "ONBUILD RUN make"], {"StopSignal": "SIGINT", "OnBuild": ["RUN make"]}),
    (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
    (["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"],
     {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 90 * 10**9, "Retries": 3}}),
    (["USER a\nCMD ls"], {"User": "a", "Cmd": ["/bin/sh", "-c", "ls"]}),
])  # fmt: skip
def test_instructions(lines: list[str], wanted: dict[str, object]) -> None:
    assert apply({}, lines) == wanted


def test_what_was_there_stays() -> None:
    before = {"Env": ["PATH=/bin"], "Labels": {"a": "1"}, "Cmd": ["x"], "Tty": True}
    after = apply(before, ["ENV PATH=$PATH:/x B=2", "LABEL b=2", 'ENTRYPOINT ["e"]'])
    assert after == {"Env": ["PATH=/bin:/x", "B=2"], "Labels": {"a": "1", "b": "2"}, "Entrypoint": ["e"], "Tty": True}
    assert before["Cmd"] == ["x"]


@pytest.mark.parametrize("line", ["RUN x", "FROM a", "COPY a b", "USER", "ENV", "ENV A", "ENV =x", "EXPOSE 0",
                                  "EXPOSE 99999", "EXPOSE a", "STOPSIGNAL a b", "ONBUILD FROM x", "HEALTHCHECK x",
                                  "SHELL ls", "é", "USER 'a", 'VOLUME [""]', "HEALTHCHECK --interval=x CMD y"])  # fmt: skip
def test_what_is_no_change(line: str) -> None:
    with pytest.raises(InvalidInstruction):
        apply({}, [line])
