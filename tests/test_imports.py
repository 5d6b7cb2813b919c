"""Imports point one way, the server cannot reach the secret key, and only the FATE bindings know FATE."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).resolve().parents[1]
SECRET = "he_backend.ckks.secret"
FATE = {"fate", "fate_arch", "fate_client", "fate_flow", "fate_test", "federatedml"}
BINDINGS = ("he_nn.fate1", "he_nn.fate2")

# Room of he_backend -> the rooms that it may import. Everything may import errors and version.
COMMON = {"errors", "version"}
ORDER = {
    "errors": set(),
    "version": set(),
    "ckks": set(),
    "graph": set(),
    "access": set(),
    "protocol": set(),
    "database": set(),
    "api": {"access", "protocol"},
    "web": {"access", "ckks", "database", "protocol"},
    "inference": {"ckks", "graph"},
    "zoo": {"graph"},
    "strategies": {"graph", "zoo"},
    "server": {"access", "ckks", "database", "graph", "inference", "protocol", "web", "zoo"},
    "client": {"access", "api", "ckks", "graph", "inference", "protocol", "web"},
    "local": {"ckks", "client", "graph", "inference", "protocol", "server"},
    "evaluation": {"client", "graph", "local", "server"},
    "bench": {"ckks", "zoo"},
    "commands": {
        *("access", "api", "bench", "ckks", "client", "database", "evaluation", "graph", "inference", "local", "protocol", "server"),
        *("strategies", "web", "zoo"),
    },
    "cli": {"commands", "zoo"},
}
# Loads modules by name: the package's own public names, the commands, and the extension module, which may be missing.
DYNAMIC = {"he_backend", "he_backend.cli", "he_backend.ckks.ring"}


class Import(NamedTuple):
    """One imported module, as far as it can be told: `name` may be an attribute of a module too."""

    name: str
    line: int
    typing_only: bool


class Module(NamedTuple):
    name: str
    tree: ast.AST
    imports: list[Import]


def imports_of(tree: ast.AST, package: str) -> list[Import]:
    """Every import in a module of `package`, inside functions too."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found.append(Import(base, node.lineno, typing_only))
            found.extend(Import(f"{base}.{alias.name}", node.lineno, typing_only) for alias in node.names)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(tree, False)
    return found


def read_modules() -> dict[str, Module]:
    modules = {}
    for folder in (TOP / "backend" / "he_backend", TOP / "he_nn"):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            package = name if is_package else name.rpartition(".")[0]
            modules[name] = Module(name, tree, imports_of(tree, package))
    return modules


MODULES = read_modules()
# secret.py, and what it may be split into: modules with the word in their name.
SECRETS = {name for name in MODULES if name.startswith("he_backend.ckks.") and "secret" in name}


def room_of(name: str) -> str:
    """he_backend.ckks.params -> ckks; '' for the package itself and for what is not he_backend's."""
    parts = name.split(".")
    return parts[1] if parts[0] == "he_backend" and len(parts) > 1 else ""


def lazy_homes() -> dict[str, str]:
    """Public name of he_backend -> the module that it is loaded from when used."""
    for node in ast.walk(MODULES["he_backend"].tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES":
            return {f"he_backend.{name}": home for name, home in ast.literal_eval(node.value).items()}
    return {}


HOMES = lazy_homes()


def loaded_by(module: Module) -> set[str]:
    """Our modules that running all code of a module may load, parents included."""
    loaded = set()
    for one in module.imports:
        if one.typing_only:
            continue
        name = HOMES.get(one.name, one.name)
        parts = name.split(".")
        loaded.update({".".join(parts[:end]) for end in range(1, len(parts) + 1)} & MODULES.keys())
    return loaded


def ways_from(start: str) -> dict[str, list[str]]:
    """Module -> a shortest chain of imports that leads to it."""
    ways = {start: [start]}
    todo = deque([start])
    while todo:
        name = todo.popleft()
        for other in sorted(loaded_by(MODULES[name])):
            if other not in ways:
                ways[other] = [*ways[name], other]
                todo.append(other)
    return ways


def modules_in(*rooms: str) -> list[str]:
    return [name for name in MODULES if room_of(name) in rooms]


def test_every_room_is_in_the_order():
    assert {room_of(name) for name in MODULES} - {""} <= ORDER.keys()


@pytest.mark.parametrize("room", ORDER)
def test_imports_point_one_way(room):
    allowed = ORDER[room] | COMMON | {room, ""}
    wrong = [
        f"{name}:{one.line} imports {one.name}"
        for name in modules_in(room)
        for one in MODULES[name].imports
        if one.name.startswith("he_backend.") and room_of(HOMES.get(one.name, one.name)) not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("name", modules_in("server", "inference", "graph", "protocol", "web", "zoo"))
def test_the_server_cannot_reach_the_secret_key(name):
    ways = ways_from(name)

    assert not [" -> ".join(ways[secret]) for secret in SECRETS & ways.keys()]


def test_only_the_client_and_the_benchmarks_import_the_secret_key():
    importers = {name for name, module in MODULES.items() for one in module.imports if one.name in SECRETS}

    assert {room_of(name) for name in importers - SECRETS} == {"bench", "client"}


def test_only_the_secret_module_makes_keys_and_decryptors():
    """The names by which SEAL's bindings offer them."""
    users = {
        name
        for name, module in MODULES.items()
        for node in ast.walk(module.tree)
        if getattr(node, "attr", getattr(node, "id", "")) in {"KeyGenerator", "Decryptor", "SecretKeyVector"}
    }
    assert users <= SECRETS


def test_modules_are_loaded_by_name_in_few_places_only():
    users = {
        name
        for name, module in MODULES.items()
        for node in ast.walk(module.tree)
        if getattr(node, "attr", getattr(node, "id", "")) in {"import_module", "__import__", "run_module"}
    }
    assert {name for name in users if name.startswith("he_backend")} <= DYNAMIC


def test_the_engine_has_never_heard_of_the_plugin_or_fate():
    wrong = [
        f"{name}:{one.line} imports {one.name}"
        for name, module in MODULES.items()
        if name.startswith("he_backend")
        for one in module.imports
        if one.name.split(".")[0] in FATE | {"he_nn"}
    ]
    assert not wrong


def test_only_the_bindings_import_fate():
    wrong = [
        f"{name}:{one.line} imports {one.name}"
        for name, module in MODULES.items()
        if not name.startswith(BINDINGS)
        for one in module.imports
        if one.name.split(".")[0] in FATE
    ]
    assert not wrong


def test_the_walk_sees_every_form_of_import():
    source = (
        "import he_backend.a\n"
        "from . import b\n"
        "from .. import c as d\n"
        "from ..e.f import g\n"
        "if TYPE_CHECKING:\n    from .h import i\nelse:\n    import j\n"
        "def late():\n    with x:\n        from k import l\n"
    )
    found = imports_of(ast.parse(source), "he_backend.room")

    loaded = {one.name for one in found if not one.typing_only}
    assert {"he_backend.a", "he_backend.room.b", "he_backend.c", "he_backend.e.f", "he_backend.e.f.g"} < loaded
    assert {"j", "k", "k.l"} < loaded
    assert {one.name for one in found if one.typing_only} == {"he_backend.room.h", "he_backend.room.h.i"}


def test_the_walk_finds_the_secret_key_where_it_is_imported():
    clients = [name for name in modules_in("client") if SECRET in ways_from(name)]

    assert clients
    assert HOMES["he_backend.Client"] in clients


def loaded_after(program: str) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "backend"), str(TOP)])}
    program += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_running_server_has_not_loaded_the_secret_key():
    names = [*modules_in("server", "inference", "web"), "he_backend.cli", "he_backend.commands.serve"]

    loaded = loaded_after("\n".join(f"import {name}" for name in names))

    assert set(names) <= loaded
    assert not SECRETS & loaded
    assert not [name for name in loaded if name.startswith("he_backend.client.")]


def test_a_client_has_loaded_the_secret_key():
    assert SECRET in loaded_after("from he_backend import Client")


def test_the_plugin_loads_without_fate():
    plain = [name for name in MODULES if name.startswith("he_nn") and not name.startswith(BINDINGS)]

    loaded = {name.split(".")[0] for name in loaded_after("\n".join(f"import {name}" for name in plain))}

    assert "he_nn" in loaded and not loaded & FATE
