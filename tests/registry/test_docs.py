"""The manual's tables are made from the code: `SEAWALL_WRITE_DOCS=1 pytest tests/registry/test_docs.py` renews them."""

import dataclasses
import os
import re
from pathlib import Path
from typing import cast, get_args, get_type_hints
from unittest.mock import Mock

import click
import pytest

from registry.api.admin.administration import Administration
from registry.api.operations import OperationEndpoints
from registry.api.paths import Endpoint
from registry.api.routes import routes
from registry.cli import main
from registry.errors import ANSWERS
from registry.importing.journal import Class
from registry.settings import PREFIX, Settings
from storage.repository.store import ContentStore

DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITE = os.environ.get("SEAWALL_WRITE_DOCS") == "1"
PATHS = {
    Endpoint.BASE: "/v2/", Endpoint.BLOB: "/v2/<name>/blobs/<digest>",
    Endpoint.MANIFEST: "/v2/<name>/manifests/<reference>", Endpoint.UPLOADS: "/v2/<name>/blobs/uploads/",
    Endpoint.UPLOAD: "/v2/<name>/blobs/uploads/<id>", Endpoint.TAGS: "/v2/<name>/tags/list",
    Endpoint.REFERRERS: "/v2/<name>/referrers/<digest>", Endpoint.CATALOG: "/v2/_catalog",
    Endpoint.EXTENSIONS: "/v2/_oci/ext/discover",
    Endpoint.PING: "/v1/_ping", Endpoint.SEARCH: "/v1/search", Endpoint.HEALTH: "/healthz", Endpoint.ADMIN: "/api/v1/…", Endpoint.LOGIN: "/login",
    Endpoint.CALLBACK: "/login/callback", Endpoint.LOGOUT: "/logout",
    Endpoint.LIVE: "/livez", Endpoint.READY: "/readyz", Endpoint.METRICS: "/metrics",
    Endpoint.TOKEN: "/token",
}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def errors() -> str:
    rows = sorted({(f"`{answer.code}`", str(answer.status), answer.meaning) for answer in ANSWERS.values()})
    return table(("code", "status", "when"), rows)


def operations(content: ContentStore, administration: Administration) -> str:
    return table(("path", "methods"), [(f"`{PATHS[endpoint]}`", " ".join(methods))
                                       for endpoint, methods in routes(
                                           content, administration, Settings(), cast("OperationEndpoints", Mock())).items()])


def commands() -> str:
    rows = []
    listed = [(f"{name} {verb}", command) for name, group in main.commands.items() if isinstance(group, click.Group)
              for verb, command in group.commands.items()]
    single = [(name, command) for name, command in main.commands.items() if not isinstance(command, click.Group)]
    for name, command in [*single, *listed]:
        options = [option for option in command.params if isinstance(option, click.Option)]
        shown = " ".join(f"`{'/'.join(option.opts)}`" for option in options)
        help_text = command.get_short_help_str(200)
        rows.append((f"`{name}`", help_text, shown))
    return table(("command", "what it does", "options"), rows)


def settings() -> str:
    def rows(kind: type, section: str) -> list[tuple[str, ...]]:
        hints, found = get_type_hints(kind), []
        for item in dataclasses.fields(kind):
            of = hints[item.name]
            if dataclasses.is_dataclass(of):
                found += rows(of, f"{section}{item.name}.")
                continue
            default = str(item.default).lower() if of is bool else "" if item.default == () else str(item.default)
            name = f"{section}{item.name}"
            variable = "" if "[]" in name else f"`{PREFIX}{name.replace('.', '_').upper()}`"
            found.append((f"`{name}`", variable, f"`{default}`" if default else "", item.metadata["doc"]))
            listed = get_args(of)
            if listed and dataclasses.is_dataclass(listed[0]):
                found += rows(listed[0], f"{name}[].")
        return found

    top = [row for row in rows(Settings, "") if "." not in row[0]]
    below = [row for row in rows(Settings, "") if "." in row[0]]
    return ("# Settings of the registry\n\nA name with a dot is a key in a section of the TOML file: `limits.page_size`"
            " is `page_size` under `[limits]`;\none with `[]` is a key of each table in a list: `upstreams[].url` is "
            "`url` under `[[upstreams]]`. In the environment a\nlist of values has commas, a list of tables is TOML: "
            "`[{name = \"docker.io\"}]`.\nFlags win over the environment, which wins over the file.\n\n"
            + table(("setting", "environment", "default", "meaning"), [*top, *below]) + "\n")


def compare(path: Path, text: str) -> None:
    if WRITE:
        path.write_text(text)
    assert path.read_text() == text, "renew it: SEAWALL_WRITE_DOCS=1 pytest tests/registry/test_docs.py"


def administration(made: Administration) -> str:
    return table(("operation", "what it does", "needs"), [
        (f"`{item.method} {item.path}`", item.summary, item.needs.value if item.needs else "nothing")
        for item in sorted(made.operations, key=lambda item: (item.path, item.method))])


async def test_the_administration_page(api) -> None:
    path = DOCS / "administration.md"
    pattern = r"(?s)(<!-- generated: administration -->\n).*?(<!-- end -->)"
    made = administration(api.registry.administration)
    compare(path, re.sub(pattern, lambda match: f"{match[1]}{made}\n{match[2]}", path.read_text()))


async def test_the_registry_page(api) -> None:
    path = DOCS / "registry.md"
    text = path.read_text()
    for name, made in (("commands", commands()), ("operations", operations(api.registry.content, api.registry.administration)),
                       ("errors", errors())):
        pattern = rf"(?s)(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        assert re.search(pattern, text), name
        text = re.sub(pattern, lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)
    compare(path, text)


def test_the_import_page() -> None:
    path = DOCS / "import.md"
    made = table(("class", "what it is"), [(f"`{kind.code}`", kind.meaning) for kind in Class])
    head, _, rest = path.read_text().partition("<!-- generated: classes -->\n")
    compare(path, f"{head}<!-- generated: classes -->\n{made}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")


def test_the_settings_page() -> None:
    compare(DOCS / "settings-registry.md", settings())


@pytest.mark.parametrize("endpoint", Endpoint)
def test_every_endpoint_has_a_path_here(endpoint) -> None:
    assert endpoint in PATHS
