import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: Each imports from itself and from those before it; `preimage` alone is the door that users come in by.
LAYERS = [
    # These import no room.
    "preimage.checks preimage.files preimage.fonts preimage.locks preimage.private_api",
    "preimage.progress preimage.retired",
    "lightning_modules",
    "datamodules",
    "preimage.trainer_options preimage.runs preimage.loggers",  # what a run is
    "callbacks",
    "preimage.configs preimage.errors preimage.links preimage.parsing preimage.processes",
    "preimage.beginning preimage.cli",
    "preimage.reporting",
    "preimage.evaluation",
    "preimage.model preimage.codes preimage.sweep_file preimage.commands",
    "preimage.__main__ preimage",
]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ("lightning_modules", "datamodules", "callbacks", "preimage")
    for path in sorted((ROOT / room).rglob("*.py"))
}


def layer(module: str) -> int:
    names = [(number, name) for number, names in enumerate(LAYERS) for name in names.split()]
    return max((len(name), number) for number, name in names if f"{module}.".startswith(f"{name}."))[1]


def imported(module: str, path: Path, at_start: bool) -> Iterator[str]:
    """The modules of this project that a file imports, or those that it does while it is imported itself."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    for node in waiting:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            base = resolve_name("." * node.level + (node.module or ""), package)
            names = [name if (name := f"{base}.{alias.name}") in FILES else base for alias in node.names]
            yield from (name for name in names if name in FILES)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not (at_start and isinstance(node, ast.FunctionDef)):
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("module", FILES)
def test_no_module_imports_from_a_layer_above(module: str) -> None:
    assert [name for name in imported(module, FILES[module], False) if layer(name) > layer(module)] == []


def test_there_is_no_circle_of_imports() -> None:
    TopologicalSorter({name: {*imported(name, path, True)} for name, path in FILES.items()}).prepare()
