"""What each instruction may say, and the stages a target needs."""

import json
from pathlib import Path

import pytest

from node.dockerfile import typed
from node.dockerfile.document import parse
from node.dockerfile.errors import InvalidDockerfile
from node.dockerfile.runmounts import RunMount
from node.dockerfile.stages import Options, Plan, Source, plan, script

BUILDKITS_NONSENSE = ("parser-testfiles/flags/", "parser-testfiles/health/")
"""Flags and arguments made up to test the parser alone."""


def only(text: str) -> typed.Typed:
    return script(parse(f"FROM a\n{text}\n".encode())).stages[0].steps[0].says


def test_every_dockerfile_of_others_is_understood(shared: Path) -> None:
    seen = 0
    for line in (shared / "dockerfiles/oracle.jsonl").read_text().splitlines():
        told = json.loads(line)
        if "error" in told or any(part in told["file"] for part in BUILDKITS_NONSENSE):
            continue
        for instruction in parse((shared / "dockerfiles" / told["file"]).read_bytes()).instructions:
            typed.of(instruction)
            seen += 1
    assert seen > 3400


@pytest.mark.parametrize(("text", "wanted"), [
    ("RUN --mount=type=cache,target=/c,id=x,sharing=locked --network=none a",
     typed.Run(typed.Command(("a",), exec_form=False),
               (RunMount("cache", "/c", id="x", sharing="locked", read_only=False),), "none")),
    ("RUN --mount=from=b [\"a\", \"b\"]",
     typed.Run(typed.Command(("a", "b"), exec_form=True), (RunMount("bind", source_stage="b"),))),
    ("RUN --mount=type=secret,id=t,env=TOKEN --security=insecure a",
     typed.Run(typed.Command(("a",), exec_form=False),
               (RunMount("secret", id="t", variable="TOKEN", read_only=False),), security="insecure")),
    ("RUN --mount=type=tmpfs,target=/t,size=2m a",
     typed.Run(typed.Command(("a",), exec_form=False), (RunMount("tmpfs", "/t", size=2 << 20, read_only=False),))),
    ("COPY --from=x --chown=1:2 --chmod=755 --link --parents --exclude=*.o --exclude=*.a a b /c/",
     typed.Files(("a", "b"), "/c/", source_stage="x", chown="1:2", chmod="755", link=True, parents=True,
                 exclude=("*.o", "*.a"))),
    ("ADD --checksum=sha256:aa --keep-git-dir=true --unpack=false https://x/y /z",
     typed.Files(("https://x/y",), "/z", add=True, checksum="sha256:aa", keep_git_dir=True, unpack=False)),
    ("ARG A B=2", typed.Arg((("A", None), ("B", "2")))),
    ("healthcheck --interval=3s cmd a  b", typed.HealthCheck("--interval=3s cmd a  b")),
    ("ONBUILD COPY a /b", typed.OnBuild("COPY a /b")),
    ("SHELL [\"bash\", \"-c\"]", typed.Shell(("bash", "-c"))),
    ("WORKDIR /a b", typed.WorkDir("/a b")),
])  # fmt: skip
def test_what_is_said(text: str, wanted: typed.Typed) -> None:
    assert only(text) == wanted


def test_copy_of_heredocs() -> None:
    said = only("COPY a <<X /to/\nhello $N\nX")
    assert isinstance(said, typed.Files)
    assert said.sources == ("a",)
    assert said.expanded(str, lambda text: text.replace("$N", "you")).inline[0].content == "hello you\n"


def test_tabs_of_heredocs() -> None:
    said = only("COPY <<-X /to/\n\thello\tyou\n\t\tX")
    assert isinstance(said, typed.Files)
    assert said.inline[0].content == "hello\tyou\n"


def test_a_long_file_is_read_in_time_that_grows_with_it() -> None:
    assert len(script(parse(b"FROM a\n" + b"ENV a=b\n" * 60_000)).stages[0].steps) == 60_000


@pytest.mark.parametrize(("text", "reason"), [
    ("FORM a", "unknown instruction: FORM (did you mean FROM?)"), ("COPY --form=a b c", "did you mean from?"),
    ("COPY a", "requires at least two arguments"), ("COPY a b c", "end with a /"), ("ENV", "at least one argument"),
    ("RUN --network=lan a", "invalid network mode"), ("RUN --mount=type=disk a", "unsupported mount type"),
    ("RUN --mount=type=cache a", "needs a target"), ("RUN --mount=type=ssh,size=1 a", "not an option of a mount"),
    ("RUN --mount=target=/a,tarjet=/b a", "unexpected key 'tarjet'"), ("RUN", "at least one argument"),
    ("RUN --mount=type=cache,target=/a,mode=9 a", "invalid value 9 for mode"), ("SHELL bash", "JSON form"),
    ("ONBUILD ONBUILD RUN a", "isn't allowed"), ("ONBUILD FROM a", "isn't allowed"), ("ONBUILD RAN a", "unknown instr"),
    ("HEALTHCHECK a", "try CMD"), ("HEALTHCHECK CMD", "Missing command"), ("COPY --link=maybe a b", "boolean"),
    ("COPY --from=a --from=b c d", "duplicate flag"), ("COPY --chown a b", "missing a value"),
    ("VOLUME [\"\"]", "empty string"), ("ARG =1", "can not be blank"), ("ADD --from=a b c", "unknown flag: --from"),
    ("FROM a as 1x", "invalid name for build stage"), ("FROM a b", "one or three arguments"),
])  # fmt: skip
def test_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidDockerfile) as caught:
        script(parse(f"FROM a\n{text}\n".encode()))
    assert reason in caught.value.reason
    assert caught.value.line == 2


FILE = """ARG VERSION=1 OS=debian:${VERSION}
FROM $OS AS base
FROM base AS one
RUN --mount=from=tools,target=/t x
FROM --platform=$BUILDPLATFORM scratch AS two
COPY --from=0 / /
COPY --from=docker.io/library/busybox / /
FROM golang AS tools
FROM unused
FROM two
COPY --from=one /a /b
"""


def planned(text: str, **options: object) -> Plan:
    return plan(script(parse(text.encode())), Options(**options))  # type: ignore[arg-type]


def test_only_what_is_needed_in_an_order_that_works() -> None:
    found = planned(FILE, platform_args={"BUILDPLATFORM": "linux/arm64"}, build_args={"VERSION": "12"})
    names = [needed.stage.name for needed in found.needed]
    assert set(names) == {"base", "one", "two", "tools", "5"}
    assert names[-1] == "5"
    assert names.index("tools") < names.index("one")
    by_name = {needed.stage.name: needed for needed in found.needed}
    assert by_name["base"].base == Source(image="debian:12")
    assert by_name["one"].base == Source(stage=0)
    assert (by_name["two"].base, by_name["two"].platform) == (Source(), "linux/arm64")
    assert by_name["two"].uses == {"0": Source(stage=0), "docker.io/library/busybox":
                                   Source(image="docker.io/library/busybox")}
    assert found.arguments == {"VERSION": "12", "OS": "debian:12"}


def test_a_target_by_name_and_number() -> None:
    here = {"BUILDPLATFORM": "linux/amd64"}
    assert [needed.stage.name for needed in planned(FILE, target="ONE", platform_args=here).needed][-1] == "one"
    assert [needed.stage.name for needed in planned(FILE, target="0", platform_args=here).needed] == ["base"]


def test_named_contexts_win() -> None:
    found = planned("FROM a AS b\nFROM alpine\nCOPY --from=b / /\n", contexts=frozenset({"b", "alpine"}))
    assert [(needed.base, needed.uses) for needed in found.needed] == [
        (Source(context="alpine"), {"b": Source(context="b")})]


@pytest.mark.parametrize(("text", "options", "reason"), [
    ("FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /\n", {}, "circular dependency"),
    ("FROM a AS x\nCOPY --from=x / /\n", {}, "circular dependency"),
    ("FROM a\nCOPY --from=3 / /\n", {}, "invalid stage index 3"), ("FROM a\n", {"target": "no"}, "'no'"),
    ("FROM $NOTHING\n", {}, "should not be blank"), ("FROM --platform=$NO a\n", {}, "empty platform"),
    ("RUN a\nFROM b\n", {}, "no build stage"), ("ARG A\n", {}, "no build stage"),
])  # fmt: skip
def test_plans_that_cannot_be(text: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidDockerfile) as caught:
        planned(text, **options)
    assert reason in str(caught.value)


def test_many_stages_are_bounded() -> None:
    with pytest.raises(InvalidDockerfile, match="more than 1000 stages"):
        planned("FROM a\n" * 1001)
