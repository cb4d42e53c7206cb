"""What the node adds to a container that says nothing: the baseline, a number of processes, calls of 32-bit images."""

import os
from collections.abc import Collection
from dataclasses import replace

from node.containers.bundle.baseline import baseline
from node.containers.bundle.security import confine
from node.containers.model import CreateSpec, Resources, Security
from node.settings import IsolationSettings
from ocispec.descriptor import Platform

OLDER = {"x86_64": "386", "aarch64": "arm"}
"""Architecture of images whose programs make the 32-bit calls of a 64-bit machine, by the machine."""


def with_baseline(security: Security, node: IsolationSettings) -> Security:
    return replace(security, isolation=security.isolation or node.baseline)


def limited(limits: Resources, security: Security, node: IsolationSettings, features: Collection[str]) -> Resources:
    """A number of processes for those that ask for none: a fork bomb ends in its own container."""
    spared = limits.pids_limit or security.privileged or not baseline(security.isolation).limited_pids
    if spared or "pids" not in features or node.pids_limit <= 0:
        return limits
    return replace(limits, pids_limit=node.pids_limit)


def for_older_image(spec: CreateSpec, image: Platform) -> tuple[Security, tuple[str, ...]]:
    """A 32-bit image whose platform the user named gets its system calls. Who names none is told: the image's author
    must not be the one who opens them."""
    security = spec.security
    if image.architecture != OLDER.get(os.uname().machine) or baseline(security.isolation).older_calls:
        return security, ()
    if spec.platform:
        return replace(security, older_calls=True), ()
    filtered = confine(security).seccomp
    if filtered is None or len(filtered.get("architectures", ())) > 1:
        return security, ()
    told = (f"The image is for linux/{image.architecture}, and system calls of 32-bit programs are closed by default: "
            f"its programs will end with signal SYS (status 159). --platform linux/{image.architecture} opens them, or "
            "--isolation docker")  # fmt: skip
    return security, (told,)
