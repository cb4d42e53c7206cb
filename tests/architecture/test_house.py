"""The architecture page as tests: layers, rooms, modules that stand alone, documented Protocols."""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ocispec", "storage", "registry", "node", "migrations")
FORBIDDEN_ROOMS = {"utils", "util", "helpers", "helper", "common", "core", "misc"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_arrows_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]


def imported(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """What a module imports while it is imported itself: not in functions, nor for type checkers alone."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom():
                yield node
            case ast.If():
                if "TYPE_CHECKING" not in ast.unparse(node.test):
                    yield from imported(node.body)
                yield from imported(node.orelse)
            case ast.Try():
                yield from imported([*node.body, *(line for handler in node.handlers for line in handler.body)])
            case ast.With() | ast.ClassDef():
                yield from imported(node.body)


def test_every_module_can_be_imported_alone() -> None:
    """No module needs, while it is imported, one that needs it. Asked of the source: to import each of them in a fresh
    interpreter says the same and takes minutes."""
    ours = {dotted(path): path for path in modules()}
    needs: dict[str, set[str]] = {}
    for name, path in ours.items():
        wanted = set()
        for node in imported(ast.parse(path.read_text()).body):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            else:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= (whole & ours.keys()) or {str(node.module)}
        needs[name] = wanted & ours.keys()
    list(graphlib.TopologicalSorter(needs).static_order())  # CycleError names the modules


def test_every_module_can_be_imported() -> None:
    # alembic loads env.py and the versions itself, inside a migration context.
    names = [dotted(path) for path in modules() if path.name not in ("env.py", "__main__.py")
             and "versions" not in path.parts]
    program = "import importlib, sys\nfor name in sys.stdin.read().split(): importlib.import_module(name)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], input="\n".join(names), text=True,
                            capture_output=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr[-4000:]


def test_no_dumping_grounds() -> None:
    bad = [str(path.relative_to(ROOT)) for path in modules() if FORBIDDEN_ROOMS & {*path.parts, path.stem}]
    assert not bad


def test_no_module_grows_past_600_lines() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in modules()
            if (lines := len(path.read_text().splitlines())) > 600}
    assert not long


def protocols() -> list[tuple[str, ast.ClassDef]]:
    found = []
    for path in modules():
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Protocol" for base in item.bases
            ):
                found.append((f"{dotted(path)}.{item.name}", item))
    return found


def test_protocols_are_small_and_documented() -> None:
    large, silent = [], []
    for name, item in protocols():
        methods = [m for m in item.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
        if len(methods) > 6:
            large.append(f"{name}: {len(methods)} methods")
        if not ast.get_docstring(item) and not any(ast.get_docstring(m) for m in methods):
            silent.append(name)
    assert not large
    assert not silent


def test_every_room_says_what_it_is_for() -> None:
    rooms = [path for path in modules() if path.name == "__init__.py" and "versions" not in path.parts]
    silent = [dotted(path) for path in rooms if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


@pytest.mark.skipif(not os.path.isdir(ROOT / ".git"), reason="needs the git checkout")
def test_the_tree_names_no_package_host_and_no_machine() -> None:
    words = ("files.python" + "hosted", "py" + "pi.org", "deb." + "debian.org", "registry.npm" + "js.org")
    grep = ["git", "grep", "-nIF", *[arg for word in words for arg in ("-e", word)]]
    result = subprocess.run(grep, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout
