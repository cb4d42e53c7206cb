"""`docker build` against seawalld and Docker's classic builder, and buildah beside them, in one run, on tmpfs.

    sudo .venv/bin/python -m bench.node.build --image ../shared/images/fanal-alpine-310.tar.gz

An application of ten instructions: cold, fully cached, after one source file changed; four independent stages; a
context of 200 MB of which nothing is used. Prints medians in milliseconds and ratios (the better of the others / ours).
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.node.run import NAME, both_engines

APPLICATION = f"""FROM {NAME}
ARG VERSION=1
ENV APP_HOME=/srv/app PYTHONUNBUFFERED=1
WORKDIR /srv/app
COPY requirements ./requirements
RUN mkdir -p /usr/lib/app && cd /usr/lib/app \\
 && for p in $(cat /srv/app/requirements/list); do mkdir $p && cp /srv/app/requirements/blob $p/; done
COPY src ./src
RUN find src -name '*.py' | sort | xargs cat | md5sum >src/.built
EXPOSE 8000
CMD ["/bin/true"]
"""
WORK = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
STAGES = "".join(f"FROM {NAME} AS s{number}\nRUN {WORK}; echo $i >/out{number}\n" for number in range(4))
STAGES += f"FROM {NAME}\n" + "".join(f"COPY --from=s{number} /out{number} /\n" for number in range(4))
Build = Callable[[Path, bool], None]


def application(folder: Path) -> Path:
    where = folder / "application"
    (where / "requirements").mkdir(parents=True)
    (where / "requirements/list").write_text("\n".join(f"package{number}" for number in range(20)))
    (where / "requirements/blob").write_bytes(random.Random(1).randbytes(1 << 20))
    for number in range(300):
        path = where / f"src/part{number % 10}/module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VALUE = {number}\n" * 100)
    (where / "Dockerfile").write_text(APPLICATION)
    return where


def stages(folder: Path) -> Path:
    where = folder / "stages"
    where.mkdir()
    (where / "Dockerfile").write_text(STAGES)
    return where


def large(folder: Path) -> Path:
    where = folder / "large"
    where.mkdir()
    for number in range(20):
        (where / f"data{number}").write_bytes(random.Random(number).randbytes(10 << 20))
    (where / "Dockerfile").write_text(f"FROM {NAME}\nRUN true\n")
    return where


def docker(sock: Path) -> Build:
    def build(context: Path, fresh: bool) -> None:
        words = ["/usr/bin/docker", "-H", f"unix://{sock}", "build", "-q", "-t", f"bench-{context.name}"]
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        subprocess.run([*words, *(["--no-cache"] if fresh else []), str(context)], check=True, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return build


def buildah(folder: Path) -> Build:
    storage = ["--root", str(folder / "buildah"), "--runroot", str(folder / "buildah-run"),
               "--storage-driver", "overlay"]  # fmt: skip

    def build(context: Path, fresh: bool) -> None:
        words = ["buildah", *storage, "bud", "-q", "--layers", "--tls-verify=false", "--isolation", "chroot",
                 "--network", "host", "-t", f"bench-{context.name}"]  # fmt: skip
        subprocess.run([*words, *(["--no-cache"] if fresh else []), str(context)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return build


def timed(work: Callable[[], None], rounds: int, before: Callable[[int], None] = lambda _round: None) -> float:
    spans = []
    for number in range(rounds):
        before(number)
        begin = time.perf_counter()
        work()
        spans.append(time.perf_counter() - begin)
    return statistics.median(spans) * 1000


def measure(build: Build, folder: Path, rounds: int) -> dict[str, float]:
    app, four, big = application(folder), stages(folder), large(folder)

    def change(number: int) -> None:
        (app / "src/part1/module1.py").write_text(f"CHANGED = {number} + {time.time_ns()}\n")

    build(app, False)
    found = {
        "cold": timed(lambda: build(app, True), rounds),
        "cached": timed(lambda: build(app, False), rounds, lambda number: build(app, False) if not number else None),
        "one file changed": timed(lambda: build(app, False), rounds, change),
        "four stages": timed(lambda: build(four, True), max(rounds // 2, 1)),
    }
    build(big, False)
    found["200 MB context"] = timed(lambda: build(big, False), max(rounds // 2, 1))
    for place in (app, four, big):
        shutil.rmtree(place)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="a docker-archive (.tar or .tar.gz) with a shell")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with both_engines(arguments.image) as (root, ours, theirs):
        mine = measure(docker(ours), root, arguments.rounds)
        peer = measure(docker(theirs), root, arguments.rounds)
        other = measure(buildah(root), root, arguments.rounds)
    print(f"{'':20} {'Seawall':>9} {'Docker':>9} {'buildah':>9} {'ratio':>6}")
    for name, value in mine.items():
        best = min(peer[name], other[name])
        print(f"{name:20} {value:7.0f}ms {peer[name]:7.0f}ms {other[name]:7.0f}ms {best / value:5.1f}x")


if __name__ == "__main__":
    main()
