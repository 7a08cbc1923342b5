"""Imports run one way, nothing is imported before it is used, and only names are public."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import asend

PACKAGE = Path(asend.__file__).parent

# Who may import whom of asend, when it runs. A module that is missing here is an error: say where
# it belongs. What one imports for type checkers only is free.
ALLOWED: dict[str, set[str]] = {
    "_errors": set(),
    "_wants": set(),
    "_tally": set(),
    "_limits": set(),
    "_residency": set(),
    "_arguments": {"_limits"},
    "_senders": {"_arguments", "_errors"},
    "_transfers": {"_arguments", "_tally", "_wants"},
    "_by_kernel": {"_errors", "_residency", "_tally", "_transfers", "_wants"},
    "_by_copy": {"_arguments", "_residency", "_tally", "_transfers", "_wants"},
    "_files": {"_arguments", "_by_copy", "_by_kernel", "_errors", "_tally", "_wants"},
    "_drivers._proactor": {"_tally", "_wants"},
    "_drivers._turns": {"_tally"},
    "_drivers._asyncio": {
        "_arguments",
        "_drivers._proactor",
        "_drivers._turns",
        "_errors",
        "_limits",
        "_senders",
        "_tally",
        "_wants",
    },
    "_drivers._anyio": {"_errors", "_limits", "_senders", "_tally", "_wants"},
    "_drivers": {"_drivers._anyio", "_drivers._asyncio"},
    "_calls": {"_limits", "_tally", "_wants"},
    "_sockets": {
        "_arguments",
        "_calls",
        "_drivers",
        "_drivers._asyncio",
        "_files",
        "_limits",
        "_senders",
        "_tally",
        "_transfers",
        "_wants",
    },
    "_outlets._guards": {"_errors", "_senders"},
    "_outlets._plain": {"_arguments", "_calls", "_errors", "_outlets._guards", "_senders"},
    "_outlets._traits": set(),
    "_outlets._ends": {"_outlets._traits"},
    "_outlets._watches": set(),
    "_outlets._through": {"_errors", "_outlets._watches", "_wants"},
    "_outlets._transports": {
        "_arguments",
        "_calls",
        "_errors",
        "_outlets._ends",
        "_outlets._guards",
        "_outlets._through",
        "_outlets._traits",
        "_senders",
    },
    "_outlets._blocks": {"_calls", "_drivers", "_drivers._anyio", "_errors", "_wants"},
    "_outlets": {
        "_arguments",
        "_outlets._blocks",
        "_outlets._plain",
        "_outlets._traits",
        "_outlets._transports",
    },
    "streams": {
        "_arguments",
        "_drivers",
        "_errors",
        "_files",
        "_limits",
        "_outlets",
        "_outlets._transports",
        "_tally",
        "_transfers",
    },
    "loops": {
        "_arguments",
        "_errors",
        "_outlets",
        "_outlets._traits",
        "_sockets",
        "streams",
    },
    "http._ranges": set(),
    "http._conditions": set(),
    "http._encodings": set(),
    "http._answers": {"http._conditions", "http._ranges"},
    "http._open_files": {"_residency"},
    "http._sending": {"_arguments", "_limits", "streams"},
    "http": {
        "http._answers",
        "http._conditions",
        "http._encodings",
        "http._open_files",
        "http._sending",
    },
    "_failures": set(),
    "_uvicorn": {"_failures"},
    "_bodies": {"_limits", "_failures", "http", "streams"},
    "_descriptors": {"_arguments"},
    "_lookups": {"_drivers", "http"},
    "_responses": {"_bodies", "_descriptors", "_lookups", "_uvicorn"},
    "asgi": {"_arguments", "_descriptors", "_limits", "_responses"},
    "aiohttp._bodies": {"", "_limits", "http", "streams"},
    "aiohttp._file_responses": {
        "_arguments",
        "_limits",
        "_failures",
        "aiohttp._bodies",
        "http",
    },
    "aiohttp._static": {"_limits", "aiohttp._file_responses"},
    "aiohttp": {"http", "aiohttp._file_responses", "aiohttp._static"},
    "starlette": {
        "_arguments",
        "_bodies",
        "_limits",
        "_lookups",
        "_responses",
        "http",
        "http._conditions",
    },
    "": {"_errors", "_limits", "_sockets", "streams"},
}
# Drivers do not know what they drive: no class of a transfer, only how much a step may be.
NAMES: dict[tuple[str, str], set[str]] = {
    ("_drivers._proactor", "_tally"): {"STEP_SIZE"},
    ("_drivers._proactor", "_wants"): {"DONE", "FilePart"},
    ("_drivers._anyio", "_tally"): {"KERNEL_STEP_SIZE", "STEP_SIZE"},
    ("_drivers._asyncio", "_tally"): {"KERNEL_STEP_SIZE", "STEP_SIZE"},
    ("_drivers._turns", "_tally"): {"KERNEL_STEP_SIZE", "STEP_SIZE"},
    ("_drivers._asyncio", "_wants"): {"DONE", "FILE", "SOCKET"},
    ("_drivers._anyio", "_wants"): {"DONE", "FILE", "SOCKET"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    .removesuffix("__init__")
    .removesuffix("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(module: str) -> dict[str, set[str]]:
    """The modules of asend that one imports when it runs, and which names of each."""
    path = MODULES[module]
    package = path.relative_to(PACKAGE).parent.parts
    found: dict[str, set[str]] = {}
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] == "asend" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            parts = package[: len(package) - node.level + 1]
            source = ".".join((*parts, *filter(None, [node.module])))
            for alias in node.names:
                inner = f"{source}.{alias.name}".lstrip(".")
                if inner in MODULES:
                    found.setdefault(inner, set())
                else:
                    found.setdefault(source, set()).add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "asend"
    return found


def running(node: ast.AST) -> list[ast.AST]:
    """All nodes, functions' too, without those that only type checkers see."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        found += [child, *running(child)]
    return found


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(ALLOWED)


@pytest.mark.parametrize("module", sorted(ALLOWED), ids=lambda name: name or "asend")
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    assert set(imports_of(module)) <= ALLOWED[module]


def test_the_table_has_no_cycle() -> None:
    left = {name: set(below) for name, below in ALLOWED.items()}

    while lowest := {name for name, below in left.items() if not below}:
        left = {name: below - lowest for name, below in left.items() if name not in lowest}

    assert left == {}


@pytest.mark.parametrize(("module", "source"), sorted(NAMES))
def test_drivers_know_no_transfer(module: str, source: str) -> None:
    assert imports_of(module).get(source, set()) <= NAMES[module, source]


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"{statement}; import sys; print(*sys.modules)"
    # -I: nothing of this directory or of the environment.
    start = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", start], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["asend", "asend.asgi", "asend.loops"])
def test_nothing_is_loaded_before_it_is_used(module: str) -> None:
    mine = loaded_by(f"import {module}") - loaded_by("import __future__, asyncio, dataclasses")

    foreign = {name.split(".")[0] for name in mine} - {"asend"}
    if module == "asend.asgi":
        # Dates of HTTP.
        foreign -= set(sys.stdlib_module_names)

    # Whatever the event loop packages and frameworks are: nothing but asend.
    assert foreign == set()
    assert "asend._drivers._anyio" not in mine


def test_all_public_names_are_said() -> None:
    public = {
        name
        for name, value in vars(asend).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert public == set(asend.__all__)
    assert asend.__all__ == sorted(asend.__all__)


@pytest.mark.parametrize("name", asend.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(asend, name))
