"""The rooms of the package: which may import from which, and what an import loads."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import projunn_lightning

PACKAGE = Path(projunn_lightning.__file__).parent
TORCH_ONLY = ["errors", "_compat", "linalg", "functional", "constraint", "optim", "nn"]
ALLOWED = {
    "errors": [],
    "_compat": [],
    "linalg": ["errors"],
    "functional": ["errors", "linalg", "_compat"],
    "constraint": ["errors", "linalg", "functional", "_compat"],
    "optim": ["errors", "linalg", "functional", "constraint", "_compat"],
    "callbacks": ["errors", "linalg", "functional", "constraint", "optim", "nn", "_compat"],
    "nn": ["errors", "linalg", "functional", "constraint", "_compat"],
    "models": ["errors", "linalg", "functional", "constraint", "nn", "_compat"],
    "data": ["errors", "linalg", "functional", "_compat"],
    "cli": ["errors", "linalg", "functional", "constraint", "optim", "callbacks", "nn", "models", "data", "_compat"],
    "__main__": ["cli"],
    "__init__": [],  # its names load lazily
}
NAMESPACES = {"projunn_lightning.functional.init", "projunn_lightning.functional.simple", "projunn_lightning.cli.main"}
"""Modules inside a folder that are public as a whole, as torch.nn.init is; and the entry of the command."""


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name):
    """Each import of this package's modules in a file: (the module that is loaded, the name that is taken of it)."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.startswith("projunn_lightning."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("projunn_lightning"):
            for alias in node.names:
                value = getattr(importlib.import_module(node.module), alias.name)
                inner = f"{node.module}.{alias.name}"
                yield (inner, None) if isinstance(value, ModuleType) else (node.module, alias.name)


def room(name):
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_the_rooms_below_its_own(name):
    above = {target for target, _ in imports(name) if room(target) not in [room(name), *ALLOWED[room(name)]]}
    assert not above


@pytest.mark.parametrize("name", FILES)
def test_from_another_folder_only_public_names_are_imported_and_by_its_init(name):
    for target, taken in imports(name):
        if room(target) in (room(name), "_compat"):
            continue
        assert not any(part.startswith("_") for part in [*target.split("."), taken or ""])
        assert target.count(".") == 1 or target in NAMESPACES, f"{target} is inside of a folder"


def test_there_is_no_circle():
    graph = {name: {target for target, _ in imports(name)} for name in FILES}
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name] & graph.keys()):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def loaded_by(statement):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_the_projector_loads_torch_only():
    loaded = loaded_by("from projunn_lightning import Projector")
    assert "torch" in loaded
    assert not loaded & {"lightning", "pytorch_lightning", "torchmetrics", "matplotlib", "jsonargparse", "datasets"}


def test_the_lower_rooms_load_torch_only():
    loaded = loaded_by("; ".join(f"import projunn_lightning.{each}" for each in TORCH_ONLY))
    assert not loaded & {"lightning", "pytorch_lightning", "torchmetrics", "matplotlib", "jsonargparse", "datasets"}


def test_a_star_import_gives_every_public_class_and_leaves_nn_alone():
    names = {}
    exec("from torch import nn\nfrom projunn_lightning import *", names)
    assert names["nn"].__name__ == "torch.nn"
    assert set(projunn_lightning.__all__) <= names.keys()
    assert {"Projector", "ProjUNN", "SequenceModel", "CopyingMemory", "orthogonal"} <= names.keys()
