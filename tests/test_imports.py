"""Imports go one way, also those inside functions and those for type hints only (docs/architecture.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

SOURCE = ROOT / "src" / "review_sentiment"
# From the bottom: a module imports from its own layer and from those before it. What is not named is in the first.
LAYERS = (
    {"params", "text", "metrics", "addresses", "errors"},
    {"runs", "model", "reference", "distributed"},
    {"datasets", "scoring"},
    {"pipelines", "hooks", "catalog"},
    {"cli", "commands", "serving", "settings", "pipeline_registry", "__main__"},
)
USES_KEDRO = {"datasets", "hooks", "catalog", "cli", "commands", "settings", "pipeline_registry", "__main__"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def ours() -> dict[str, set[str]]:
    """Of each of our modules, without the package's name, all that it imports."""
    paths = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): imports(path) for name, path in paths.items()}


def own_imports() -> dict[str, set[str]]:
    """Of each of our modules, those of ours that it imports."""
    modules, package = ours(), "review_sentiment."
    found = {}
    for name, others in modules.items():
        own = {other.removeprefix(package) for other in others if other.startswith(package)} & modules.keys()
        found[name] = {other for other in own if not f"{name}.".startswith(f"{other}.")}  # a package holds the module
    return found


def layer(module: str) -> int:
    return next((number for number, parts in enumerate(LAYERS) if module.partition(".")[0] in parts), 0)


def test_no_module_imports_upward_or_in_a_circle():
    modules = own_imports()
    upward = [(name, other) for name, others in modules.items() for other in others if layer(other) > layer(name)]
    assert upward == []
    assert set(TopologicalSorter(modules).static_order()) >= {"cli", "params"}  # raises on a cycle


def test_no_pipeline_imports_another():
    modules = {name: others for name, others in own_imports().items() if name.startswith("pipelines.")}
    across = [(name, other) for name, others in modules.items() for other in others
              if other.startswith("pipelines.") and other.split(".")[1] != name.split(".")[1]]  # fmt: skip
    assert across == []


def test_only_what_belongs_to_kedro_imports_it():
    for name, found in ours().items():
        if name.partition(".")[0] not in USES_KEDRO and name != "runs.session" and not name.endswith(".pipeline"):
            assert not [other for other in found if other.split(".")[0] == "kedro"], name
